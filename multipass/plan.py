"""The plan: one request object that holds everything multipass adds to a picture.

The same JSON object is the panel's hidden field, the API's argument, the infotext, a preset, the ``plan`` of
``passes.json`` and the command's file. This module declares every field once (type, range, label, help), reads plans
strictly, and states the rules that reach across fields. Nothing here knows a host.
"""

from __future__ import annotations

import enum
import functools
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from multipass.problems import PlanError, Problem, explain

PLAN_VERSION = 1
MAX_PASSES = 16
MAX_PLACE = 99
"""The last place, from 0, at which a subject can be."""


class SwitchUnit(enum.Enum):
    """What ``switch_at`` counts; see the contract in ``docs/plan.md``."""

    STEPS = "steps"
    TIMESTEP = "timestep"
    SIGMA = "sigma"
    STEP = "step"


class PassKind(enum.Enum):
    """How a pass that is not the first one continues the picture."""

    SWITCH = "switch"
    REFINE = "refine"
    SUBJECT = "subject"


class PromptMode(enum.Enum):
    """How a pass's own text meets the text it inherits."""

    REPLACE = "replace"
    APPEND = "append"
    PREPEND = "prepend"


class PromptSyntax(enum.Enum):
    """How the request's texts are read."""

    HOST = "host"
    SCENE_BREAK = "scene-break"


class Which(enum.Enum):
    """Which of the subjects that a detector found; a number is a place from left to right, from 0."""

    ALL = "all"
    LARGEST = "largest"


class OnMissing(enum.Enum):
    """What a subject pass does to a picture in which nothing was found."""

    CONTINUE = "continue"
    ERROR = "error"


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Frozen, refuses what it does not know, and writes only what was set."""


Name = Annotated[
    str, Meta(title="Name", description="What the pass is called in the panel and in files.", max_length=80)
]
Checkpoint = Annotated[
    str,
    Meta(
        title="Checkpoint",
        description="A name the webui lists, or `name [hash]`, where the hash decides. Absent: the pass before's.",
        min_length=1,
    ),
]
Prompt = Annotated[str, Meta(title="Prompt", description="Absent: inherited.")]
NegativePrompt = Annotated[str, Meta(title="Negative prompt", description="Absent: inherited.")]
CfgScale = Annotated[
    float, Meta(title="CFG scale", description="Guidance of this pass. Absent: inherited.", ge=1, le=100)
]
ClipSkip = Annotated[int, Meta(title="Clip skip", description="Absent: inherited.", ge=1, le=12)]
Steps = Annotated[int, Meta(title="Steps", description="Sampling steps. Absent: inherited.", ge=1, le=1000)]
SamplerName = Annotated[str, Meta(title="Sampler", description="Absent: inherited.", min_length=1)]
Scheduler = Annotated[str, Meta(title="Schedule type", description="Absent: inherited.", min_length=1)]
Strength = Annotated[
    float, Meta(title="Denoising strength", description="How much of the picture before is redrawn.", ge=0, le=1)
]
Side = Annotated[int, Meta(description="Pixels.", ge=8, le=16384)]


_INHERITED = ("cfg_scale", "clip_skip")
_INHERITED_BY_HEADS = (*_INHERITED, "steps", "sampler_name", "scheduler", "denoising_strength")


class Pass(Strict, frozen=True, kw_only=True):
    """One pass. ``None`` means: left out, therefore inherited."""

    name: Name = ""
    enabled: Annotated[bool, Meta(title="Enabled", description="Off: the pass is left out.")] = True
    kind: Annotated[
        PassKind | None,
        Meta(
            title="Kind",
            description="`switch` goes on with the picture in the making, `refine` redraws the finished one, larger if "
            "wanted, `subject` repaints a part of it. Absent: switch; the first pass has none.",
        ),
    ] = None
    switch_at: Annotated[
        float | None,
        Meta(title="Switch at", description="When a switch pass takes over; of `steps`, 0.5 is halfway."),
    ] = None
    switch_unit: Annotated[SwitchUnit | None, Meta(title="Switch unit", description="Overrides the plan's.")] = None
    checkpoint: Checkpoint | None = None
    vae: Annotated[str | None, Meta(title="VAE", description="Absent: what the webui has for the checkpoint.")] = None
    prompt: Prompt | None = None
    negative_prompt: NegativePrompt | None = None
    prompt_mode: Annotated[
        PromptMode,
        Meta(
            title="Prompt mode",
            description="Whether its texts replace the inherited ones or join them.",
        ),
    ] = PromptMode.REPLACE
    cfg_scale: CfgScale | None = None
    clip_skip: ClipSkip | None = None
    steps: Steps | None = None
    sampler_name: SamplerName | None = None
    scheduler: Scheduler | None = None
    denoising_strength: Strength | None = None
    scale: Annotated[float, Meta(title="Scale", description="Enlarge before refining.", ge=0.25, le=8)] | None = None
    upscaler: Annotated[str, Meta(title="Upscaler", description="What enlarges.", min_length=1)] | None = None
    target: (
        Annotated[
            str, Meta(title="Target", description="`person`, `face` or a detector that the host has.", min_length=1)
        ]
        | None
    ) = None
    which: Annotated[
        Which | Annotated[int, Meta(ge=0, le=MAX_PLACE)] | None,
        Meta(
            title="Which",
            description="`all`, the `largest`, or one from the left, 0 the first. Absent: all.",
        ),
    ] = None
    mask: (
        Annotated[
            str,
            Meta(
                title="Mask",
                description="A picture, white where it is repainted, instead of a target; in the plan as base64.",
                min_length=1,
            ),
        ]
        | None
    ) = None
    mask_blur: Annotated[int, Meta(title="Mask blur", description="Pixels. Absent: 4.", ge=0, le=64)] | None = None
    mask_padding: (
        Annotated[
            int,
            Meta(title="Mask padding", description="Pixels around an only masked region. Absent: 32.", ge=0, le=256),
        ]
        | None
    ) = None
    invert: Annotated[
        bool | None, Meta(title="Invert", description="Repaint what is not masked instead. Absent: no.")
    ] = None
    only_masked: Annotated[
        bool | None,
        Meta(title="Only masked", description="Repaint the region at a working size of its own. Absent: yes."),
    ] = None
    width: Annotated[Side, Meta(title="Working width", description="Absent: the picture's.")] | None = None
    height: Annotated[Side, Meta(title="Working height", description="Absent: the picture's.")] | None = None
    on_missing: Annotated[
        OnMissing | None, Meta(title="If nothing is found", description="Absent: the picture goes on unchanged.")
    ] = None

    @property
    def is_head(self) -> bool:
        """Whether it begins a trajectory of its own (the first pass, which has no kind, is told by its place)."""
        return self.kind in (PassKind.REFINE, PassKind.SUBJECT)


class Common(Strict, frozen=True, kw_only=True):
    """Text joined to the end of every pass's text."""

    prompt: str = ""
    negative_prompt: str = ""


