"""The sampling loop, which is ours here: the core's ``PlanRun`` is asked before every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import msgspec
import torch
from PIL import Image
from torch import Tensor

from multipass.hosts.standalone.job import Job
from multipass.hosts.standalone.layout import PIXELS_PER_LATENT
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Checkpoint, Component
from multipass.hosts.standalone.sampling import stepper
from multipass.hosts.standalone.schedules import timestep_at
from multipass.hosts.standalone.text import Encoded
from multipass.manifest import Load, PassRecord, Source
from multipass.run import PlanRun
from multipass.schedule import Segment

LATENT_CHANNELS = 4


class Conditioning(msgspec.Struct, frozen=True):
    """What a pass's texts are to its UNet."""

    positive: Encoded
    negative: Encoded


class Ready(msgspec.Struct, frozen=True):
    """A pass that only needs its UNet in place to be sampled."""

    checkpoint: Checkpoint
    conditioning: Conditioning
    cfg_scale: float


class Watcher(Protocol):
    """Is told how a picture comes along."""

    def pass_begins(self, part: Segment, /) -> None: ...

    def step_done(self, index: int, latent: Tensor, /) -> None: ...


def make_ready(job: Job, part: Segment, checkpoints: Checkpoints) -> Ready:
    """Encode a pass's texts with its own checkpoint's text encoder.

    Raises:
        InputError: where its file cannot be read, or any part of the checkpoint does not fit its config.
    """
    index = part.pass_index
    texts = job.texts[index]
    clip_skip = job.setting(index).clip_skip or 1
    checkpoint = checkpoints.get(job.checkpoints[index])
    with checkpoints.using(checkpoint, Component.TEXT):
        conditioning = Conditioning(
            checkpoint.encode(texts.prompt, clip_skip, negative=False),
            checkpoint.encode(texts.negative_prompt, clip_skip, negative=True),
        )
    return Ready(checkpoint, conditioning, job.cfg_scale(index))


@torch.no_grad()
def render(
    job: Job,
    passes: Mapping[int, Ready],
    checkpoints: Checkpoints,
    seed: int,
    watcher: Watcher,
    *,
    record: Callable[[PassRecord], None],
    again: bool = False,
) -> Image.Image:
    """Sample one picture. The seed and the job decide every bit of it (on one machine's CPU).

    While a pass is sampled, what the next one needs is read.

    Args:
        passes: by pass index, for every segment of the job.
        record: is called with every pass that is done, so that they are known if a later one fails.
        again: whether another picture of the job will follow.

    Raises:
        InputError: where a checkpoint's file cannot be read.
    """
    sigmas = job.sampling.sigmas
    device = checkpoints.place.device
    # one CPU generator for the first latent and all later noise, as the webui's: same seed, same noise, on any device
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, LATENT_CHANNELS, job.height // PIXELS_PER_LATENT, job.width // PIXELS_PER_LATENT)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    top = sigmas[0] if job.sampling.sampler.scaled_noise else (1 + sigmas[0] ** 2) ** 0.5
    latent = noise() * top
    step = stepper(job.sampling.sampler.method, sigmas, noise)
    run = PlanRun(job.parts, job.sampling.steps)
    here = run.current
    watcher.pass_begins(here)
    with ExitStack() as unet:
        load = unet.enter_context(checkpoints.using(passes[here.pass_index].checkpoint, Component.UNET))
        checkpoints.expect(*_next(job, passes, here, again=again))
        started = time.perf_counter()
        for index in range(len(sigmas) - 1):
            switch = run.before_evaluation(index)
            if switch is not None:
                record(_record(job, here, load, time.perf_counter() - started))
                watcher.pass_begins(switch)
                before, after = (passes[part.pass_index].checkpoint for part in (here, switch))
                load = Load(Source.RESIDENT, 0.0)
                if after is not before:
                    unet.close()  # first, so that the one that leaves makes room
                    load = unet.enter_context(checkpoints.using(after, Component.UNET))
                here, started = switch, time.perf_counter()
                checkpoints.expect(*_next(job, passes, here, again=again))
            denoised = _denoise(job, passes[here.pass_index], latent, sigmas[index])
            latent = step(latent, denoised, index)
            watcher.step_done(index, latent)
    if not latent.isfinite().all():
        raise FloatingPointError("the picture became not-a-number while sampling")
    latent = latent / (1 + sigmas[-1] ** 2) ** 0.5 if not job.sampling.sampler.scaled_noise else latent
    last = passes[run.last.pass_index].checkpoint
    with checkpoints.using(last, Component.VAE):
        picture = _to_image(last.decode(latent))
    record(_record(job, here, load, time.perf_counter() - started))
    return picture


