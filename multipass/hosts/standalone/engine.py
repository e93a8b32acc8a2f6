"""The sampling loop, which is ours here: the core's ``PlanRun`` is asked before every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import torch
from PIL import Image
from torch import Tensor

from multipass.hosts.standalone.job import Job
from multipass.hosts.standalone.layout import PIXELS_PER_LATENT
from multipass.hosts.standalone.models import Checkpoint
from multipass.hosts.standalone.sampling import stepper
from multipass.hosts.standalone.schedules import timestep_at
from multipass.hosts.standalone.text import Encoded
from multipass.manifest import Load, PassRecord
from multipass.run import PlanRun
from multipass.schedule import Segment

LATENT_CHANNELS = 4


class Conditioning(msgspec.Struct, frozen=True):
    """What a pass's texts are to its UNet."""

    positive: Encoded
    negative: Encoded


class Ready(msgspec.Struct, frozen=True):
    """A pass that only needs to be sampled: weights in place, texts encoded.

    ``load`` is what it took to have the checkpoint there for the first picture.
    """

    checkpoint: Checkpoint
    conditioning: Conditioning
    cfg_scale: float
    load: Load


class Watcher(Protocol):
    """Is told how a picture comes along."""

    def pass_begins(self, part: Segment, /) -> None: ...

    def step_done(self, index: int, latent: Tensor, /) -> None: ...


def make_ready(job: Job, part: Segment, checkpoint: Checkpoint, load: Load) -> Ready:
    """Encode a pass's texts with its own checkpoint's text encoder."""
    index = part.pass_index
    texts = job.texts[index]
    clip_skip = job.setting(index).clip_skip or 1
    return Ready(
        checkpoint,
        Conditioning(
            checkpoint.encode(texts.prompt, clip_skip, negative=False),
            checkpoint.encode(texts.negative_prompt, clip_skip, negative=True),
        ),
        job.cfg_scale(index),
        load,
    )


@torch.no_grad()
def render(
    job: Job, passes: Mapping[int, Ready], seed: int, watcher: Watcher, record: Callable[[PassRecord], None]
) -> Image.Image:
    """Sample one picture. The seed and the job decide every bit of it (on one machine's CPU).

    Args:
        passes: by pass index, for every segment of the job.
        record: is called with every pass that is done, so that they are known if a later one fails.
    """
    sigmas = job.sampling.sigmas
    device = passes[job.parts[0].pass_index].checkpoint.place.device
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
    started = time.perf_counter()
    watcher.pass_begins(here)
    for index in range(len(sigmas) - 1):
        switch = run.before_evaluation(index)
        if switch is not None:
            record(_record(job, here, passes, time.perf_counter() - started))
            here, started = switch, time.perf_counter()
            watcher.pass_begins(here)
        denoised = _denoise(job, passes[here.pass_index], latent, sigmas[index])
        latent = step(latent, denoised, index)
        watcher.step_done(index, latent)
    if not latent.isfinite().all():
        raise FloatingPointError("the picture became not-a-number while sampling")
    latent = latent / (1 + sigmas[-1] ** 2) ** 0.5 if not job.sampling.sampler.scaled_noise else latent
    picture = _to_image(passes[run.last.pass_index].checkpoint.decode(latent))
    record(_record(job, here, passes, time.perf_counter() - started))
    return picture


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


def _record(job: Job, part: Segment, passes: Mapping[int, Ready], seconds: float) -> PassRecord:
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
        load=passes[part.pass_index].load,
        unet_evaluations=part.end_step - part.first_step,
    )


def _to_image(picture: Tensor) -> Image.Image:
    """Cut to whole levels, not rounded: as the webui does it."""
    pixels = (picture[0].permute(1, 2, 0).cpu() * 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())