class ADetailer(Strict, frozen=True, kw_only=True, rename={"index": "pass"}):
    """What the ADetailer extension does beside a plan; nothing, where it is not there or is off."""

    index: Annotated[
        int | None,
        Meta(
            title="Pass",
            description="Whose checkpoint and VAE its tabs use that name none. Absent: the last that runs.",
        ),
    ] = None
    prompts: Annotated[bool, Meta(title="Prompts", description="Its tabs without a text use that pass's too.")] = False


class Request(Strict, frozen=True, kw_only=True):
    """What the webui's own request would say; the command reads it, the webui ignores it with a notice."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    steps: Steps | None = None
    width: Side | None = None
    height: Side | None = None
    sampler_name: SamplerName | None = None
    scheduler: Scheduler | None = None
    cfg_scale: CfgScale | None = None


class Trajectory(msgspec.Struct, frozen=True):
    """One sampling from noise (or from a picture made noisy again) to a picture: its head and the switch passes that
    continue it.

    Attributes:
        passes: each with its index in ``Plan.passes``, as ``Plan.running`` has it; the head first.
    """

    passes: tuple[tuple[int, Pass], ...]

    @property
    def index(self) -> int:
        """The head's place in ``Plan.passes``."""
        return self.passes[0][0]

    @property
    def head(self) -> Pass:
        """What begins it: the first pass, or a refine or subject pass."""
        return self.passes[0][1]


