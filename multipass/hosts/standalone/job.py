"""From a plan to a job: everything that can be refused is refused here, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from multipass.hosts.standalone.checkpoints import Architecture, CheckpointFile, CheckpointFolder, Family, architecture
from multipass.hosts.standalone.emphasis import unsupported
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.schedules import AUTOMATIC, Sampling, lay_out
from multipass.infotext import as_run
from multipass.plan import Pass, PassKind, Plan, PlanError, Problem, Request
from multipass.prompts import Texts, pass_texts
from multipass.schedule import Segment, segments

PIXELS_PER_LATENT = 8
USUAL_SIDE = {Family.SD1: 512, Family.SDXL: 1024}


class Settings(msgspec.Struct, frozen=True):
    """The request, complete: what the plan's passes inherit. The defaults are the webui's."""

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    sampler_name: str = "DPM++ 2M"
    scheduler: str = AUTOMATIC
    cfg_scale: float = 7.0
    width: int | None = None
    height: int | None = None

    @classmethod
    def of(cls, request: Request | None) -> Settings:
        """What the request says, defaults for what it leaves out."""
        given = msgspec.structs.asdict(request) if request else {}
        return cls(**{key: given[key] for key in cls.__struct_fields__ if given.get(key) is not None})


class Layout(msgspec.Struct, frozen=True):
    """A plan over its sampler's steps: what can be said without any checkpoint."""

    plan: Plan
    settings: Settings
    sampling: Sampling
    parts: tuple[Segment, ...]


class Job(msgspec.Struct, frozen=True):
    """A plan that can be rendered.

    Attributes:
        plan: as run: with its request complete and its checkpoints as ``name [hash]``.
        checkpoints: by pass index, for every pass that gets steps.
        texts: by pass index, for every enabled pass.
    """

    plan: Plan
    settings: Settings
    sampling: Sampling
    parts: tuple[Segment, ...]
    checkpoints: dict[int, CheckpointFile]
    texts: dict[int, Texts]
    width: int
    height: int

    @property
    def titles(self) -> dict[int, str]:
        """``name [hash]`` by pass index."""
        return {index: file.title for index, file in self.checkpoints.items()}

    def setting(self, index: int) -> Pass:
        """An enabled pass, what it inherits from its head filled in."""
        return dict(self.plan.running)[index]

    def cfg_scale(self, index: int) -> float:
        """The guidance of a pass."""
        own = self.setting(index).cfg_scale
        return self.settings.cfg_scale if own is None else own


def lay_out_plan(plan: Plan) -> Layout:
    """The plan over the steps its request asks for.

    Raises:
        PlanError: for what the command cannot do, and for passes in the wrong order.
    """
    settings = Settings.of(plan.request)
    problems = [*_not_yet(plan), *_sides(settings)]
    if problems:
        raise PlanError(*problems)
    sampling = lay_out(settings.sampler_name, settings.scheduler, settings.steps)
    settings = msgspec.structs.replace(settings, sampler_name=sampling.sampler.name, scheduler=sampling.scheduler)
    return Layout(plan, settings, sampling, segments(plan, sampling.steps))


def prepare(layout: Layout, folder: CheckpointFolder) -> Job:
    """The job, its checkpoints found. Reads headers and hashes files; loads nothing.

    Raises:
        PlanError: for a checkpoint that is not there, not readable, not rendered by the command or no match for the
            others of its trajectory.
    """
    plan, settings = layout.plan, layout.settings
    found = _find(plan, folder)
    problems = list(_mismatches(plan, found))
    if problems:
        raise PlanError(*problems)
    checkpoints = {part.pass_index: found[part.pass_index] for part in layout.parts}
    family = checkpoints[layout.parts[0].pass_index].family
    width, height = settings.width or USUAL_SIDE[family], settings.height or USUAL_SIDE[family]
    request = msgspec.structs.replace(
        plan.request or Request(), **msgspec.structs.asdict(settings) | {"width": width, "height": height}
    )
    titles = {index: file.title for index, file in checkpoints.items()}
    return Job(
        plan=as_run(msgspec.structs.replace(plan, request=request), titles),
        settings=settings,
        sampling=layout.sampling,
        parts=layout.parts,
        checkpoints=checkpoints,
        texts=pass_texts(plan, Texts(settings.prompt, settings.negative_prompt)),
        width=width,
        height=height,
    )


