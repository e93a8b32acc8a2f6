"""The record of a request: its run's folder, the picture of every pass, and the manifest, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from modules import devices, errors, images, processing, shared
from PIL import Image, PngImagePlugin
from torch import Tensor

from multipass import drawing, folders
from multipass.hosts.webui import checkpoints, compat, hooks, pixels, refining, sampling, settings
from multipass.hosts.webui.heads import Size
from multipass.manifest import ImageRecord, Load, Manifest, PassRecord, Status, Through, write
from multipass.masks import united
from multipass.plan import Plan, Request
from multipass.schedule import SamplingSteps, Segment

_SAID = ("steps", "width", "height", "sampler_name", "scheduler", "cfg_scale")  # Forge Classic has no scheduler
PASS_KEY = "Multipass pass"
_TRIPTYCH_KEY = "Multipass triptych"
RUN_KEY = "Multipass run"
_PNG_KEY = "parameters"  # where the webui looks for the text
_NO_STEPS = Segment(-1, 0, 0, 0.0, 0.0)
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
    spared_before: int


class _Watch:
    """Of a sampling while it runs: how far it is, and the picture that its denoiser saw last."""

    def __init__(
        self, denoiser: Any, steps: SamplingSteps | None, was_spared: Callable[[], bool], *, keeps: bool
    ) -> None:
        self._denoiser, self._steps, self._keeps = denoiser, steps, keeps
        self._was_spared = was_spared
        self._levels: list[Any] = []  # of the evaluations that were begun
        self.made = self.spared = 0  # the latter among the former
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
        self.spared += self._was_spared()
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


class _Beside(NamedTuple):
    """What stands beside the plan's pictures in a triptych: each checkpoint's, N, 3, height, width from -1 to 1."""

    alone: tuple[Tensor, ...]
    labels: tuple[str, ...]


class _Batch:
    """The pictures that are made at once."""

    def __init__(self, p: Any) -> None:
        self.number, self.seeds = p.iteration, tuple(int(seed) for seed in p.seeds)
        self.first = p.iteration * p.batch_size
        self.passes: list[tuple[PassRecord, ...]] = []  # of each picture
        self.kept: set[tuple[int, int]] = set()  # pass and picture, counted from 0
        self.beside: _Beside | None = None
        self.triptychs: dict[int, str] = {}  # by picture
        self.finished = False

    def picture(self, index: int, place: int) -> str:
        """Relative to the run's folder."""
        return folders.of_pass(index, self._name(place))

    def triptych(self, place: int) -> str:
        """The same."""
        return folders.of_triptych(self._name(place))

    def _name(self, place: int) -> str:
        return folders.picture_name(self.first + place, self.seeds[place])

    def mask(self, index: int, place: int) -> str:
        """Likewise."""
        return folders.of_mask(index, self._name(place))

    def add(self, record: PassRecord) -> None:
        """A pass that did the same to all pictures."""
        self.passes.append((record,) * len(self.seeds))

    def records(self) -> Iterator[ImageRecord]:
        for place, seed in enumerate(self.seeds):
            own = (
                msgspec.structs.replace(
                    records[place], picture=self.picture(index, place) if (index, place) in self.kept else None
                )
                for index, records in enumerate(self.passes)
            )
            yield ImageRecord(seed, tuple(own), triptych=self.triptychs.get(place))


