"""Axes: what is read, and what a value at a place makes of a plan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.paths import MOST_VALUES, Axis, Scalar, parse_axis, parse_values, with_values
from multipass.plan import Plan, PlanError, decode
from tests.core.strategies import plans

BASE = decode({"version": 1, "passes": [{"checkpoint": "a"}, {"switch_at": 0.5, "cfg_scale": 3}]})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:1:0.1", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ("4:8:2", [4, 6, 8]),
        ("4:9:2", [4, 6, 8]),
        ("1:0:-0.5", [1.0, 0.5, 0.0]),
        ("3:3:1", [3]),
        ("0.5", [0.5]),
        ("5,7,9.5", [5, 7, 9.5]),
        ("a, b [0123456789],c d", ["a", "b [0123456789]", "c d"]),
        ('"a, b","5", "say \\"no\\""', ["a, b", "5", 'say "no"']),
        ("0.2-0.4 (+0.1), 1-3 [3], 9", [0.2, 0.3, 0.4, 1, 2, 3, 9]),
        ('1-3, "1-3 [3]", fox 1-3 [3]', ["1-3", "1-3 [3]", "fox 1-3 [3]"]),
        ("true,null,", [True, None, ""]),
        ("", [""]),
        (",", ["", ""]),
        ("a:b:c", ["a:b:c"]),
        ("[a:b:0.5]", ["[a:b:0.5]"]),
        ("[1]", ["[1]"]),
        ('"a" b', ['"a" b']),
        ('"a', ['"a']),
        ("NaN", ["NaN"]),
    ],
)
def test_values(text: str, values: list[Scalar]) -> None:
    found = parse_values(text, "here")
    assert list(found) == values


@pytest.mark.parametrize(("text", "kind"), [("4:8:2", int), ("4:8:2.0", float), ("0.0:4:2", float)])
def test_whole_numbers_stay_whole(text: str, kind: type) -> None:
    assert {type(value) for value in parse_values(text, "")} == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "0:1:0",
        "1:0:0.1",
        "0:1:-0.1",
        "0:inf:1",
        "nan:1:1",
        "0:0:0",
        "1:1:inf",
        "inf:inf:1",
        "0:1e999999:1e-999999",
        "0.2-0.8 (-0.1)",
        "0-1 [0]",
        "0:1e99999:1",
        f"0:{MOST_VALUES}:1",
    ],
)
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_values(text, "passes[1].switch_at")
    assert [problem.path for problem in refused.value.problems] == ["passes[1].switch_at"]


@given(st.lists(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), min_size=1))
def test_what_json_says_of_values_is_read_as_they_are(values: list[Scalar]) -> None:
    text = ",".join(msgspec.json.encode(value).decode() for value in values)
    assert list(parse_values(text, "")) == values


def test_an_axis() -> None:
    assert parse_axis("common.prompt=a=b,c") == Axis("common.prompt", ("a=b", "c"))
    assert parse_axis(" passes[1].steps = 4:6:1").path == "passes[1].steps"
    for text in ("passes[1].switch_at", "=1", "passes[x].name=1", "passes.[0]=1", "a b=1", "passes[1]switch_at=1"):
        with pytest.raises(PlanError, match="expected"):
            parse_axis(text)


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("passes[1].switch_at", 0.25, lambda plan: plan.passes[1].switch_at),
        ("passes[0].checkpoint", "b", lambda plan: plan.passes[0].checkpoint),
        ("passes[1].prompt", "a fox", lambda plan: plan.passes[1].prompt),
        ("passes[1].cfg_scale", None, lambda plan: plan.passes[1].cfg_scale),
        ("common.prompt", "sunset", lambda plan: plan.common.prompt),
        ("request.cfg_scale", 5.5, lambda plan: plan.request and plan.request.cfg_scale),
        ("save_passes", False, lambda plan: plan.save_passes),
        ("passes[1].enabled", False, lambda plan: plan.passes[1].enabled),
    ],
)
def test_a_value_is_at_its_place_and_nothing_else_changes(path: str, value: Scalar, read: Any) -> None:
    changed = with_values(BASE, {path: value})
    assert read(changed) == value
    assert changed != BASE
    back = with_values(changed, {path: read(BASE)})
    # an object that was put in stays, empty
    assert msgspec.structs.replace(back, request=None) == BASE


def test_values_together_where_neither_alone_would_be_a_plan() -> None:
    changed = with_values(BASE, {"passes[1].switch_unit": "step", "passes[1].switch_at": 3})
    assert changed.passes[1].switch_at == 3
    with pytest.raises(PlanError):
        with_values(BASE, {"passes[1].switch_at": 3})


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("passes[1].switch_at", 1.5, "passes[1].switch_at: expected a number from 0 to 1, got 1.5"),
        ("passes[1].swich_at", 1, "passes[1].swich_at: unknown field"),
        ("passes[2].switch_at", 1, "passes[2].switch_at: there is no such place in the plan (2 passes)"),
        ("passes.switch_at", 1, "passes.switch_at: there is no such place"),
        ("version[0]", 1, "version[0]: there is no such place"),
        ("passes[0].checkpoint[0]", "b", "passes[0].checkpoint[0]: there is no such place"),
        ("passes[1]", None, "passes[1]: there is no such place"),
        ("passes[1]", 3, "passes[1]: there is no such place"),
        ("foo.bar", 3, "foo: unknown field"),
        ("passes", None, "passes: "),
    ],
)
def test_a_value_that_is_refused(path: str, value: Scalar, reason: str) -> None:
    with pytest.raises(PlanError) as refused:
        with_values(BASE, {path: value})
    assert str(refused.value).startswith(reason)


@given(plans(), st.text(max_size=8))
def test_any_plan_with_a_name_is_that_plan_otherwise(plan: Plan, name: str) -> None:
    named = with_values(plan, {"passes[0].name": name})
    assert named.passes[0].name == name
    first, *others = plan.passes
    same = msgspec.structs.replace(plan, passes=(msgspec.structs.replace(first, name=name), *others))
    assert named == same
