"""A plan laid over steps: whole steps, in order, none lost, none twice."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.plan import Plan, PlanError, SwitchUnit, decode
from multipass.run import PlanRun
from multipass.schedule import SamplingSteps, Segment, describe, points, segments, starts_with
from tests.core.strategies import laid_out, plans, sampling_steps, uneven_steps


def linear(count: int) -> SamplingSteps:
    """Steps whose sigma and timestep fall evenly."""
    return SamplingSteps(
        sigmas=tuple(float(count - i) for i in range(count + 1)),
        timesteps=tuple(999 - 1000 * i / count for i in range(count)),
    )


def plan(*switch_at: float, unit: str = "steps") -> Plan:
    later = [{"switch_at": at, "checkpoint": f"c{i}"} for i, at in enumerate(switch_at)]
    return decode({"version": 1, "switch_unit": unit, "passes": [{"checkpoint": "base"}, *later]})


def spans(parts: tuple[Segment, ...]) -> list[tuple[int, int, int]]:
    return [(part.pass_index, part.first_step, part.end_step) for part in parts]


@given(laid_out())
def test_segments_partition_the_steps(both: tuple[Plan, SamplingSteps]) -> None:
    plan, steps = both
    parts = segments(plan, steps)
    assert parts[0].first_step == 0
    assert parts[-1].end_step == steps.count
    assert all(part.first_step < part.end_step for part in parts)
    assert all(before.end_step == after.first_step for before, after in pairwise(parts))
    assert [part.pass_index for part in parts] == sorted({part.pass_index for part in parts})
    assert all(before.sigma_out == after.sigma_in for before, after in pairwise(parts))


@given(plans(), sampling_steps())
def test_any_plan_partitions_or_is_refused_with_its_place(plan: Plan, steps: SamplingSteps) -> None:
    try:
        parts = segments(plan, steps)
    except PlanError as error:
        assert all(problem.path.endswith(".switch_at") for problem in error.problems)
    else:
        assert sum(part.end_step - part.first_step for part in parts) == steps.count


def reached(unit: SwitchUnit, at: float, step: int, steps: SamplingSteps) -> bool:
    return {
        SwitchUnit.STEPS: step / steps.count >= at,
        SwitchUnit.TIMESTEP: (999 - steps.timesteps[step]) / 1000 >= at,
        SwitchUnit.SIGMA: steps.sigmas[step] <= at,
        SwitchUnit.STEP: step >= at,
    }[unit]


@given(laid_out())
def test_a_pass_begins_at_the_first_step_that_reaches_its_point(both: tuple[Plan, SamplingSteps]) -> None:
    plan, steps = both
    parts = {part.pass_index: part for part in segments(plan, steps)}
    for index, own in plan.running[1:]:
        if index in parts:
            assert own.switch_at is not None
            unit, first = plan.unit_of(own), parts[index].first_step
            assert reached(unit, own.switch_at, first, steps)
            assert first == 0 or not reached(unit, own.switch_at, first - 1, steps)


@pytest.mark.parametrize(
    ("unit", "at", "expected"),
    [
        ("steps", 0.4, 8),
        ("steps", 0.41, 9),
        ("steps", 0, 0),
        ("steps", 1, 20),
        ("timestep", 0.5, 10),
        ("sigma", 12.5, 8),
        ("sigma", 99, 0),
        ("sigma", 0, 20),
        ("step", 7, 7),
        ("step", 20, 20),
    ],
)
def test_where_a_pass_begins_in_twenty_steps(unit: str, at: float, expected: int) -> None:
    parts = segments(plan(at, unit=unit), linear(20))
    wanted = [(0, 0, expected), (1, expected, 20)]
    assert spans(parts) == [part for part in wanted if part[1] < part[2]]


def test_a_there_and_back_plan_and_a_pass_without_a_step() -> None:
    parts = segments(plan(0.25, 0.5, 0.5, 0.75), linear(8))
    assert spans(parts) == [(0, 0, 2), (1, 2, 4), (3, 4, 6), (4, 6, 8)]


def test_each_trajectory_is_laid_over_its_own_steps() -> None:
    passes = [{}, {"switch_at": 0.5}, {"kind": "refine", "steps": 4}, {"switch_at": 0.5}]
    refined = decode({"version": 1, "passes": passes})
    assert spans(segments(refined, linear(8))) == [(0, 0, 4), (1, 4, 8)]
    assert spans(segments(refined, linear(4), 1)) == [(2, 0, 2), (3, 2, 4)]
    assert (starts_with(refined), starts_with(refined, 1)) == (0, 2)


def test_a_boundary_before_the_one_ahead_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        segments(plan(0.8, 0.3), linear(20))
    assert str(caught.value) == "passes[2].switch_at: Pass 3 would begin at step 7, before Pass 2 at step 17"


def test_a_step_that_there_is_not_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        segments(plan(21, unit="step"), linear(20))
    assert str(caught.value) == "passes[1].switch_at: expected a whole number from 0 to 20, the steps, got 21"


@given(sampling_steps(), st.integers(1, 60), st.integers(1, 3))
def test_a_fraction_of_one_is_never_and_of_zero_is_at_once(steps: SamplingSteps, asked: int, per_step: int) -> None:
    """Also where a sampler runs more steps, or asks more often, than it was asked to."""
    evaluations = tuple(range(0, steps.count * per_step, per_step))
    uneven = msgspec.structs.replace(steps, asked=asked, evaluations=evaluations)
    assert spans(segments(plan(1), uneven)) == [(0, 0, steps.count)]
    assert spans(segments(plan(0), uneven)) == [(1, 0, steps.count)]


def test_for_people_steps_count_from_one() -> None:
    two = decode({"version": 1, "passes": [{"name": "a"}, {"name": "b", "switch_at": 0.95}]})
    assert describe(two, segments(two, linear(20))) == "a 1-19; b 20"


@given(laid_out())
def test_a_run_tells_each_boundary_once_and_at_its_step(both: tuple[Plan, SamplingSteps]) -> None:
    plan, steps = both
    parts = segments(plan, steps)
    for per_step in (1, 2, 3):
        evaluated = msgspec.structs.replace(steps, evaluations=tuple(range(0, steps.count * per_step, per_step)))
        run = PlanRun(parts, evaluated)
        assert run.current == parts[0]
        told = {}
        for evaluation in range(steps.count * per_step):
            upcoming = run.before_evaluation(evaluation)
            if upcoming is not None:
                told[evaluation] = upcoming
        assert told == {part.first_step * per_step: part for part in parts[1:]}
        assert run.current == run.last


def test_a_fraction_is_of_the_evaluations_that_were_asked_for() -> None:
    """As in the host's DPM fast (10 evaluations in 4 steps) and DDIM (9 steps when asked for 10)."""
    fast = SamplingSteps((4.0, 3.0, 2.0, 1.0, 0.0), (900, 700, 500, 300), evaluations=(0, 3, 6, 9), asked=10)
    assert spans(segments(plan(0.3, 0.61), fast)) == [(0, 0, 1), (1, 1, 3), (2, 3, 4)]
    ddim = SamplingSteps(tuple(range(9, -1, -1)), tuple(range(900, 0, -100)), asked=10)
    assert spans(segments(plan(0.55), ddim)) == [(0, 0, 6), (1, 6, 9)]


