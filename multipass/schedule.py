"""A plan laid over what a sampler will run: plan x sampling steps -> segments. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import ROUND_FLOOR, Decimal

import msgspec

from multipass.plan import Pass, Plan, PlanError, Problem, SwitchUnit

TRAINING_TIMESTEPS = 1000


class SamplingSteps(msgspec.Struct, frozen=True):
    """The steps a sampler really runs, as its host tells them.

    Attributes:
        sigmas: the noise level at the start of each step and, last, where the final step ends; one more than steps.
        timesteps: the training timestep (0..999, 999 = most noise) nearest to each step's start; one per step.
        evaluations: how often the denoiser was asked before each step; empty for once in every step.
        asked: how many evaluations the sampler was asked for: a sampler may run more or fewer, and the webui's own
            fractions are of these. ``None``: fractions are of the steps.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    evaluations: tuple[int, ...] = ()
    asked: int | None = None

    def __post_init__(self) -> None:
        if len(self.sigmas) != len(self.timesteps) + 1 or not self.timesteps:
            raise ValueError(f"{len(self.timesteps)} steps need one sigma more, got {len(self.sigmas)}")
        if self.evaluations and len(self.evaluations) != len(self.timesteps):
            raise ValueError(f"{len(self.timesteps)} steps, but {len(self.evaluations)} places where they begin")

    @property
    def count(self) -> int:
        """How many steps there are, at least 1."""
        return len(self.timesteps)

    def first_evaluation(self, step: int) -> int:
        """The number, counted from 0, of the evaluation that the step begins with."""
        return self.evaluations[step] if self.evaluations else step

    def step_of(self, evaluation: int) -> int:
        """The step that the evaluation belongs to, both counted from 0."""
        return bisect_right(self.evaluations, evaluation) - 1 if self.evaluations else min(evaluation, self.count - 1)

    def fraction(self, step: int) -> float:
        """How much of the sampling, 0..1, is done when the step begins."""
        return step / self.count if self.asked is None else self.first_evaluation(step) / self.asked


class Segment(msgspec.Struct, frozen=True):
    """The steps that belong to one pass: ``first_step <= step < end_step``, counted from 0.

    ``pass_index`` is the place in ``plan.passes``; ``sigma_in`` and ``sigma_out`` are the noise levels where it starts
    and ends.
    """

    pass_index: int
    first_step: int
    end_step: int
    sigma_in: float
    sigma_out: float


def segments(plan: Plan, steps: SamplingSteps, trajectory: int = 0) -> tuple[Segment, ...]:
    """The segments of one of the plan's trajectories, in order; together they are all its steps, none is empty.

    A pass that gets no step has no segment.

    Args:
        trajectory: its place in ``plan.trajectories``.

    Raises:
        PlanError: where a pass would begin before the pass ahead of it, or after a step that there is not.
    """
    running = plan.trajectories[trajectory].passes
    starts = [0, *(_first_step(plan.unit_of(own), own, steps) for _, own in running[1:])]
    problems = [
        Problem(
            f"passes[{index}].switch_at",
            f"{plan.label(index)} would begin at step {start + 1}, "
            f"before {plan.label(ahead)} at step {start_ahead + 1}",
        )
        for (ahead, _), (index, _), start_ahead, start in zip(running, running[1:], starts, starts[1:], strict=False)
        if start < start_ahead
    ]
    problems += [
        Problem(
            f"passes[{index}].switch_at",
            f"expected a whole number from 0 to {steps.count}, the steps, got {own.switch_at:g}",
        )
        for index, own in running[1:]
        if plan.unit_of(own) is SwitchUnit.STEP and (own.switch_at or 0) > steps.count
    ]
    if problems:
        raise PlanError(*problems)
    ends = [*starts[1:], steps.count]
    return tuple(
        Segment(index, start, end, steps.sigmas[start], steps.sigmas[end])
        for (index, _), start, end in zip(running, starts, ends, strict=True)
        if start < end
    )


