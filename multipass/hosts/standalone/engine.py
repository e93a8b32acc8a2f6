"""The sampling loop, which is ours here: the core's ``PlanRun`` is asked before every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from multipass import detection, masks
from multipass.cache.memo import Memo
from multipass.detection import Found
from multipass.hosts.standalone import inpainting
from multipass.hosts.standalone.inpainting import Repaint
from multipass.hosts.standalone.job import Job, Size
from multipass.hosts.standalone.layout import PIXELS_PER_LATENT, Stage
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Checkpoint, Component
from multipass.hosts.standalone.remembering import Asking
from multipass.hosts.standalone.sampling import stepper
from multipass.hosts.standalone.schedules import Sampling, timestep_at
from multipass.hosts.standalone.text import Encoded
from multipass.hosts.standalone.upscalers import Upscaler
from multipass.manifest import Load, PassRecord, Source, Through
from multipass.plan import OnMissing
from multipass.problems import PlanError, Problem
from multipass.run import PlanRun
from multipass.schedule import Segment
from multipass.subjects import Region

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
    size: Size


class Watcher(Protocol):
    """Is told how a picture comes along."""

    def pass_begins(self, part: Segment, subject: str = "", /) -> None:
        """Or begins again, with the next of its subjects (``1 of 2``)."""
        ...

    def doing(self, what: str, /) -> None:
        """What the pass does now that is no step: ``loading ink``, ``upscaling``, ``decoding``."""
        ...

    def say(self, text: str, /) -> None:
        """Something to be known of the picture."""
        ...

    def step_done(self, index: int, latent: Tensor, /) -> None: ...


class Keep(Protocol):
    """Takes a pass and its picture, or the mask of what it repainted, in place of what it took before; says where it
    was left."""

    def __call__(self, part: Segment, image: Image.Image, /, *, is_mask: bool = False) -> str: ...


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
    return Ready(checkpoint, conditioning, job.cfg_scale(index), job.sizes[index])


@torch.no_grad()
def render(
    job: Job,
    passes: Mapping[int, Ready],
    checkpoints: Checkpoints,
    seed: int,
    watcher: Watcher,
    *,
    record: Callable[[PassRecord], None],
    keep: Keep | None = None,
    again: bool = False,
    memo: Memo | None = None,
) -> Image.Image:
    """Make one picture. The seed and the job decide every bit of it (on one machine's CPU).

    While a pass is sampled, what is needed after it is read.

    Args:
        passes: by pass index, for every part of the job.
        record: is called with every pass that is done, so that they are known if a later one fails.
        keep: is given every pass's picture, of one that a switch ends what it foresaw; ``None``: they are not made.
        again: whether another picture of the job will follow.
        memo: of what UNets have answered, for this picture and others; ``None``: nothing is remembered.

    Raises:
        InputError: where a checkpoint's file cannot be read.
        PlanError: where a subject that has to be there is not.
    """
    picture = _Picture(
        job=job,
        passes=passes,
        checkpoints=checkpoints,
        seed=seed,
        watcher=watcher,
        record=record,
        keep=keep,
        again=again,
        memo=memo,
    )
    try:
        return picture.made()
    finally:
        picture.close()


class _Picture:
    """One picture in the making."""

    def __init__(
        self,
        *,
        job: Job,
        passes: Mapping[int, Ready],
        checkpoints: Checkpoints,
        seed: int,
        watcher: Watcher,
        record: Callable[[PassRecord], None],
        keep: Keep | None,
        again: bool,
        memo: Memo | None,
    ) -> None:
        self._job, self._passes, self._checkpoints = job, passes, checkpoints
        self._seed, self._watcher, self._record, self._keep = seed, watcher, record, keep
        self._needs = tuple(self._needed(again=again))
        self._unet = ExitStack()
        self._in_place: Checkpoint | None = None
        self._started, self._load = 0.0, Load(Source.RESIDENT, 0.0)
        self._image: Image.Image | None = None  # the last that was decoded
        self._memo, self._ask = memo, Asking(memo)
        self._spared = 0  # evaluations of the pass
        self._repainted: dict[Segment, PassRecord] = {}  # what the subjects before are on record with
        self._repaint: Repaint | None = None  # of the subject in the making
        self._found: dict[str, list[Found]] = {}  # by target, while nothing but subjects is redrawn

    def close(self) -> None:
        """Let go of the UNet in place."""
        self._in_place = None
        self._unet.close()
        if self._memo is not None:
            self._memo.rest()

    def made(self) -> Image.Image:
        """Run all stages."""
        latent: Tensor | None = None
        for number, stage in enumerate(self._job.stages):
            self._begin(stage.parts[0])
            if stage.region is not None:
                self._repaint_all(stage, stage.region)
                continue
            self._found.clear()
            if number:
                latent = self._carry(stage.parts[0], latent)
            latent = self._sample(stage, latent)
            self._end(stage.parts[-1], latent)
        assert self._image is not None
        return self._image

    # --- the stages ---------------------------------------------------------------------------------------------------

    def _carry(self, part: Segment, latent: Tensor | None) -> Tensor:
        """What the trajectory before ended with, as this one begins with it: enlarged, and still without noise."""
        carried = self._job.carried[part.pass_index]
        upscaler = carried.upscaler
        if carried.through_pixels:
            latent = self._encoded(part, self._carry_picture(part))
        assert latent is not None, "else the picture was decoded"
        if upscaler is not None and upscaler.latent_mode is not None:
            sides = _latent_sides(carried.size)
            self._watcher.doing("upscaling")
            latent = interpolate(latent, sides, mode=upscaler.latent_mode, antialias=upscaler.antialias)
        return latent

    def _carry_picture(self, part: Segment) -> Image.Image:
        """The picture of the trajectory before, as this one begins with it: enlarged, if that is done to pixels."""
        assert self._image is not None
        carried = self._job.carried[part.pass_index]
        if carried.upscaler is None or carried.upscaler.latent_mode is not None:
            return self._image
        self._watcher.doing("upscaling")
        return _resized(self._image, carried.size, carried.upscaler)

    def _encoded(self, part: Segment, picture: Image.Image) -> Tensor:
        checkpoint = self._checkpoint(part)
        self._watcher.doing("encoding")
        with self._checkpoints.using(checkpoint, Component.VAE):
            return checkpoint.encode_picture(_to_tensor(picture).to(self._checkpoints.place.device))

    def _repaint_all(self, stage: Stage, region: Region) -> None:
        """The stage's trajectory for each of its subjects in the picture, one after the other."""
        head = stage.parts[0]
        if self._job.carried[head.pass_index].upscaler is not None:
            self._found.clear()
        self._image = self._carry_picture(head)
        wanted: list[Image.Image] = []
        if stage.sampling is not None:
            self._watcher.doing(f"looking for {region.target}" if region.target is not None else "")
            wanted = masks.of_picture(self._image, region, self._find)
            if not wanted:
                self._miss(stage, region)
        painted: list[Image.Image] = []
        try:
            for number, mask in enumerate(wanted):
                size = self._job.sizes[head.pass_index]
                self._repaint = repaint = inpainting.prepared(self._image, mask, region, size)
                self._begin(head, f"{number + 1} of {len(wanted)}")
                latent = self._encoded(head, repaint.part)
                self._end(stage.parts[-1], self._sample(stage, latent, repaint.held.to(latent.device)))
                painted.append(repaint.mask)
        finally:
            self._repaint = None
            done, self._repainted = self._repainted, {}
        union = self._keep(head, masks.united(painted), is_mask=True) if painted and self._keep is not None else None
        for part in stage.parts:
            told = done.get(part) or self._left_alone(part)
            self._record(msgspec.structs.replace(told, subjects=len(painted), mask=union))

    def _find(self, picture: Image.Image, target: str) -> list[Found]:
        """As it was found first: places are counted in the picture as it was, whatever its subjects become."""
        if target not in self._found:
            self._found[target] = detection.find(picture, target)
        return self._found[target]

    def _miss(self, stage: Stage, region: Region) -> None:
        """Nothing was found of what is to be repainted."""
        missing = f"no {region.target} was found in the picture of seed {self._seed}"
        if isinstance(region.which, int):
            missing = f"no {region.target} was found in place {region.which} of the picture of seed {self._seed}"
        if region.on_missing is OnMissing.ERROR:
            raise PlanError(Problem(f"passes[{stage.head}].target", missing))
        self._watcher.say(f"pass {self._job.told(stage.parts[0])}: {missing}, which goes on unchanged")

    def _left_alone(self, part: Segment) -> PassRecord:
        """What is told of a pass that did nothing to the picture but, perhaps, to enlarge it."""
        assert self._image is not None
        picture = self._keep(part, self._image) if self._keep is not None else None
        nothing = Segment(part.pass_index, 0, 0, 0.0, 0.0)
        return _record(self._job, nothing, Load(Source.RESIDENT, 0.0), 0.0, picture)

    def _sample(self, stage: Stage, latent: Tensor | None, held: Tensor | None = None) -> Tensor:
        """The stage's trajectory, from noise or from a latent that is made noisy, to its end.

        Args:
            held: 1 where the latent stays what it was, 0 elsewhere: at every step, as the webui holds it.
        """
        sampling = stage.sampling
        if sampling is None:
            assert latent is not None, "the first stage is sampled"
            return latent
        noise = self._noise(stage)
        scaled, original = sampling.sampler.scaled_noise, latent
        latent = _begun(sampling, latent, noise())
        step = stepper(sampling.sampler.method, sampling.sigmas, noise)
        run = PlanRun(stage.parts, sampling.steps)
        here, denoised = run.current, latent
        ready = self._put_in_place(here)
        for index, sigma in enumerate(sampling.sigmas[:-1]):
            switch = run.before_evaluation(index)
            if switch is not None:
                # what it foresaw last, never the noisy latent
                self._end(here, denoised)
                self._begin(switch)
                here, ready = switch, self._put_in_place(switch)
            if not scaled:
                latent = _held(latent, original, held, (sigma**2 + 1) ** 0.5)
            denoised = _denoise(ready, latent, sigma, self._ask)
            if scaled:
                denoised = _held(denoised, original, held)
            self._spared += self._ask.was_spared()
            latent = step(latent, denoised, index)
            self._watcher.step_done(index, latent)
        finished = latent if scaled else latent / (1 + sampling.sigmas[-1] ** 2) ** 0.5
        return _held(finished, original, held)

    def _noise(self, stage: Stage) -> Callable[[], Tensor]:
        # one CPU generator for the first latent and all later noise, as the webui's: same seed, same noise, on any
        # device. And one for each trajectory, which so begins with the seed's noise: as the webui's hires fix does
        generator = torch.Generator("cpu").manual_seed(self._seed)
        shape = (1, LATENT_CHANNELS, *_latent_sides(self._job.sizes[stage.parts[0].pass_index]))
        return lambda: torch.randn(shape, generator=generator).to(self._checkpoints.place.device)

    # --- the passes ---------------------------------------------------------------------------------------------------

    def _begin(self, part: Segment, subject: str = "") -> None:
        self._watcher.pass_begins(part, subject)
        self._started, self._load = time.perf_counter(), Load(Source.RESIDENT, 0.0)
        self._spared = 0

    def _put_in_place(self, part: Segment) -> Ready:
        ready = self._passes[part.pass_index]
        if ready.checkpoint is not self._in_place:
            self.close()  # first, so that the one that leaves makes room
            self._watcher.doing(f"loading {ready.checkpoint.file.name}")
            self._load = self._unet.enter_context(self._checkpoints.using(ready.checkpoint, Component.UNET))
            self._in_place = ready.checkpoint
        self._checkpoints.expect(*self._needed_after(part))
        self._started = time.perf_counter()
        return ready

    def _end(self, part: Segment, latent: Tensor) -> None:
        """Have the pass's picture where it is wanted, and the pass recorded."""
        if not latent.isfinite().all():
            raise FloatingPointError("the picture became not-a-number while sampling")
        seconds = time.perf_counter() - self._started
        picture: str | None = None
        if self._is_decoded(part):
            self.close()
            self._watcher.doing("decoding")
            checkpoint = self._checkpoint(part)
            with self._checkpoints.using(checkpoint, Component.VAE):
                image = _to_image(checkpoint.decode(latent))
            self._image = image if self._repaint is None else self._repaint.pasted(image)
            picture = self._keep(part, self._image) if self._keep is not None else None
        record = _record(self._job, part, self._load, seconds, picture)
        made = record.unet_evaluations - self._spared
        record = msgspec.structs.replace(record, unet_evaluations=made, memo_hits=self._spared)
        if self._repaint is None:
            self._record(record)
        else:
            before = self._repainted.get(part)
            self._repainted[part] = record if before is None else before.and_another(record)

    # --- what is needed when ------------------------------------------------------------------------------------------

    def _checkpoint(self, part: Segment) -> Checkpoint:
        return self._passes[part.pass_index].checkpoint

    def _is_decoded(self, part: Segment) -> bool:
        """Whether the pass's picture is kept, the final one, or what the next trajectory begins with."""
        if self._keep is not None or part == self._job.parts[-1]:
            return True
        following = dict(pairwise(self._job.parts))
        return self._job.through_pixels(following[part])

    def _needed(self, *, again: bool) -> Iterator[tuple[Segment, Checkpoint, Component]]:
        """Everything that is put in place, in that order."""
        for stage in self._job.stages:
            for part in stage.parts:
                checkpoint = self._checkpoint(part)
                if self._job.through_pixels(part):
                    yield part, checkpoint, Component.VAE
                if stage.sampling is not None:
                    yield part, checkpoint, Component.UNET
                if self._is_decoded(part):
                    yield part, checkpoint, Component.VAE
        if again:
            first = self._job.parts[0]
            yield first, self._checkpoint(first), Component.UNET

    def _needed_after(self, part: Segment) -> Iterable[tuple[Checkpoint, Component]]:
        """From the pass's UNet, which is in place, to the next UNet that is needed."""
        later = iter(self._needs)
        while next(later)[::2] != (part, Component.UNET):
            pass
        # each once: what decodes may be what encodes, too
        needed: dict[tuple[Checkpoint, Component], None] = {}
        for _, checkpoint, component in later:
            needed[checkpoint, component] = None
            if component is Component.UNET:
                break
        return needed


def _begun(sampling: Sampling, latent: Tensor | None, noise: Tensor) -> Tensor:
    """The first latent, as the steps take it: noise, or a picture's with noise."""
    top, scaled = sampling.sigmas[0], sampling.sampler.scaled_noise
    if latent is None:
        return noise * (top if scaled else (1 + top**2) ** 0.5)
    return (latent + noise * sampling.noised) * ((1 + top**2) / (1 + sampling.noised**2)) ** 0.5


def _denoise(ready: Ready, latent: Tensor, sigma: float, ask: Asking) -> Tensor:
    """The picture that the pass's UNet, guided, sees in the latent."""
    scaled = latent / (sigma**2 + 1) ** 0.5
    answer = _guided(ready, scaled, timestep_at(sigma), ask)
    if ready.checkpoint.v_prediction:
        return latent / (sigma**2 + 1) - answer * (sigma / (sigma**2 + 1) ** 0.5)
    return latent - sigma * answer


def _guided(ready: Ready, scaled: Tensor, timestep: float, ask: Asking) -> Tensor:
    positive, negative = ready.conditioning.positive, ready.conditioning.negative
    if ready.cfg_scale == 1:
        return _unet(ready, scaled, timestep, ask, positive)
    if positive.context.shape == negative.context.shape:
        both = _unet(ready, torch.cat([scaled] * 2), timestep, ask, positive, negative)
        toward, away = both.chunk(2)
    else:  # texts of different length do not fit into one batch
        toward = _unet(ready, scaled, timestep, ask, positive)
        away = _unet(ready, scaled, timestep, ask, negative)
    return away + (toward - away) * ready.cfg_scale


def _unet(ready: Ready, scaled: Tensor, timestep: float, ask: Asking, *texts: Encoded) -> Tensor:
    place, size = ready.checkpoint.place, ready.size
    extra: dict[str, Any] = {}
    pooled = [text.pooled for text in texts if text.pooled is not None]
    if pooled:  # SDXL is told sizes too: of the original, where it was cropped, of the target
        sizes = torch.tensor([[size.height, size.width, 0, 0, size.height, size.width]] * len(texts))
        extra["added_cond_kwargs"] = {"text_embeds": torch.cat(pooled), "time_ids": sizes.to(place.device, place.dtype)}
    return ask(
        ready.checkpoint,
        scaled.to(place.dtype),
        torch.tensor(timestep, device=place.device),
        encoder_hidden_states=torch.cat([text.context for text in texts]),
        **extra,
    )


def _held(latent: Tensor, original: Tensor | None, held: Tensor | None, scale: float = 1.0) -> Tensor:
    """The original, in its scale, where it is held."""
    if held is None:
        return latent
    assert original is not None, "a region is of a picture"
    return latent * (1 - held) + original * scale * held


def _record(job: Job, part: Segment, load: Load, seconds: float, picture: str | None) -> PassRecord:
    file = job.checkpoints[part.pass_index]
    kind = job.setting(part.pass_index).kind
    through: Through | None = None
    if part.pass_index in job.carried:
        through = Through.PIXELS if job.through_pixels(part) else Through.LATENT
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
        picture=picture,
        through=through,
    )


def _latent_sides(size: Size) -> tuple[int, int]:
    return size.height // PIXELS_PER_LATENT, size.width // PIXELS_PER_LATENT


def _resized(picture: Image.Image, size: Size, upscaler: Upscaler) -> Image.Image:
    # upscalers are for what becomes larger: what becomes smaller, the webui resamples whichever was chosen
    repeated = upscaler.nearest and size.width > picture.width
    resample = Image.Resampling.NEAREST if repeated else Image.Resampling.LANCZOS
    return picture.resize((size.width, size.height), resample)


def _to_tensor(picture: Image.Image) -> Tensor:
    """1 x 3 x height x width, from 0 to 1."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def _to_image(picture: Tensor) -> Image.Image:
    """Cut to whole levels, not rounded: as the webui does it."""
    pixels = (picture[0].permute(1, 2, 0).cpu() * 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())