def test_a_missed_boundary_is_an_error_not_the_wrong_model() -> None:
    two = plan(0.5)
    run = PlanRun(segments(two, linear(10)), linear(10))
    assert run.before_evaluation(4) is None
    with pytest.raises(RuntimeError, match="evaluation 5 was missed"):
        run.before_evaluation(6)


def test_steps_need_one_sigma_more() -> None:
    with pytest.raises(ValueError, match="one sigma more"):
        SamplingSteps(sigmas=(1.0,), timesteps=(999.0,))
    with pytest.raises(ValueError, match="places where they begin"):
        SamplingSteps(sigmas=(1.0, 0.0), timesteps=(999.0,), evaluations=(0, 1))


@given(sampling_steps())
def test_every_evaluation_belongs_to_the_step_that_it_was_begun_for(steps: SamplingSteps) -> None:
    assert [steps.step_of(steps.first_evaluation(i)) for i in range(steps.count)] == list(range(steps.count))
    second_order = msgspec.structs.replace(steps, evaluations=tuple(2 * i for i in range(steps.count)))
    assert [second_order.step_of(i) for i in range(2 * steps.count)] == [i // 2 for i in range(2 * steps.count)]


def begins(unit: SwitchUnit, at: float, steps: SamplingSteps) -> int:
    """The step at which a second pass begins, ``steps.count`` where it gets none."""
    parts = segments(plan(at, unit=unit.value), steps)
    return next((part.first_step for part in parts if part.pass_index == 1), steps.count)


@given(st.sampled_from(SwitchUnit), sampling_steps())
def test_every_step_has_the_point_at_which_a_pass_begins_there(unit: SwitchUnit, steps: SamplingSteps) -> None:
    """Where no two steps are one to the unit, as two may be by their timesteps."""
    apart = unit is not SwitchUnit.TIMESTEP or len(set(steps.timesteps)) == steps.count
    found = [begins(unit, at, steps) for at in points(unit, steps)]
    assert not apart or found == list(range(steps.count + 1))


@given(st.sampled_from(SwitchUnit), uneven_steps())
def test_a_step_without_a_point_has_that_of_the_next_one(unit: SwitchUnit, steps: SamplingSteps) -> None:
    """Also where a sampler goes back to more noise, asks more often, or runs more or less than it was asked to."""
    found = [begins(unit, at, steps) for at in points(unit, steps)]
    below_never = math.nextafter(1, 0)  # of a step at 1, past what was asked for
    tried = [0.0, below_never, 1.0, *steps.sigmas, *range(steps.count + 1)]
    tried += [steps.fraction(i) for i in range(steps.count)]
    tried += [(999 - timestep) / 1000 for timestep in steps.timesteps]
    highest = {SwitchUnit.SIGMA: 1e6, SwitchUnit.STEP: steps.count}.get(unit, 1)
    tried = [at for at in tried if 0 <= at <= highest and (unit is not SwitchUnit.STEP or at % 1 == 0)]
    named = {begins(unit, at, steps) for at in tried} | {steps.count}
    assert found == [min(step for step in named if step >= i) for i in range(steps.count + 1)]


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("steps", [0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 1]),
        ("timestep", [0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 1]),
        ("sigma", [8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("step", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_points_are_numbers_that_people_write(unit: str, expected: list[float]) -> None:
    assert list(points(SwitchUnit(unit), linear(8))) == expected


def test_a_trajectory_without_a_step_has_one_point() -> None:
    assert [points(unit, None) for unit in SwitchUnit] == [(1.0,), (1.0,), (0.0,), (0.0,)]