def _next(
    job: Job, passes: Mapping[int, Ready], part: Segment, *, again: bool
) -> Iterator[tuple[Checkpoint, Component]]:
    """What is needed once this pass is over."""
    later = job.parts[job.parts.index(part) + 1 :]
    if later:
        yield passes[later[0].pass_index].checkpoint, Component.UNET
        return
    yield passes[part.pass_index].checkpoint, Component.VAE
    if again:
        yield passes[job.parts[0].pass_index].checkpoint, Component.UNET


def _denoise(job: Job, ready: Ready, latent: Tensor, sigma: float) -> Tensor:
    """The picture that the pass's UNet, guided, sees in the latent."""
    scaled = latent / (sigma**2 + 1) ** 0.5
    answer = _guided(job, ready, scaled, timestep_at(sigma))
    if ready.checkpoint.v_prediction:
        return latent / (sigma**2 + 1) - answer * (sigma / (sigma**2 + 1) ** 0.5)
    return latent - sigma * answer


def _guided(job: Job, ready: Ready, scaled: Tensor, timestep: float) -> Tensor:
    positive, negative = ready.conditioning.positive, ready.conditioning.negative
    if ready.cfg_scale == 1:
        return _unet(job, ready.checkpoint, scaled, timestep, positive)
    if positive.context.shape == negative.context.shape:
        both = _unet(job, ready.checkpoint, torch.cat([scaled] * 2), timestep, positive, negative)
        toward, away = both.chunk(2)
    else:  # texts of different length do not fit into one batch
        toward = _unet(job, ready.checkpoint, scaled, timestep, positive)
        away = _unet(job, ready.checkpoint, scaled, timestep, negative)
    return away + (toward - away) * ready.cfg_scale


def _unet(job: Job, checkpoint: Checkpoint, scaled: Tensor, timestep: float, *texts: Encoded) -> Tensor:
    dtype, device = checkpoint.place.dtype, checkpoint.place.device
    extra: dict[str, Any] = {}
    pooled = [text.pooled for text in texts if text.pooled is not None]
    if pooled:  # SDXL is told sizes too: of the original, where it was cropped, of the target
        sizes = torch.tensor([[job.height, job.width, 0, 0, job.height, job.width]] * len(texts))
        extra["added_cond_kwargs"] = {"text_embeds": torch.cat(pooled), "time_ids": sizes.to(device, dtype)}
    answer = checkpoint.unet(
        scaled.to(dtype),
        torch.tensor(timestep, device=device),
        encoder_hidden_states=torch.cat([text.context for text in texts]),
        **extra,
    )
    return answer.sample.float()


def _record(job: Job, part: Segment, load: Load, seconds: float) -> PassRecord:
    file = job.checkpoints[part.pass_index]
    kind = job.setting(part.pass_index).kind
    return PassRecord(
        name=job.plan.label(part.pass_index),
        checkpoint=file.title,
        sha256=file.sha256,
        kind="first" if part.pass_index == job.plan.running[0][0] else (kind.value if kind else "switch"),
        first_step=part.first_step,
        end_step=part.end_step,
        sigma_in=part.sigma_in,
        sigma_out=part.sigma_out,
        seconds=seconds,
        load=load,
        unet_evaluations=part.end_step - part.first_step,
    )


def _to_image(picture: Tensor) -> Image.Image:
    """Cut to whole levels, not rounded: as the webui does it."""
    pixels = (picture[0].permute(1, 2, 0).cpu() * 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())
