"""Running a plan, passively: the host that owns the sampling loop asks before each evaluation what holds from here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from multipass.plan import Plan
from multipass.schedule import SamplingSteps, Segment


class Switch(msgspec.Struct, frozen=True):
    """From the evaluation that starts now, this holds.

    ``checkpoint`` and ``cfg_scale`` are ``None`` where the plan leaves them to the request.
    """

    segment: Segment
    checkpoint: str | None
    cfg_scale: float | None


class PlanRun:
    """One trajectory of one batch. It never samples; it answers.

    Args:
        parts: the segments of the trajectory, from ``schedule.segments``.
        steps: what they were laid over. A switch happens at a step's first evaluation only, never inside a step.
    """

    def __init__(self, plan: Plan, parts: Sequence[Segment], steps: SamplingSteps) -> None:
        settings = dict(plan.running)
        self._switches = tuple(
            Switch(part, settings[part.pass_index].checkpoint, settings[part.pass_index].cfg_scale) for part in parts
        )
        self._steps = steps
        self._position = 0

    @property
    def current(self) -> Switch:
        """What holds now; before the first evaluation, what the trajectory starts with."""
        return self._switches[self._position]

    @property
    def last(self) -> Switch:
        """What holds when the trajectory ends."""
        return self._switches[-1]

    def before_evaluation(self, evaluation: int) -> Switch | None:
        """What changes with this evaluation (counted from 0), or ``None``. Each boundary is told once, in order.

        Raises:
            RuntimeError: if a boundary was passed without this being asked: going on would be the wrong model.
        """
        if self._position + 1 == len(self._switches):
            return None
        upcoming = self._switches[self._position + 1]
        boundary = self._steps.first_evaluation(upcoming.segment.first_step)
        if evaluation < boundary:
            return None
        if evaluation > boundary:
            raise RuntimeError(f"the switch at evaluation {boundary} was missed: the sampler is at {evaluation}")
        self._position += 1
        return upcoming
