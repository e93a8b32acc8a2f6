"""The plan: one request object that holds everything multipass adds to a picture.

The same JSON object is the panel's hidden field, the API's argument, the infotext, a preset, the ``plan`` of
``passes.json`` and the command's file. This module declares every field once (type, range, label, help), reads plans
strictly, and states the rules that reach across fields. Nothing here knows a host.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from multipass.problems import PlanError, Problem, explain

PLAN_VERSION = 1
MAX_PASSES = 16


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
        PassKind | None, Meta(title="Kind", description="Absent in the first pass; after it, `switch` by default.")
    ] = None
    switch_at: Annotated[
        float | None, Meta(title="Switch at", description="Where a switch pass begins, read by the switch unit.")
    ] = None
    switch_unit: Annotated[SwitchUnit | None, Meta(title="Switch unit", description="Overrides the plan's.")] = None
    checkpoint: Checkpoint | None = None
    vae: Annotated[str | None, Meta(title="VAE", description="Absent: the host's rule for the checkpoint.")] = None
    prompt: Prompt | None = None
    negative_prompt: NegativePrompt | None = None
    prompt_mode: Annotated[
        PromptMode, Meta(title="Prompt mode", description="What the pass's texts do with the inherited ones.")
    ] = PromptMode.REPLACE
    cfg_scale: CfgScale | None = None
    clip_skip: ClipSkip | None = None
    steps: Steps | None = None
    sampler_name: SamplerName | None = None
    scheduler: Scheduler | None = None
    denoising_strength: Strength | None = None
    scale: Annotated[float, Meta(title="Scale", description="Enlarge before refining.", ge=0.25, le=8)] | None = None
    upscaler: Annotated[str, Meta(title="Upscaler", description="What enlarges.", min_length=1)] | None = None

    @property
    def is_head(self) -> bool:
        """Whether it begins a trajectory of its own (the first pass, which has no kind, is told by its place)."""
        return self.kind in (PassKind.REFINE, PassKind.SUBJECT)


class Common(Strict, frozen=True, kw_only=True):
    """Text joined to the end of every pass's text."""

    prompt: str = ""
    negative_prompt: str = ""


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
    common: Common = Common()
    passes: Annotated[tuple[Pass, ...], Meta(description="Run in order.", min_length=1, max_length=MAX_PASSES)]
    save_passes: Annotated[bool, Meta(description="Keep every pass's picture.")] = True
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
_HEAD_FIELDS = ("steps", "sampler_name", "scheduler", "denoising_strength", *_REFINE_FIELDS)


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


def _kind_rules(plan: Plan, index: int, own: Pass) -> Iterator[Problem]:
    place = f"passes[{index}]"
    if index == 0:
        if own.kind is not None:
            yield Problem(f"{place}.kind", f"the first pass starts the picture and has no kind, got {own.kind.value}")
        yield from _unexpected(place, own, (*_SWITCH_FIELDS, *_REFINE_FIELDS), "the first pass does not have it")
    elif own.kind in (None, PassKind.SWITCH):
        yield from _unexpected(place, own, _HEAD_FIELDS, "a switch pass continues its trajectory and does not have it")
        yield from _switch_at_rules(plan, place, own)
    else:
        assert own.kind is not None
        yield from _unexpected(place, own, _SWITCH_FIELDS, f"a {own.kind.value} pass does not have it")


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
