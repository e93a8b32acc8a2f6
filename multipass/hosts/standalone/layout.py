"""A plan over its sampler's steps: what can be said, and refused, without any checkpoint. Needs nothing installed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from multipass.hosts.standalone.emphasis import unsupported
from multipass.hosts.standalone.schedules import AUTOMATIC, Sampling, lay_out
from multipass.plan import Plan, PlanError, Problem, Request
from multipass.schedule import Segment, segments

PIXELS_PER_LATENT = 8


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


# --- what is refused --------------------------------------------------------------------------------------------------

_FIRST_PASS_TAKES_FROM_THE_REQUEST = ("steps", "sampler_name", "scheduler", "denoising_strength")


def _not_yet(plan: Plan) -> Iterator[Problem]:
    if plan.request is not None:
        yield from _texts_not_yet("request.", plan.request.prompt, plan.request.negative_prompt)
    yield from _texts_not_yet("common.", plan.common.prompt, plan.common.negative_prompt)
    for index, own in plan.running:
        place = f"passes[{index}]."
        if own.is_head:
            assert own.kind is not None
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