def _first_step(unit: SwitchUnit, own: Pass, steps: SamplingSteps) -> int:
    """The first step at which the pass holds; ``steps.count`` where it never does."""
    at = own.switch_at
    assert at is not None, "the plan's rules require it"
    if unit is SwitchUnit.STEPS and at == 1:
        return steps.count  # also where a sampler runs more steps than it was asked for
    wanted = -at if unit is SwitchUnit.SIGMA else at
    return next((i for i, reached in enumerate(_reached(unit, steps)) if reached >= wanted), steps.count)


def _reached(unit: SwitchUnit, steps: SamplingSteps) -> list[float]:
    """How far the sampling is at the beginning of each step, in the unit; sigmas negative, because they fall."""
    match unit:
        case SwitchUnit.STEPS:
            return [steps.fraction(i) for i in range(steps.count)]
        case SwitchUnit.TIMESTEP:
            # the webui's Refiner: modules/sd_samplers_common.py, apply_refiner
            return [(TRAINING_TIMESTEPS - 1 - t) / TRAINING_TIMESTEPS for t in steps.timesteps]
        case SwitchUnit.SIGMA:
            return [-sigma for sigma in steps.sigmas[: steps.count]]
        case SwitchUnit.STEP:
            return [float(i) for i in range(steps.count)]


def points(unit: SwitchUnit, steps: SamplingSteps | None) -> tuple[float, ...]:
    """For every step the ``switch_at`` with which a pass begins there, and last the one with which it gets no step: the
    inverse of ``segments``, in numbers with few decimals.

    A step that no value of this unit names (where a sampler goes back to more noise, or past what it was asked for)
    has that of the next one that has one.

    Args:
        steps: ``None`` for a trajectory without a step.
    """
    never = 1.0
    if unit is SwitchUnit.SIGMA:
        never = 0.0
    elif unit is SwitchUnit.STEP:
        never = float(steps.count if steps is not None else 0)
    furthest = -math.inf
    named: list[float | None] = []
    for reached in _reached(unit, steps) if steps is not None else ():
        # in the unit "steps" 1 is never
        highest = min(reached, math.nextafter(1, 0)) if unit is SwitchUnit.STEPS else reached
        named.append(_shortest(furthest, highest) if highest > furthest else None)
        furthest = max(furthest, highest)
    found = [never]
    for value in reversed(named):
        found.append(found[-1] if value is None else abs(value))
    return tuple(reversed(found))


def _shortest(above: float, up_to: float) -> float:
    """The number of the fewest decimals that is more than ``above`` and at most ``up_to``; of several, the highest."""
    exact = Decimal(repr(up_to))
    decimals = -int(exact.as_tuple().exponent)
    candidates = (float(exact.quantize(Decimal(1).scaleb(-count), ROUND_FLOOR)) for count in range(decimals))
    return next((number for number in candidates if number > above), up_to)


def describe(plan: Plan, parts: tuple[Segment, ...]) -> str:
    """For people, steps counted from 1: ``composition 1-12; style 13-20``."""
    return "; ".join(f"{plan.label(part.pass_index)} {span(part)}" for part in parts)


def span(part: Segment) -> str:
    """A segment's steps for people, counted from 1: ``13-20``, or ``7`` for one step."""
    first, last = part.first_step + 1, part.end_step
    if first > last:
        return "no steps"
    return f"{first}" if first == last else f"{first}-{last}"


def starts_with(plan: Plan, trajectory: int = 0) -> int:
    """The index of the pass that holds at a trajectory's first step, as far as that is certain for every sampler: a
    fraction or a number of steps of 0 is. (Whether a sigma is reached at once depends on the sampler.)"""
    first, *others = plan.trajectories[trajectory].passes
    for index, own in others:
        if plan.unit_of(own) is SwitchUnit.SIGMA or own.switch_at != 0:
            break
        first = (index, own)
    return first[0]
