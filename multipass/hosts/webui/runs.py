"""The record of a request: its run's folder, the picture of every pass, and the manifest, however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from modules import devices, errors, processing, shared
from PIL import Image, PngImagePlugin
from torch import Tensor

from multipass import folders
from multipass.hosts.webui import checkpoints, compat, hooks, sampling, settings
from multipass.manifest import ImageRecord, Load, Manifest, PassRecord, Status, Through, write
from multipass.plan import Plan, Request
from multipass.schedule import SamplingSteps, Segment

_SAID = ("steps", "width", "height", "sampler_name", "scheduler", "cfg_scale")  # Forge Classic has no scheduler
PASS_KEY = "Multipass pass"
RUN_KEY = "Multipass run"
_PNG_KEY = "parameters"  # where the webui looks for the text
_COMPRESSION = 1  # of 9: a fifth larger, and three times as fast


class Passing(NamedTuple):
    """A pass that begins. ``part`` is ``None`` where its steps are the host's own, as those of hires fix, and where it
    has none; ``through`` is of the pass that begins a refined trajectory."""

    name: str
    kind: str
    checkpoint: Any  # CheckpointInfo
    load: Load
    part: Segment | None = None
    through: Through | None = None


class _Open(NamedTuple):
    passing: Passing
    began: float
    made_before: int


class _Watch:
    """Of a sampling while it runs: how far it is, and the picture that its denoiser saw last."""

    def __init__(self, denoiser: Any, steps: SamplingSteps | None, *, keeps: bool) -> None:
        self._denoiser, self._steps, self._keeps = denoiser, steps, keeps
        self._levels: list[Any] = []  # of the evaluations that were begun
        self.made = 0
        self.seen: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooked = (
            self._denoiser.register_forward_pre_hook(self._begins),
            self._denoiser.register_forward_hook(self._ends),
        )
        try:
            yield
        finally:
            for hook in hooked:
                hook.remove()

    def _begins(self, _: Any, given: tuple[Any, ...]) -> None:
        self._levels.append(given[1])

    def _ends(self, denoiser: Any, given: tuple[Any, ...], answer: Any) -> None:
        self.made += 1
        if self._keeps:  # a copy: some samplers go on in the same tensor
            self.seen = compat.predicted(denoiser, given[0], given[1], answer).clone()

    @property
    def stopped(self) -> bool:
        """Whether an evaluation was begun and not made."""
        return len(self._levels) > self.made

    def spanned(self, part: Segment | None) -> Segment:
        """The steps that were run of a part, which ends now."""
        if part is None:
            planned = self._denoiser.steps
            part = Segment(-1, 0, planned, self._sigma(0), 0.0) if self._levels else Segment(-1, 0, 0, 0.0, 0.0)
        if not self.stopped:
            return part
        if self._steps is None:
            reached, sigma = (shared.state.sampling_step + 1 if self.made else 0), self._sigma(-1)
        else:
            reached = sum(self._steps.first_evaluation(step) < self.made for step in range(self._steps.count))
            sigma = self._steps.sigmas[reached]
        return msgspec.structs.replace(part, end_step=reached, sigma_out=sigma)

    def _sigma(self, evaluation: int) -> float:
        return sampling.as_sigma(self._denoiser.sampler, float(self._levels[evaluation].max()))


class _Batch:
    """The pictures that are made at once."""

    def __init__(self, p: Any) -> None:
        self.number, self.seeds = p.iteration, tuple(int(seed) for seed in p.seeds)
        self.first = p.iteration * p.batch_size
        self.passes: list[PassRecord] = []
        self.kept: set[tuple[int, int]] = set()  # pass and picture, counted from 0
        self.finished = False

    def picture(self, index: int, place: int) -> str:
        """Relative to the run's folder."""
        return f"pass_{index}/{self.first + place:05}-{self.seeds[place]}.png"

    def records(self) -> Iterator[ImageRecord]:
        for place, seed in enumerate(self.seeds):
            own = (
                msgspec.structs.replace(
                    record, picture=self.picture(index, place) if (index, place) in self.kept else None
                )
                for index, record in enumerate(self.passes)
            )
            yield ImageRecord(seed, tuple(own))


