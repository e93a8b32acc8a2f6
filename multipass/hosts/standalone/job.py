"""From a plan and a folder of checkpoints to a job: what the files decide is refused before a weight is loaded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from multipass import masks
from multipass.hosts.standalone.checkpoints import CheckpointFile, CheckpointFolder
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.layout import PIXELS_PER_LATENT, Layout, Settings, Stage
from multipass.hosts.standalone.upscalers import LANCZOS, LATENT, Upscaler
from multipass.infotext import as_run
from multipass.kinds import Family, Kind, clashes
from multipass.plan import Pass, Plan, PlanError, Problem, Request
from multipass.prompts import Texts, pass_texts
from multipass.schedule import Segment
from multipass.subjects import working_size

LARGEST_SIDE = 16384


class Size(msgspec.Struct, frozen=True):
    """Of a picture, in pixels."""

    width: int
    height: int

    def scaled(self, scale: float) -> Size:
        """Enlarged, both sides cut to what a latent can have."""
        width, height = (
            int(side * scale) // PIXELS_PER_LATENT * PIXELS_PER_LATENT for side in (self.width, self.height)
        )
        return Size(width, height)


class Carried(msgspec.Struct, frozen=True):
    """How a picture gets from one trajectory to the next.

    Attributes:
        size: that it has there.
        upscaler: what enlarges it; ``None`` where it has this size already.
        through_pixels: whether it is decoded and encoded again on the way: pixels are enlarged, the latent space is
            another, or a subject is or was repainted.
    """

    size: Size
    upscaler: Upscaler | None
    through_pixels: bool


class Job(msgspec.Struct, frozen=True):
    """A plan that can be rendered.

    Attributes:
        plan: as run: with its request complete and its checkpoints as ``name [hash]``.
        carried: by pass index, for the pass that a stage begins with, but the first.
        checkpoints: by pass index, for every pass that has a part in a stage.
        texts: by pass index, for every enabled pass.
        sizes: of what is sampled, by pass index, as ``checkpoints``.
    """

    plan: Plan
    settings: Settings
    stages: tuple[Stage, ...]
    carried: dict[int, Carried]
    checkpoints: dict[int, CheckpointFile]
    texts: dict[int, Texts]
    sizes: dict[int, Size]

    @property
    def parts(self) -> tuple[Segment, ...]:
        """Of all stages."""
        return tuple(part for stage in self.stages for part in stage.parts)

    @property
    def size(self) -> Size:
        """What the picture begins with."""
        return self.sizes[self.parts[0].pass_index]

    @property
    def seed(self) -> int:
        """The plan's."""
        assert self.plan.request is not None
        assert self.plan.request.seed is not None, "with_seed gives it one"
        return self.plan.request.seed

    @property
    def titles(self) -> dict[int, str]:
        """``name [hash]`` by pass index."""
        return {index: file.title for index, file in self.checkpoints.items()}

    def through_pixels(self, part: Segment) -> bool:
        """Whether the pass begins with a picture that was decoded and encoded again."""
        carried = self.carried.get(part.pass_index)
        return carried is not None and carried.through_pixels

    def told(self, part: Segment) -> str:
        """Which pass it is, for people: ``2 of 3: style``."""
        return f"{self.parts.index(part) + 1} of {len(self.parts)}: {self.plan.label(part.pass_index)}"

    def setting(self, index: int) -> Pass:
        """An enabled pass, what it inherits from its head filled in."""
        return dict(self.plan.running)[index]

    def cfg_scale(self, index: int) -> float:
        """The guidance of a pass."""
        own = self.setting(index).cfg_scale
        return self.settings.cfg_scale if own is None else own


def alone(job: Job, index: int) -> Job:
    """The first stage, all of it by one of the job's passes."""
    first = job.stages[0]
    begins, ends = first.parts[0], first.parts[-1]
    whole = Segment(index, begins.first_step, ends.end_step, begins.sigma_in, ends.sigma_out)
    stage = msgspec.structs.replace(first, parts=(whole,))
    return msgspec.structs.replace(job, stages=(stage,), carried={}, sizes={index: job.size})


def with_seed(plan: Plan) -> Plan:
    """The plan with a seed: none or -1 means any."""
    request = plan.request or Request()
    if request.seed is not None and request.seed != -1:
        return plan
    request = msgspec.structs.replace(request, seed=secrets.randbelow(2**32))
    return msgspec.structs.replace(plan, request=request)


