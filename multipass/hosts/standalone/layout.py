"""A plan over its samplers' steps: what can be said, and refused, without any checkpoint. Needs nothing installed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from multipass import detection
from multipass.hosts.standalone.emphasis import unsupported
from multipass.hosts.standalone.schedules import AUTOMATIC, Sampling, lay_out
from multipass.hosts.standalone.upscalers import Upscaler, find
from multipass.plan import Pass, PassKind, Plan, PlanError, Problem
from multipass.prompts import expanded
from multipass.schedule import Segment, segments
from multipass.subjects import Region

PIXELS_PER_LATENT = 8
_SAMPLED_WITH = ("steps", "sampler_name", "scheduler")


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
    def of(cls, plan: Plan) -> Settings:
        """What the plan's request says, how its first pass samples, defaults for what both leave out."""
        given = msgspec.structs.asdict(plan.request) if plan.request else {}
        own = plan.running[0][1]
        given |= {name: getattr(own, name) for name in _SAMPLED_WITH if getattr(own, name) is not None}
        return cls(**{key: given[key] for key in cls.__struct_fields__ if given.get(key) is not None})


class Stage(msgspec.Struct, frozen=True):
    """One of the plan's trajectories over the steps of its sampler.

    Attributes:
        head: the index, in the plan, of the pass that it is described by; it may be one that gets no step itself.
        sampling: ``None`` where nothing is sampled: a strength of 0 redraws nothing.
        parts: the steps of its passes; where nothing is sampled the head's alone, which has none.
        scale: what the picture before is enlarged by, first.
        upscaler: ``None`` where the plan leaves it out.
        region: what it repaints, once for each subject; ``None`` where it makes or redraws the whole picture.
    """

    head: int
    sampling: Sampling | None
    parts: tuple[Segment, ...]
    scale: float = 1.0
    upscaler: Upscaler | None = None
    region: Region | None = None


class Layout(msgspec.Struct, frozen=True):
    """A plan over its samplers' steps: what can be said without any checkpoint.

    Attributes:
        plan: with a pass for every subject that its request's prompt has.
    """

    plan: Plan
    settings: Settings
    stages: tuple[Stage, ...]

    @property
    def parts(self) -> tuple[Segment, ...]:
        """Of all stages."""
        return tuple(part for stage in self.stages for part in stage.parts)


def lay_out_plan(plan: Plan) -> Layout:
    """The plan over the steps its request and its passes ask for.

    Raises:
        PlanError: for what the command cannot do, and for passes in the wrong order.
    """
    settings = Settings.of(plan)
    plan = _expanded(plan, settings)
    problems = [*_not_yet(plan), *_sides(settings)]
    if problems:
        raise PlanError(*problems)
    index, own = plan.running[0]

    def place(name: str) -> str:
        return f"request.{name}" if getattr(own, name) is None else f"passes[{index}].{name}"

    sampling = lay_out(settings.sampler_name, settings.scheduler, settings.steps, place=place)
    settings = msgspec.structs.replace(settings, sampler_name=sampling.sampler.name, scheduler=sampling.scheduler)
    first = Stage(index, sampling, segments(plan, sampling.steps))
    others = (_later(plan, number, settings) for number in range(1, len(plan.trajectories)))
    return Layout(plan, settings, (first, *others))


def _expanded(plan: Plan, settings: Settings) -> Plan:
    try:
        return expanded(plan, settings.prompt, settings.negative_prompt)
    except PlanError as error:
        of_request = ("prompt", "negative_prompt")
        raise PlanError(
            *(Problem(f"request.{p.path}" if p.path in of_request else p.path, p.message) for p in error.problems)
        ) from None


def _later(plan: Plan, number: int, settings: Settings) -> Stage:
    """A trajectory after the first. What is wrong with it is wrong from its head on, whose place is told."""
    trajectory = plan.trajectories[number]
    head = trajectory.head

    def place(name: str) -> str:
        return f"passes[{trajectory.index}].{name}"

    scale = 1.0 if head.scale is None else head.scale
    upscaler = None if head.upscaler is None else find(head.upscaler, place("upscaler"))
    region = Region.of(head) if head.kind is PassKind.SUBJECT else None
    strength = head.denoising_strength
    if strength is None:
        kind = "refine" if region is None else "subject"
        raise PlanError(Problem(place("denoising_strength"), f"a {kind} pass needs it: a number from 0 to 1"))
    if strength == 0:
        return Stage(trajectory.index, None, (Segment(trajectory.index, 0, 0, 0.0, 0.0),), scale, upscaler, region)
    sampling = lay_out(
        head.sampler_name or settings.sampler_name,
        head.scheduler or settings.scheduler,
        head.steps or settings.steps,
        strength,
        place,
    )
    return Stage(trajectory.index, sampling, segments(plan, sampling.steps, number), scale, upscaler, region)


# --- what is refused --------------------------------------------------------------------------------------------------


def _not_yet(plan: Plan) -> Iterator[Problem]:
    if plan.request is not None:
        yield from _texts_not_yet("request.", plan.request.prompt, plan.request.negative_prompt)
    yield from _texts_not_yet("common.", plan.common.prompt, plan.common.negative_prompt)
    for index, own in plan.running:
        place = f"passes[{index}]."
        if own.kind is PassKind.SUBJECT:
            yield from _subject(place, own)
        if index == plan.running[0][0] and own.denoising_strength is not None:
            yield Problem(f"{place}denoising_strength", "the command begins with noise: there is nothing to redraw")
        if own.vae is not None:
            yield Problem(f"{place}vae", "the command does not load other VAEs yet, leave it out for the checkpoint's")
        yield from _texts_not_yet(place, own.prompt, own.negative_prompt)


def _subject(place: str, own: Pass) -> Iterator[Problem]:
    if own.target is not None and own.target not in detection.TARGETS:
        yield Problem(f"{place}target", f'the command finds {" and ".join(detection.TARGETS)}, got "{own.target}"')
    elif own.target is not None:
        reason = detection.missing()
        if reason is not None:
            yield Problem(f"{place}target", reason)
    for name in ("width", "height"):
        side = getattr(own, name)
        if side is not None and side % PIXELS_PER_LATENT:
            yield Problem(f"{place}{name}", f"expected a multiple of {PIXELS_PER_LATENT}, got {side}")
    if own.upscaler is not None and find(own.upscaler, f"{place}upscaler").latent_mode is not None:
        yield Problem(f"{place}upscaler", "a subject pass enlarges the picture, and this enlarges latents")


def _texts_not_yet(place: str, prompt: str | None, negative_prompt: str | None) -> Iterator[Problem]:
    yield from unsupported(prompt or "", f"{place}prompt")
    yield from unsupported(negative_prompt or "", f"{place}negative_prompt")


def _sides(settings: Settings) -> Iterator[Problem]:
    for name in ("width", "height"):
        side = getattr(settings, name)
        if side is not None and side % PIXELS_PER_LATENT:
            yield Problem(f"request.{name}", f"expected a multiple of {PIXELS_PER_LATENT}, got {side}")