class Run:
    """What is kept of a request, from when its options are in place.

    ``passes.json`` is rewritten, whole, after every pass; until the run ends it says ``interrupted``, so that it is
    true however the process ends. A request that saves no images has its run in a temporary folder, of which the
    newest are kept.

    Args:
        plan: as run, but for its request.
        requested: the request's fields, as ``said_by`` names them: while a pass holds, the host reads the pass's there.

    Attributes:
        plan: the same; may be set again.

    Raises:
        RuntimeError: where the folder cannot be written.
    """

    def __init__(self, p: Any, plan: Plan, requested: Mapping[str, Any]) -> None:
        self._p, self.plan, self._requested = p, plan, requested
        self._batches: list[_Batch] = []
        self._open: _Open | None = None
        self._watch: _Watch | None = None
        self._stops: list[str] = []
        saves = shared.opts.samples_save and not p.do_not_save_samples
        root = settings.saved_folder() if saves else settings.temporary_folder()
        try:
            self.folder = folders.begin(root)
            self._write(Status.INTERRUPTED)
        except OSError as error:
            raise RuntimeError(f"the run cannot be written into {root}: {error.strerror or error}") from error
        if not saves:
            folders.prune(root, settings.temporary_runs())

    # --- while it is sampled -----------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, denoiser: Any, steps: SamplingSteps | None = None) -> Iterator[None]:
        """Around one run of a sampler, which is one pass or several. The pass that is open at its end, ends with it.

        Args:
            steps: what the passes' parts were laid over; ``None`` where they have none.
        """
        self._watch = _Watch(denoiser, steps, keeps=self.plan.save_passes and steps is not None)
        with self._watch.watching():
            try:
                yield
            finally:
                self._end_pass()

    def stopped_before(self, name: str) -> None:
        """A pass is left out, because a person stopped the picture after the one before it."""
        within = self._watch is not None and self._watch.stopped  # which is told already
        if not within and (shared.state.skipped or shared.state.interrupted):
            self._stops.append(f"{_stop()} before {name}")

    def begin_pass(self, passing: Passing) -> None:
        """From now on ``passing`` holds."""
        assert self._watch is not None
        if not self._batches or self._batches[-1].number != self._p.iteration:
            self._batches.append(_Batch(self._p))
        self._open = _Open(passing, time.perf_counter(), self._watch.made)

    def switch(self) -> None:
        """The pass that holds ends at a step boundary: its picture is what its last evaluation saw in the noise."""
        self._end_pass()
        assert self._watch is not None
        if self._watch.seen is not None:
            self.keep_latents(self._watch.seen)

    def enlarged(self, passing: Passing) -> None:
        """A pass that samples nothing is over."""
        self._batches[-1].passes.append(_told(passing, Segment(-1, 0, 0, 0.0, 0.0), 0.0, 0))
        self._write(Status.INTERRUPTED)

    def keep_latents(self, latents: Tensor) -> None:
        """The pictures of the pass that ended last, decoded by the VAE that is in place."""
        if self.plan.save_passes:
            decoded = processing.decode_latent_batch(shared.sd_model, latents, target_device=devices.cpu)
            self.keep_decoded(torch.stack(tuple(decoded)))

    def keep_decoded(self, decoded: Tensor) -> None:
        """The same as the VAE gives them: N, 3, height, width from -1 to 1."""
        self.keep(torch.clamp((decoded.float() + 1.0) / 2.0, min=0.0, max=1.0))

    def keep(self, pictures: Tensor) -> None:
        """The same: N, 3, height, width from 0 to 1."""
        if not self.plan.save_passes or not self._batches:
            return
        batch = self._batches[-1]
        index = len(batch.passes) - 1
        for place, picture in enumerate(pictures[: len(batch.seeds)]):
            if not picture.isfinite().all():
                name = batch.passes[index].name
                self._p.comment(f"Multipass: the VAE gave no numbers for {name}, so there is no picture of it")
                continue
            self._save(picture, self.folder / batch.picture(index, place), batch.passes[index].name, place)
            batch.kept.add((index, place))
        self._write(Status.INTERRUPTED)

    def finished(self, pictures: Tensor) -> None:
        """What the last pass of the batch gave, as the host has decoded it, before anybody else works on it."""
        if self._batches:
            self._batches[-1].finished = True
            self.keep(pictures)

    # --- the end -----------------------------------------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """The request has ended; with ``error``, because of that. A manifest that cannot be written is reported, and
        does not hide what came before."""
        made = sum(len(batch.seeds) for batch in self._batches if batch.finished)
        p, self._watch = self._p, None
        wanted = min(len(p.all_prompts), p.n_iter * p.batch_size)  # which the host lowers where there are fewer images
        stops = [*self._stops, *([f"{made} of {wanted} pictures"] if made < wanted else [])]
        try:
            if error is not None:
                self._write(Status.FAILED, f"{type(error).__name__}: {error}")
                print(f"Multipass: what was rendered so far is in {self.folder}")  # noqa: T201 - the host's log
            elif stops:
                self._write(Status.INTERRUPTED, "; ".join(stops))
            else:
                self._write(Status.DONE)
        except OSError:
            errors.report(f"Multipass could not write into {self.folder}", exc_info=True)

    def tell(self, processed: Any) -> None:
        """The run's name in what the host answers, not in the pictures' texts; and, if a person wants that, the
        pictures of the passes before the last behind the finished ones."""
        told = {**processed.extra_generation_params, RUN_KEY: self.folder.name}
        processed.extra_generation_params = told
        picks = self._p.script_args
        if not settings.shows_passes() or (picks and picks[0]):  # a script assembles what it is given
            return
        # the host's masks have no texts
        processed.infotexts += [""] * (len(processed.images) - len(processed.infotexts))
        for path in self._shown():
            with Image.open(path) as image:
                image.load()
                processed.images.append(image)
                processed.infotexts.append(image.info.get(_PNG_KEY, ""))

    def _shown(self) -> Iterator[Path]:
        for batch in self._batches:
            for place in range(len(batch.seeds)):
                for index in range(len(batch.passes) - 1):
                    if (index, place) in batch.kept:
                        yield self.folder / batch.picture(index, place)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _end_pass(self) -> None:
        if self._open is None:
            return
        (passing, began, made_before), self._open = self._open, None
        assert self._watch is not None
        ran = self._watch.spanned(passing.part)
        seconds = time.perf_counter() - began
        self._batches[-1].passes.append(_told(passing, ran, seconds, self._watch.made - made_before))
        if self._watch.stopped and (shared.state.skipped or shared.state.interrupted):
            self._stops.append(f"{_stop()} in {passing.name} after step {ran.end_step}")
        self._write(Status.INTERRUPTED)

    def _save(self, picture: Tensor, path: Path, name: str, place: int) -> None:
        pixels = (255.0 * np.moveaxis(picture.cpu().numpy(), 0, 2)).astype(np.uint8)  # cut, as the host does
        text = PngImagePlugin.PngInfo()
        if shared.opts.enable_pnginfo:
            text.add_text(_PNG_KEY, self._infotext(name, place))
        path.parent.mkdir(exist_ok=True)
        with folders.whole(path) as aside:
            Image.fromarray(pixels).save(aside, "PNG", pnginfo=text, compress_level=_COMPRESSION)

    def _infotext(self, name: str, place: int) -> str:
        """The picture's, with the pass's name in it; not last, where our plan is, which some readers trip over."""
        p = self._p
        params = {PASS_KEY: name, **p.extra_generation_params}
        with hooks.replaced(p, **{**self._requested, "extra_generation_params": params}):
            return processing.create_infotext(
                p, p.all_prompts, p.all_seeds, p.all_subseeds, iteration=p.iteration, position_in_batch=place
            )

    def _write(self, status: Status, error: str | None = None) -> None:
        plan = msgspec.structs.replace(self.plan, request=self._request())
        images = tuple(record for batch in self._batches for record in batch.records())
        write(Manifest(self.folder.name, status, plan, images, error), self.folder)

    def _request(self) -> Request:
        """What the request would say for the first picture; what a plan cannot say (no CFG scale below 1) is left
        out."""
        p = self._p
        texts = {"prompt": p.all_prompts[0], "negative_prompt": p.all_negative_prompts[0]}
        fields = {name: self._requested[name] for name in _SAID if name in self._requested}
        said = {**texts, "seed": int(p.all_seeds[0]), **fields}
        return msgspec.convert({name: value for name, value in said.items() if _can_be_said(name, value)}, Request)


def said_by(p: Any) -> dict[str, Any]:
    """What the picture's text and the manifest tell of a request, and passes have of their own."""
    return {name: getattr(p, name) for name in (*_SAID, "token_merging_ratio") if hasattr(p, name)}


def _told(passing: Passing, ran: Segment, seconds: float, evaluations: int) -> PassRecord:
    return PassRecord(
        name=passing.name,
        checkpoint=checkpoints.title(passing.checkpoint),
        sha256=passing.checkpoint.sha256 or "",  # the host may be told not to hash
        kind=passing.kind,
        first_step=ran.first_step,
        end_step=ran.end_step,
        sigma_in=ran.sigma_in,
        sigma_out=ran.sigma_out,
        seconds=seconds,
        load=passing.load,
        unet_evaluations=evaluations,
        through=passing.through,
    )


def _can_be_said(name: str, value: Any) -> bool:
    try:
        msgspec.convert({name: value}, Request)
    except msgspec.ValidationError:
        return False
    return True


def _stop() -> str:
    return "skipped" if shared.state.skipped else "interrupted"