def prepare(layout: Layout, folder: CheckpointFolder) -> Job:
    """The job, its checkpoints found. Reads headers and hashes files; loads nothing.

    Raises:
        PlanError: for a checkpoint that is not there, not readable, not rendered by the command or no match for the
            others of its trajectory.
    """
    plan, settings = masks.normalised(layout.plan), layout.settings
    found = _find(plan, folder)
    problems = list(_mismatches(plan, found))
    if problems:
        raise PlanError(*problems)
    checkpoints = {part.pass_index: found[part.pass_index] for part in layout.parts}
    usual = checkpoints[layout.parts[0].pass_index].family.side
    assert usual is not None, "no model of another family is read"
    size = Size(settings.width or usual, settings.height or usual)
    carried = _carried(layout.stages, size, checkpoints)
    pictures = [size, *(carried[stage.parts[0].pass_index].size for stage in layout.stages[1:])]
    problems = list(masks.misshapen(plan, [(picture.width, picture.height) for picture in pictures]))
    if problems:
        raise PlanError(*problems)
    request = msgspec.structs.replace(
        plan.request or Request(), **msgspec.structs.asdict(settings) | msgspec.structs.asdict(size)
    )
    titles = {index: file.title for index, file in checkpoints.items()}
    return Job(
        plan=as_run(msgspec.structs.replace(plan, request=request), titles),
        settings=settings,
        stages=layout.stages,
        carried=carried,
        checkpoints=checkpoints,
        texts=pass_texts(plan, Texts(settings.prompt, settings.negative_prompt)),
        sizes=_sizes(layout.stages, size, carried, checkpoints),
    )


def _sizes(
    stages: Sequence[Stage],
    size: Size,
    carried: Mapping[int, Carried],
    checkpoints: Mapping[int, CheckpointFile],
) -> dict[int, Size]:
    """By pass index, for every part: the picture's, or a repaint's working size."""
    found: dict[int, Size] = {}
    scene = checkpoints[stages[0].parts[0].pass_index].family
    for stage in stages:
        head = stage.parts[0].pass_index
        size = carried[head].size if head in carried else size
        sampled = size
        if stage.region is not None:
            seen = working_size(stage.region, (size.width, size.height), scene, checkpoints[head].family)
            sampled = Size(*seen)
        found |= {part.pass_index: sampled for part in stage.parts}
    return found


def _carried(stages: Sequence[Stage], size: Size, checkpoints: Mapping[int, CheckpointFile]) -> dict[int, Carried]:
    """Between every stage and the one before, by the pass that begins with it.

    Raises:
        PlanError: for a size that no picture can have.
    """
    found: dict[int, Carried] = {}
    for before, stage in pairwise(stages):
        wanted = size.scaled(stage.scale)
        if not all(PIXELS_PER_LATENT <= side <= LARGEST_SIDE for side in (wanted.width, wanted.height)):
            reason = f"{size.width}x{size.height} would become {wanted.width}x{wanted.height}"
            expected = f"expected sides from {PIXELS_PER_LATENT} to {LARGEST_SIDE}"
            raise PlanError(Problem(f"passes[{stage.head}].scale", f"{reason}, {expected}"))
        begins = stage.parts[0].pass_index
        one, other = checkpoints[before.parts[-1].pass_index], checkpoints[begins]
        crosses = one.family.latents is not other.family.latents
        through_pixels = crosses or stage.region is not None or before.region is not None
        upscaler = None
        if wanted != size:
            upscaler = stage.upscaler or (LANCZOS if through_pixels else LATENT)
            through_pixels |= upscaler.latent_mode is None
        found[begins] = Carried(wanted, upscaler, through_pixels)
        size = wanted
    return found


# --- what is refused --------------------------------------------------------------------------------------------------


def _find(plan: Plan, folder: CheckpointFolder) -> dict[int, CheckpointFile]:
    """The checkpoints of all enabled passes; a pass that names none has the one before's."""
    found: dict[int, CheckpointFile] = {}
    before: CheckpointFile | None = None
    problems: list[Problem] = []
    for index, own in plan.running:
        place = f"passes[{index}].checkpoint"
        if own.checkpoint is None:
            problems.append(Problem(place, f"the first pass needs one ({folder.told()})"))
            break
        if plan.passes[index].checkpoint is None:
            if before is not None:
                found[index] = before
            continue  # the one before was not found, which is told where it is named
        before = None
        try:
            before = found[index] = folder.find(own.checkpoint, place)
        except PlanError as error:
            problems += error.problems
        except InputError as error:
            problems.append(Problem(place, str(error)))
    if problems:
        raise PlanError(*problems)
    return found


def _mismatches(plan: Plan, found: dict[int, CheckpointFile]) -> Iterator[Problem]:
    kinds: dict[int, tuple[str, Kind]] = {}
    for index, _ in plan.running:
        file = found[index]
        try:
            kinds[index] = file.name, file.kind
            _ = file.config
        except InputError as error:
            yield Problem(f"passes[{index}].checkpoint", str(error))
    clashing = list(clashes(plan, kinds))
    yield from clashing
    if clashing:
        return
    for index, own in plan.running:
        if index not in kinds:
            continue
        name, kind = kinds[index]
        if kind.unet_channels != 4:
            yield Problem(f"passes[{index}].checkpoint", f"{name} is not a text-to-image model: {kind}, 4 needed")
        else:
            yield from _clip_skip(plan.passes[index], own.clip_skip or 1, f"passes[{index}].clip_skip", found[index])


def _clip_skip(own: Pass, clip_skip: int, place: str, file: CheckpointFile) -> Iterator[Problem]:
    if file.family is Family.SDXL:
        # what is inherited may be meant for the SD 1.x pass that says it
        if (own.clip_skip or 1) > 2:
            yield Problem(place, "SDXL reads the last layer but one whatever this says: leave it out")
    elif clip_skip > file.text_layers:
        yield Problem(place, f"{file.name}'s text encoder has {file.text_layers} layers, got {clip_skip}")