# --- what is refused --------------------------------------------------------------------------------------------------

_FIRST_PASS_TAKES_FROM_THE_REQUEST = ("steps", "sampler_name", "scheduler", "denoising_strength")


def _not_yet(plan: Plan) -> Iterator[Problem]:
    if plan.request is not None:
        yield from _texts_not_yet("request.", plan.request.prompt, plan.request.negative_prompt)
    yield from _texts_not_yet("common.", plan.common.prompt, plan.common.negative_prompt)
    for index, own in plan.running:
        place = f"passes[{index}]."
        if own.kind in (PassKind.REFINE, PassKind.SUBJECT):
            yield Problem(f"{place}kind", f"the command does not render {own.kind.value} passes yet")
            continue
        for name in _FIRST_PASS_TAKES_FROM_THE_REQUEST:
            if getattr(own, name) is not None:
                yield Problem(place + name, "the command takes it from the request")
        if own.vae is not None:
            yield Problem(f"{place}vae", "the command does not load other VAEs yet, leave it out for the checkpoint's")
        yield from _texts_not_yet(place, own.prompt, own.negative_prompt)


def _texts_not_yet(place: str, prompt: str | None, negative_prompt: str | None) -> Iterator[Problem]:
    yield from unsupported(prompt or "", f"{place}prompt")
    yield from unsupported(negative_prompt or "", f"{place}negative_prompt")


def _sides(settings: Settings) -> Iterator[Problem]:
    for name in ("width", "height"):
        side = getattr(settings, name)
        if side is not None and side % PIXELS_PER_LATENT:
            yield Problem(f"request.{name}", f"expected a multiple of {PIXELS_PER_LATENT}, got {side}")


def _find(plan: Plan, folder: CheckpointFolder) -> dict[int, CheckpointFile]:
    """The checkpoints of all enabled passes; a pass that names none has the one before's."""
    found: dict[int, CheckpointFile] = {}
    problems: list[Problem] = []
    for index, own in plan.running:
        place = f"passes[{index}].checkpoint"
        if own.checkpoint is None:
            problems.append(Problem(place, f"the first pass needs one ({folder.told()})"))
            break
        if plan.passes[index].checkpoint is None and index - 1 in found:
            found[index] = found[index - 1]
            continue
        try:
            found[index] = folder.find(own.checkpoint, place)
        except PlanError as error:
            problems += error.problems
        except InputError as error:
            problems.append(Problem(place, str(error)))
    if problems:
        raise PlanError(*problems)
    return found


def _mismatches(plan: Plan, found: dict[int, CheckpointFile]) -> Iterator[Problem]:
    first: tuple[CheckpointFile, Architecture] | None = None
    for index, own in plan.running:
        file, place = found[index], f"passes[{index}].checkpoint"
        try:
            here = architecture(file)
            _ = file.config
        except InputError as error:
            yield Problem(place, str(error))
            continue
        if first is None:
            first = file, here
        if here != first[1]:
            yield Problem(
                place,
                f"{file.name} ({here}) cannot continue what {first[0].name} ({first[1]}) began: "
                "the checkpoints of a trajectory share one latent space",
            )
        elif here.unet_channels != 4:
            yield Problem(place, f"{file.name} is not a text-to-image model: {here}, 4 needed")
        else:
            yield from _clip_skip(own.clip_skip or 1, f"passes[{index}].clip_skip", file)


def _clip_skip(clip_skip: int, place: str, file: CheckpointFile) -> Iterator[Problem]:
    if file.family is Family.SDXL:
        if clip_skip > 2:
            yield Problem(place, "SDXL reads the last layer but one whatever this says: leave it out")
    elif clip_skip > file.text_layers:
        yield Problem(place, f"{file.name}'s text encoder has {file.text_layers} layers, got {clip_skip}")