class Repaints:
    """What a subject pass and the switch passes after it did to the pictures of a batch, in one sampling for each
    subject of each.

    Args:
        passings: these passes, in order, each as it is on record where it does nothing.
        pictures: how many.
        paste: what the picture of the present repaint is, by the latent that its denoiser saw; is set for each.
        place: of the picture that is being repainted.
    """

    def __init__(self, passings: Sequence[Passing], pictures: int) -> None:
        self._passings, self._pictures = passings, pictures
        self._told: dict[tuple[int, int], PassRecord] = {}  # by pass, counted from 0 here, and picture
        self._counts = [0] * pictures
        self.shown: dict[tuple[int, int], Image.Image] = {}  # likewise
        self.masks: dict[int, Image.Image] = {}  # by picture
        self.place = 0
        self.paste: Callable[[Tensor], Image.Image] | None = None

    def add(self, passing: Passing, record: PassRecord) -> None:
        """A pass of the present repaint has ended."""
        key = self._number(passing), self.place
        before = self._told.get(key)
        self._told[key] = record if before is None else before.and_another(record)

    def show(self, passing: Passing, seen: Tensor) -> None:
        """What the denoiser saw when a switch ended a pass of the present repaint."""
        assert self.paste is not None
        self.shown[self._number(passing), self.place] = self.paste(seen)

    def done(self, mask: Image.Image) -> None:
        """The present repaint is over."""
        before = self.masks.get(self.place)
        self.masks[self.place] = mask if before is None else united([before, mask])
        self._counts[self.place] += 1

    def rows(self, mask_of: Callable[[int], str | None]) -> Iterator[tuple[PassRecord, ...]]:
        """Each pass's records, one for each picture. ``mask_of`` names a picture's mask."""
        for number, passing in enumerate(self._passings):
            nothing = _told(passing, _NO_STEPS, 0.0, 0, 0)
            yield tuple(
                msgspec.structs.replace(
                    self._told.get((number, place), nothing),
                    subjects=count,
                    mask=mask_of(place) if place in self.masks else None,
                )
                for place, count in enumerate(self._counts)
            )

    def _number(self, passing: Passing) -> int:
        of = [own.part.pass_index for own in self._passings if own.part is not None]
        return of.index(passing.part.pass_index) if passing.part is not None else 0


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
        memo: as in ``Manifest``; may be set.

    Raises:
        RuntimeError: where the folder cannot be written.
    """

    def __init__(self, p: Any, plan: Plan, requested: Mapping[str, Any]) -> None:
        self._p, self.plan, self._requested = p, plan, requested
        self._batches: list[_Batch] = []
        self._open: _Open | None = None
        self._repaints: Repaints | None = None
        self._watch: _Watch | None = None
        self._stops: list[str] = []
        self._originals: list[str] = []  # relative to the run's folder, one for all pictures or for those of a batch
        self.memo: str | None = None
        saves = shared.opts.samples_save and not p.do_not_save_samples
        root = settings.saved_folder() if saves else settings.temporary_folder()
        try:
            self.folder = folders.begin(root)
            self._write(Status.INTERRUPTED)
        except OSError as error:
            raise RuntimeError(f"the run cannot be written into {root}: {error.strerror or error}") from error
        if not saves:
            folders.prune(root, settings.temporary_runs())
        # in a picture's text, so that it is known of each picture, whoever shows it; a grid's is none picture's
        p.extra_generation_params[RUN_KEY] = self._told_of

    # --- while it is sampled -----------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, denoiser: Any, steps: SamplingSteps | None, was_spared: Callable[[], bool]) -> Iterator[None]:
        """Around one run of a sampler, which is one pass or several. The pass that is open at its end, ends with it.

        Args:
            steps: what the passes' parts were laid over; ``None`` where they have none.
            was_spared: whether the evaluation that has just ended was made without the UNet.
        """
        self._watch = _Watch(denoiser, steps, was_spared, keeps=self.plan.save_passes and steps is not None)
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
            if not self._batches:  # the host has the part that it paints in by now
                self._keep_originals()
            self._batches.append(_Batch(self._p))
        self._open = _Open(passing, time.perf_counter(), self._watch.made, self._watch.spared)

    def switch(self) -> None:
        """The pass that holds ends at a step boundary: its picture is what its last evaluation saw in the noise."""
        assert self._watch is not None
        assert self._open is not None
        passing, seen = self._open.passing, self._watch.seen
        self._end_pass()
        if seen is None:
            return
        if self._repaints is not None:
            self._repaints.show(passing, seen)
        else:
            self.keep_latents(seen)

    def enlarged(self, passing: Passing, subjects: int | None = None) -> None:
        """A pass that samples nothing is over."""
        record = msgspec.structs.replace(_told(passing, _NO_STEPS, 0.0, 0, 0), subjects=subjects)
        self._batches[-1].add(record)
        self._write(Status.INTERRUPTED)

    @contextmanager
    def repainting(self, passings: Sequence[Passing]) -> Iterator[Repaints]:
        """Around all repaints that a subject pass and the switch passes after it do: whatever happens, what was done
        goes on record when this ends."""
        batch = self._batches[-1]
        self._repaints = repaints = Repaints(passings, len(batch.seeds))
        try:
            yield repaints
        finally:
            self._repaints = None
            self._add(batch, repaints)

    def keep_latents(self, latents: Tensor) -> None:
        """The pictures of the pass that ended last, decoded by the VAE that is in place."""
        if self.plan.save_passes:
            decoded = processing.decode_latent_batch(shared.sd_model, latents, target_device=devices.cpu)
            self.keep_decoded(torch.stack(tuple(decoded)))

    def keep_decoded(self, decoded: Tensor) -> None:
        """The same as the VAE gives them: N, 3, height, width from -1 to 1."""
        self.keep(pixels.whole(decoded))

    def keep(self, pictures: Tensor) -> None:
        """The same: N, 3, height, width from 0 to 1."""
        if not self.plan.save_passes or not self._batches:
            return
        batch = self._batches[-1]
        index = len(batch.passes) - 1
        name = batch.passes[index][0].name
        for place, picture in enumerate(pictures[: len(batch.seeds)]):
            if not picture.isfinite().all():
                self._p.comment(f"Multipass: the VAE gave no numbers for {name}, so there is no picture of it")
                continue
            self._save(batch, index, place, pixels.image_of(picture))
        self._write(Status.INTERRUPTED)

    def finished(self, pictures: Tensor) -> None:
        """What the last pass of the batch gave, as the host has decoded it, before anybody else works on it."""
        if self._batches:
            self._batches[-1].finished = True
            self.keep(pictures)
            self._draw_triptychs(self._batches[-1], pictures)

    def keep_beside(self, alone: Sequence[Tensor], labels: Sequence[str]) -> None:
        """What each checkpoint alone gave, to stand beside the plan's pictures: N, 3, height, width from -1 to 1."""
        self._batches[-1].beside = _Beside(tuple(alone), tuple(labels))

    # --- the end -----------------------------------------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """The request has ended; with ``error``, because of that. A manifest that cannot be written is reported, and
        does not hide what came before."""
        made = sum(len(batch.seeds) for batch in self._batches if batch.finished)
        p, self._watch = self._p, None
        p.extra_generation_params.pop(RUN_KEY, None)  # what a script then makes of several pictures is of no one run
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
        """The run's name in what the host answers; and, behind the finished pictures, their triptychs and, if a person
        wants that, the pictures of the passes before the last."""
        told = {**processed.extra_generation_params, RUN_KEY: self.folder.name}
        processed.extra_generation_params = told
        picks = self._p.script_args
        if picks and picks[0]:  # a script assembles what it is given
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
            yield from (self.folder / picture for picture in batch.triptychs.values())
        for batch in self._batches if settings.shows_passes() else ():
            for place in range(len(batch.seeds)):
                for index in range(len(batch.passes) - 1):
                    if (index, place) in batch.kept:
                        yield self.folder / batch.picture(index, place)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _draw_triptychs(self, batch: _Batch, pictures: Tensor) -> None:
        if batch.beside is None:
            return
        (alone, labels), batch.beside = batch.beside, None
        font = images.get_font(drawing.text_pixels(pictures.shape[-2]))
        for place, picture in enumerate(pictures[: len(batch.seeds)]):
            beside = pixels.images_of(torch.stack([own[place] for own in alone]))
            drawn = drawing.draw_triptych(beside, pixels.image_of(picture), labels, font)
            told = {_TRIPTYCH_KEY: " | ".join(labels), RUN_KEY: None}  # it is none of the pictures to compare
            _write_png(drawn, self.folder / batch.triptych(place), self._text(place, told))
            batch.triptychs[place] = batch.triptych(place)
        self._write(Status.INTERRUPTED)

    def _told_of(self, index: int, all_seeds: Any, use_main_prompt: bool, **_: Any) -> str | None:
        """For the picture's text: the run, and the picture's place in it. The host calls this with what it knows, and
        counts within the batch or over all, by which seeds it was given."""
        p = self._p
        first = 0 if all_seeds is p.all_seeds else p.iteration * p.batch_size
        return None if use_main_prompt else f"{self.folder.name}/{first + index}"

    def _keep_originals(self) -> None:
        """What img2img begins with."""
        if not self.plan.save_passes:
            return
        for number, image in enumerate(refining.originals(self._p, Size(self._p.width, self._p.height))):
            place = folders.of_original(number)
            _write_png(image, self.folder / place)
            self._originals.append(place)

    def _end_pass(self) -> None:
        if self._open is None:
            return
        (passing, began, made_before, spared_before), self._open = self._open, None
        assert self._watch is not None
        ran = self._watch.spanned(passing.part)
        seconds = time.perf_counter() - began
        made, spared = self._watch.made - made_before, self._watch.spared - spared_before
        record = _told(passing, ran, seconds, made - spared, spared)
        if self._repaints is not None:
            self._repaints.add(passing, record)
        else:
            self._batches[-1].add(record)
        if self._watch.stopped and (shared.state.skipped or shared.state.interrupted):
            self._stops.append(f"{_stop()} in {passing.name} after step {ran.end_step}")
        self._write(Status.INTERRUPTED)

    def _add(self, batch: _Batch, repaints: Repaints) -> None:
        head = len(batch.passes)
        keeps = self.plan.save_passes
        batch.passes += repaints.rows(lambda place: batch.mask(head, place)) if keeps else repaints.rows(lambda _: None)
        if keeps:
            for (number, place), picture in repaints.shown.items():
                self._save(batch, head + number, place, picture)
            for place, mask in repaints.masks.items():
                _write_png(mask, self.folder / batch.mask(head, place))
        self._write(Status.INTERRUPTED)

    def _save(self, batch: _Batch, index: int, place: int, picture: Image.Image) -> None:
        text = self._text(place, {PASS_KEY: batch.passes[index][0].name})
        _write_png(picture, self.folder / batch.picture(index, place), text)
        batch.kept.add((index, place))

    def _text(self, place: int, more: Mapping[str, str | None]) -> PngImagePlugin.PngInfo:
        """The picture's, with more in it; not last, where our plan is, which some readers trip over."""
        text = PngImagePlugin.PngInfo()
        if shared.opts.enable_pnginfo:
            text.add_text(_PNG_KEY, self._infotext(place, more))
        return text

    def _infotext(self, place: int, more: Mapping[str, str | None]) -> str:
        p = self._p
        params = {**more, **{name: value for name, value in p.extra_generation_params.items() if name not in more}}
        with hooks.replaced(p, **{**self._requested, "extra_generation_params": params}):
            return processing.create_infotext(
                p, p.all_prompts, p.all_seeds, p.all_subseeds, iteration=p.iteration, position_in_batch=place
            )

    def _write(self, status: Status, error: str | None = None) -> None:
        plan = msgspec.structs.replace(self.plan, request=self._request())
        records = (record for batch in self._batches for record in batch.records())
        told = tuple(
            msgspec.structs.replace(record, original=self._originals[number % len(self._originals)])
            if self._originals
            else record
            for number, record in enumerate(records)
        )
        write(Manifest(self.folder.name, status, plan, told, error, self.memo), self.folder)

    def _request(self) -> Request:
        """What the request would say for the first picture; what a plan cannot say (no CFG scale below 1) is left
        out."""
        p = self._p
        texts = {"prompt": p.all_prompts[0], "negative_prompt": p.all_negative_prompts[0]}
        fields = {name: self._requested[name] for name in _SAID if name in self._requested}
        # the request's own seeds are one picture's while subjects are repainted
        seed = self._batches[0].seeds[0] if self._batches else int(p.all_seeds[0])
        said = {**texts, "seed": seed, **fields}
        return msgspec.convert({name: value for name, value in said.items() if _can_be_said(name, value)}, Request)


def said_by(p: Any) -> dict[str, Any]:
    """What the picture's text and the manifest tell of a request, and passes have of their own."""
    return {name: getattr(p, name) for name in (*_SAID, "token_merging_ratio") if hasattr(p, name)}


def _told(passing: Passing, ran: Segment, seconds: float, evaluations: int, spared: int) -> PassRecord:
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
        memo_hits=spared,
        through=passing.through,
    )


def _write_png(picture: Image.Image, path: Path, text: PngImagePlugin.PngInfo | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    with folders.whole(path) as aside:
        picture.save(aside, "PNG", pnginfo=text, compress_level=_COMPRESSION)


def _can_be_said(name: str, value: Any) -> bool:
    try:
        msgspec.convert({name: value}, Request)
    except msgspec.ValidationError:
        return False
    return True


def _stop() -> str:
    return "skipped" if shared.state.skipped else "interrupted"
