"""From a plan and a folder of checkpoints to a job: what the files decide is refused before a weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from multipass.hosts.standalone.checkpoints import CheckpointFile, CheckpointFolder
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.layout import Layout, Settings
from multipass.hosts.standalone.schedules import Sampling
from multipass.infotext import as_run
from multipass.kinds import Family, Kind, clashes
from multipass.plan import Pass, Plan, PlanError, Problem, Request
from multipass.prompts import Texts, pass_texts
from multipass.schedule import Segment

USUAL_SIDE = {Family.SD1: 512, Family.SDXL: 1024}


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
            yield from _clip_skip(own.clip_skip or 1, f"passes[{index}].clip_skip", found[index])


def _clip_skip(clip_skip: int, place: str, file: CheckpointFile) -> Iterator[Problem]:
    if file.family is Family.SDXL:
        if clip_skip > 2:
            yield Problem(place, "SDXL reads the last layer but one whatever this says: leave it out")
    elif clip_skip > file.text_layers:
        yield Problem(place, f"{file.name}'s text encoder has {file.text_layers} layers, got {clip_skip}")
