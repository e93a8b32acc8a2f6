"""Running a plan, passively: the host that owns the sampling loop asks before each evaluation what holds from here."""

from __future__ import annotations

from collections.abc import Sequence

from multipass.schedule import SamplingSteps, Segment


class PlanRun:
    """One trajectory of one batch. It never samples; it answers.

    Args:
        parts: the segments of the trajectory, from ``schedule.segments``.
        steps: what they were laid over. A switch happens at a step's first evaluation only, never inside a step.
    """

    def __init__(self, parts: Sequence[Segment], steps: SamplingSteps) -> None:
        self._parts = tuple(parts)
        self.steps = steps
        self._position = 0

    @property
    def current(self) -> Segment:
        """What holds now; before the first evaluation, what the trajectory starts with."""
        return self._parts[self._position]

    @property
    def last(self) -> Segment:
        """What holds when the trajectory ends."""
        return self._parts[-1]

    def before_evaluation(self, evaluation: int) -> Segment | None:
        """What holds from this evaluation (counted from 0) on, if that changes with it. Each change is told once.

        Raises:
            RuntimeError: if a boundary was passed without this being asked: going on would be the wrong model.
        """
        if self._position + 1 == len(self._parts):
            return None
        upcoming = self._parts[self._position + 1]
        boundary = self.steps.first_evaluation(upcoming.first_step)
        if evaluation < boundary:
            return None
        if evaluation > boundary:
            raise RuntimeError(f"the switch at evaluation {boundary} was missed: the sampler is at {evaluation}")
        self._position += 1
        return upcoming