class Plan(Strict, frozen=True, kw_only=True):
    """An ordered list of passes; see ``docs/plan.md`` for the format by example."""

    version: Annotated[int, Meta(description="The version of this format: 1.")]
    switch_unit: Annotated[SwitchUnit, Meta(title="Switch unit", description="How `switch_at` is read.")] = (
        SwitchUnit.STEPS
    )
    prompt_syntax: Annotated[
        PromptSyntax,
        Meta(
            title="Prompt syntax",
            description="`scene-break`: the prompt is scene BREAK common BREAK subject [BREAK subject ...].",
        ),
    ] = PromptSyntax.HOST
    common: Common = Common()
    passes: Annotated[tuple[Pass, ...], Meta(description="Run in order.", min_length=1, max_length=MAX_PASSES)]
    save_passes: Annotated[
        bool,
        Meta(title="Keep every pass's picture", description="In the run's folder, beside the finished picture."),
    ] = True
    triptych: Annotated[
        bool,
        Meta(title="Triptych", description="One picture more: each checkpoint alone, and the plan's, side by side."),
    ] = False
    adetailer: Annotated[ADetailer, Meta(title="ADetailer", description="Which pass ADetailer follows.")] = ADetailer()
    request: Request | None = None

    @property
    def running(self) -> tuple[tuple[int, Pass], ...]:
        """The enabled passes, each with its index in ``passes``, what it leaves out filled in where the plan says it.

        A checkpoint comes from the pass before; a switch pass takes CFG and clip skip from its head, a head these and
        how it samples from the head before. What stays ``None`` is the request's (or, for the VAE, the host's). Texts
        are not touched: ``prompts.py`` joins them.
        """
        head: Pass | None = None
        checkpoint: str | None = None
        filled: list[tuple[int, Pass]] = []
        for index, own in enumerate(self.passes):
            if not own.enabled:
                continue
            checkpoint = own.checkpoint or checkpoint
            begins = head is None or own.is_head
            inherited = _INHERITED_BY_HEADS if begins else _INHERITED
            left_out = [name for name in inherited if getattr(own, name) is None]
            whole = msgspec.structs.replace(
                own, checkpoint=checkpoint, **{name: getattr(head, name, None) for name in left_out}
            )
            head = whole if begins else head
            filled.append((index, whole))
        return tuple(filled)

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The enabled passes by what is sampled in one go, in order. Every plan that ``decode`` gives has one."""
        found: list[list[tuple[int, Pass]]] = []
        for index, own in self.running:
            if not found or own.is_head:
                found.append([])
            found[-1].append((index, own))
        return tuple(Trajectory(tuple(passes)) for passes in found)

    def unit_of(self, own: Pass) -> SwitchUnit:
        """How ``own.switch_at`` is read."""
        return own.switch_unit or self.switch_unit

    def label(self, index: int) -> str:
        """What people call the pass: its name, else its number counted from 1."""
        return self.passes[index].name or f"Pass {index + 1}"


def decode(source: object) -> Plan:
    """Read a plan from JSON (text or bytes) or from the objects that JSON decodes to.

    Raises:
        PlanError: for anything that is not a plan that could run somewhere, and nothing else. What depends on a host
            (whether a checkpoint exists, what a sampler does) is the host's to check.
    """
    raw = _parse(source)
    try:
        plan = msgspec.convert(raw, Plan)
        encode(plan)  # a text that cannot be written (a lone surrogate) would fail later, where nobody expects it
    except msgspec.ValidationError as error:
        raise PlanError(explain(str(error), msgspec.inspect.type_info(Plan), raw)) from None
    except UnicodeError as error:
        raise PlanError(Problem("", f"not a text: {error}")) from None
    problems = tuple(_rules(plan))
    if problems:
        raise PlanError(*problems)
    return plan


def encode(plan: Plan) -> str:
    """The plan as compact JSON; ``decode`` gives the same plan back."""
    return msgspec.json.encode(plan).decode()


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the plan: the structural part of what ``decode`` accepts."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Plan)}


def _parse(source: object) -> object:
    """JSON or what it decodes to, as plain objects."""
    try:
        return (
            msgspec.json.decode(source) if isinstance(source, (str, bytes, bytearray)) else msgspec.to_builtins(source)
        )
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise PlanError(Problem("", f"not JSON: {error}")) from None
    except Exception as error:  # noqa: BLE001 - whatever a foreign object does when it is looked at
        raise PlanError(Problem("", f"not a plan: {error}")) from None


# --- rules across fields, in the same form as the structural errors ---------------------------------------------------

_RANGES: dict[SwitchUnit, tuple[float, str]] = {
    SwitchUnit.STEPS: (1.0, "a number from 0 to 1"),
    SwitchUnit.TIMESTEP: (1.0, "a number from 0 to 1"),
    SwitchUnit.SIGMA: (math.inf, "a number of at least 0"),
    SwitchUnit.STEP: (math.inf, "a whole number of at least 0"),
}
_SWITCH_FIELDS = ("switch_at", "switch_unit")
_REFINE_FIELDS = ("scale", "upscaler")
_SUBJECT_FIELDS = (
    "target",
    "which",
    "mask",
    "mask_blur",
    "mask_padding",
    "invert",
    "only_masked",
    "width",
    "height",
    "on_missing",
)
_HEAD_FIELDS = ("steps", "sampler_name", "scheduler", "denoising_strength", *_REFINE_FIELDS)
_NOT_FIRST = (*_SWITCH_FIELDS, *_REFINE_FIELDS, *_SUBJECT_FIELDS)
_NOT_OF = {
    None: ("kind", *_NOT_FIRST),
    PassKind.SWITCH: (*_HEAD_FIELDS, *_SUBJECT_FIELDS),
    PassKind.REFINE: (*_SWITCH_FIELDS, *_SUBJECT_FIELDS),
    PassKind.SUBJECT: _SWITCH_FIELDS,
}


@functools.cache
def declared(name: str) -> dict[str, Any]:
    """What is said of a pass's field as JSON Schema has it: ``title``, ``description``, its type and bounds. Not to be
    changed."""
    return flat(msgspec.json.schema(Pass)["$defs"]["Pass"]["properties"][name])


def flat(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's JSON Schema, which nests what is optional, with the keywords of the first type beside its own."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return {**(options[0] if options else {}), **schema}


def in_words(error: PlanError) -> str:
    """The same, with passes as people count them and fields as the panel calls them: ``passes[1].switch_at: ...`` is
    ``Pass 2, Switch at: ...``."""
    return "; ".join(str(Problem(_place(problem.path), problem.message)) for problem in error.problems)


def _place(path: str) -> str:
    found = re.fullmatch(r"passes\[(?P<index>\d+)\](?:\.(?P<name>\w+))?", path)
    if found is None:
        return path
    name = found["name"]
    title = declared(name)["title"] if name in Pass.__struct_fields__ else name
    return ", ".join(filter(None, (f"Pass {int(found['index']) + 1}", title)))


def fields_of(kind: PassKind | None) -> tuple[str, ...]:
    """The names of what a pass of this kind may have; ``None`` is the first pass, which has no kind."""
    return tuple(name for name in Pass.__struct_fields__ if name not in _NOT_OF[kind])


def _rules(plan: Plan) -> Iterator[Problem]:
    if plan.version != PLAN_VERSION:
        yield Problem("version", f"expected {PLAN_VERSION}, got {plan.version}")
    if not plan.running:
        yield Problem("passes", "every pass is switched off")
    elif plan.running[0][1].is_head:
        index, own = plan.running[0]
        assert own.kind is not None
        yield Problem(
            f"passes[{index}].kind", f"a {own.kind.value} pass needs a picture, and every pass before it is off"
        )
    for index, own in enumerate(plan.passes):
        for name, value in msgspec.structs.asdict(own).items():
            if isinstance(value, float) and not math.isfinite(value):
                yield Problem(f"passes[{index}].{name}", f"expected a finite number, got {value}")
        yield from _kind_rules(plan, index, own)
    followed = plan.adetailer.index
    if followed is None:
        return
    if not 0 <= followed < len(plan.passes):
        yield Problem("adetailer.pass", f"expected a pass from 0 to {len(plan.passes) - 1}, got {followed}")
    elif not plan.passes[followed].enabled:
        yield Problem("adetailer.pass", f"passes[{followed}] is switched off")


def _kind_rules(plan: Plan, index: int, own: Pass) -> Iterator[Problem]:
    place = f"passes[{index}]"
    if index == 0:
        if own.kind is not None:
            yield Problem(f"{place}.kind", f"the first pass starts the picture and has no kind, got {own.kind.value}")
        yield from _unexpected(place, own, _NOT_FIRST, "the first pass does not have it")
    elif own.kind in (None, PassKind.SWITCH):
        reason = "a switch pass continues its trajectory and does not have it"
        yield from _unexpected(place, own, _NOT_OF[PassKind.SWITCH], reason)
        yield from _switch_at_rules(plan, place, own)
    else:
        assert own.kind is not None
        yield from _unexpected(place, own, _NOT_OF[own.kind], f"a {own.kind.value} pass does not have it")
        if own.kind is PassKind.SUBJECT:
            yield from _subject_rules(place, own)


def _subject_rules(place: str, own: Pass) -> Iterator[Problem]:
    if own.target is None and own.mask is None:
        yield Problem(f"{place}.target", "a subject pass needs a target to find, or a mask")
    elif own.mask is not None:
        given = "the mask says where: leave it out"
        yield from _unexpected(place, own, ("target", "which", "on_missing"), given)
    if own.only_masked is False:
        yield from _unexpected(
            place, own, ("width", "height", "mask_padding"), "it is for a region: only_masked is off"
        )


def _unexpected(place: str, own: Pass, names: tuple[str, ...], reason: str) -> Iterator[Problem]:
    for name in names:
        if getattr(own, name) is not None:
            yield Problem(f"{place}.{name}", reason)


def _switch_at_rules(plan: Plan, place: str, own: Pass) -> Iterator[Problem]:
    unit = plan.unit_of(own)
    highest, expected = _RANGES[unit]
    at = own.switch_at
    if at is None:
        yield Problem(f"{place}.switch_at", f"a switch pass needs it: {expected}")
    elif not 0 <= at <= highest or (unit is SwitchUnit.STEP and at % 1 != 0):
        yield Problem(f"{place}.switch_at", f"expected {expected}, got {at:g}")
