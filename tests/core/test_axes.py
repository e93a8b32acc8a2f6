"""Axes of an X/Y/Z plot: what is typed there, and what a cell's values make of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.axes import FIELDS, Change, Place, Replacement, Setting, Whole, changed, read_places, read_settings
from multipass.paths import MOST_VALUES, numbers_between
from multipass.plan import Plan, PlanError, decode
from tests.core.strategies import plans, refined_plans

PLAN = decode(
    {
        "version": 1,
        "common": {"prompt": "snow"},
        "passes": [
            {"name": "base", "prompt": "a fox"},
            {"name": "style", "switch_at": 0.5, "negative_prompt": "a fox, rain"},
            {"name": "off", "switch_at": 0.6, "enabled": False, "prompt": "a fox"},
            {"switch_at": 0.7},
            {"name": "photo", "kind": "refine", "denoising_strength": 0.4},
            {"name": "twin", "kind": "refine"},
            {"name": "Twin", "kind": "refine"},
        ],
    }
)


def only(plan: Plan, **fields: Any) -> dict[str, Any]:
    """What differs from ``PLAN``, by pass and field."""
    pairs = zip(PLAN.passes, plan.passes, strict=True)
    return {
        f"{index}.{name}": getattr(after, name)
        for index, (before, after) in enumerate(pairs)
        for name in msgspec.structs.asdict(after)
        if getattr(before, name) != getattr(after, name)
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.2, 0.3", ["0.2", "0.3"]),
        ("0.2-0.8 (+0.2)", ["0.2", "0.4", "0.6", "0.8"]),
        ("0-1 (+0.1)", ["0", *(f"{k / 10}" for k in range(1, 10)), "1"]),
        ("0.8-0.2 (-0.3)", ["0.8", "0.5", "0.2"]),
        ("0.2-0.75(+0.2)", ["0.2", "0.4", "0.6"]),
        ("0-1 [5]", ["0", "0.25", "0.5", "0.75", "1"]),
        ("0-20 [3]", ["0", "10", "20"]),
        ("4-4 [1]", ["4"]),
        ("3-6", ["3", "4", "5", "6"]),
        (".5-1. (+.25)", ["0.5", "0.75", "1"]),
        ("style: 0.2, 0.3", ["style: 0.2", "style: 0.3"]),
        ("style: 0.2-0.3 (+0.1), pass 4 :0.5, 0.6", ["style: 0.2", "style: 0.3", "pass 4: 0.5", "pass 4: 0.6"]),
        (" 0.2,, \n 0.3 ,", ["0.2", "0.3"]),
        ("half", ["half"]),
        ("", []),
    ],
)
def test_numbers_as_people_type_them(text: str, found: list[str]) -> None:
    assert [setting.text for setting in read_settings("switch_at", text)] == found


def test_names_are_no_ranges() -> None:
    found = read_settings("checkpoint", 'photo: 1-5, "a, b", c [0123456789]')
    assert [setting.text for setting in found] == ["photo: 1-5", "a, b", "c [0123456789]"]
    assert [setting.label for setting in found][1:] == [
        "Checkpoint (photo): a, b",
        "Checkpoint (photo): c [0123456789]",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ink, soft", ["1: ink", "1: soft"]),
        ("base: ink, soft", ["0: ink", "0: soft"]),
        ("pass 1: ink, soft, photo: ink, soft", ["0: ink", "0: soft", "4: ink", "4: soft"]),
        ("odd: name, soft", ["1: odd: name", "1: soft"]),
        ("base: ink, odd: name, soft", ["0: ink", "0: odd: name", "0: soft"]),
        ("odd: name, 4: ink, soft", ["1: odd: name", "3: ink", "3: soft"]),
    ],
)
def test_what_is_before_a_name_s_colon_holds_for_the_next_where_it_names_a_pass(text: str, found: list[str]) -> None:
    plans = [changed(PLAN, [setting]) for setting in read_settings("checkpoint", text)]
    told = [[f"{index}: {own.checkpoint}" for index, own in enumerate(plan.passes) if own.checkpoint] for plan in plans]
    assert told == [[one] for one in found]


@pytest.mark.parametrize(
    "text", ["0.2-0.8", "1-0", "0-1 (+0)", "0-1 (-0.1)", f"0-{MOST_VALUES}", "0-1 [0]", "0-1 [9999]"]
)
def test_a_range_that_is_none_is_refused_with_its_axis(text: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_settings("switch_at", text)
    assert [problem.path for problem in refused.value.problems] == ["[Multipass] Switch at"]


@given(st.integers(0, 999), st.integers(1, 100), st.integers(1, 99), st.integers(0, 3))
def test_a_range_is_decimal_and_has_both_ends(first: int, step: int, count: int, digits: int) -> None:
    def shown(number: int) -> str:
        return f"{number / 10**digits:.{digits}f}"

    last = first + step * count
    expected = [float(shown(first + step * k)) for k in range(count + 1)]
    assert [*(numbers_between(f"{shown(first)}-{shown(last)} (+{shown(step)})", "") or ())] == expected
    assert [*(numbers_between(f"{shown(first)} - {shown(last)} [{count + 1}]", "") or ())] == expected


def test_places() -> None:
    found = read_places("passes[1].cfg_scale=2, 4-6 (+1), null")
    assert found == [Place("passes[1].cfg_scale", value) for value in (2, 4, 5, 6, None)]
    assert [place.label for place in read_places('common.prompt=fox,"a, b"')] == [
        "common.prompt=fox",
        "common.prompt=a, b",
    ]
    with pytest.raises(PlanError, match="expected a place in a plan"):
        read_places("switch at=3")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (Setting("switch_at", "0.1"), {"1.switch_at": 0.1}),
        (Setting("switch_at", "4: 0.9"), {"3.switch_at": 0.9}),
        (Setting("switch_at", "Pass 4: 0.9"), {"3.switch_at": 0.9}),
        (Setting("switch_at", "STYLE: 0.1"), {"1.switch_at": 0.1}),
        (Setting("checkpoint", "ink [0123456789]"), {"1.checkpoint": "ink [0123456789]"}),
        (Setting("checkpoint", "base: ink"), {"0.checkpoint": "ink"}),
        (Setting("checkpoint", "odd: name"), {"1.checkpoint": "odd: name"}),
        (Setting("cfg_scale", "7"), {"1.cfg_scale": 7}),
        (Setting("denoising_strength", "0.2"), {"4.denoising_strength": 0.2}),
        (Setting("steps", "12"), {"4.steps": 12}),
        (Setting("sampler_name", "Euler a"), {"4.sampler_name": "Euler a"}),
        (Setting("sampler_name", "7: Euler a"), {"6.sampler_name": "Euler a"}),
        (Place("passes[4].denoising_strength", 0.3), {"4.denoising_strength": 0.3}),
        (Replacement("fox", "owl"), {"0.prompt": "a owl", "1.negative_prompt": "a owl, rain"}),
        (Replacement("fox", "fox"), {}),
        (Replacement("style: fox", "owl"), {"1.negative_prompt": "a owl, rain"}),
        (Replacement("style: fox", "style: fox"), {}),
    ],
)
def test_a_value_is_where_it_is_meant(change: Change, found: dict[str, Any]) -> None:
    assert only(changed(PLAN, [change])) == found


def test_common_texts_are_every_pass_s() -> None:
    assert changed(PLAN, [Replacement("snow", "rain")]).common.prompt == "rain"
    assert changed(PLAN, [Replacement("snow", "rain"), Replacement("rain", "hail")]).common.prompt == "hail"


def test_without_a_pass_after_the_first_it_is_the_first_that_is_meant() -> None:
    single = decode({"version": 1, "passes": [{}]})
    for name, text in (("cfg_scale", "3"), ("checkpoint", "a"), ("steps", "3"), ("denoising_strength", "0.5")):
        assert getattr(changed(single, [Setting(name, text)]).passes[0], name) is not None
    with pytest.raises(PlanError, match="the plan has no switch pass"):
        changed(single, [Setting("switch_at", "0.5")])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([Setting("switch_at", "1.5")], "passes[1].switch_at: expected a number from 0 to 1, got 1.5"),
        ([Setting("switch_at", "half")], 'passes[1].switch_at: expected a number, got "half"'),
        ([Setting("switch_at", "nan")], "passes[1].switch_at: expected a"),
        ([Setting("switch_at", "photo: 0.5")], "passes[4].switch_at: a refine pass does not have it"),
        ([Setting("switch_at", "styl: 0.5")], '[Multipass] Switch at: there is no pass "styl"; did you mean "style"?'),
        ([Setting("switch_at", "9: 0.5")], '[Multipass] Switch at: there is no pass "9"'),
        ([Setting("checkpoint", "Pass 9: a")], '[Multipass] Checkpoint: there is no pass "Pass 9"'),
        ([Setting("switch_at", "off: 0.5")], '[Multipass] Switch at: the pass "off" is switched off'),
        ([Setting("steps", "twin: 5")], '[Multipass] Steps: 2 passes are called "twin"; say which by its number'),
        ([Setting("steps", "2.5")], "passes[4].steps: expected a whole number from 1 to 1000, got 2.5"),
        ([Setting("steps", "style: 5")], "passes[1].steps: a switch pass continues its trajectory"),
        ([Replacement("owl", "fox")], '[Multipass] Prompt S/R: "owl" is not in the passes\' own texts'),
        ([Replacement("photo: fox", "fox")], '[Multipass] Prompt S/R: "fox" is not in the texts of photo'),
        ([Replacement("", "fox")], '[Multipass] Prompt S/R: "" is not in'),
        ([Place("passes[9].steps", 1)], "passes[9].steps: there is no such place in the plan (7 passes)"),
    ],
)
def test_a_value_that_is_refused(changes: Sequence[Change], reason: str) -> None:
    with pytest.raises(PlanError) as refused:
        changed(PLAN, changes)
    assert str(refused.value).startswith(reason)


def test_values_go_into_the_whole_plan_that_another_axis_has() -> None:
    other = decode({"version": 1, "passes": [{}, {"switch_at": 0.9}]})
    for changes in ([Whole(other), Setting("switch_at", "0.2")], [Setting("switch_at", "0.2"), Whole(other)]):
        for plan in (PLAN, None):
            found = changed(plan, changes)
            assert (len(found.passes), found.passes[1].switch_at) == (2, 0.2)
    with pytest.raises(PlanError, match="needs a plan"):
        changed(None, [Setting("switch_at", "0.2")])


def test_values_together_where_neither_alone_would_be_a_plan() -> None:
    changes = [Place("passes[1].switch_unit", "step"), Setting("switch_at", "style: 3")]
    assert changed(PLAN, changes).passes[1].switch_at == 3


@given(plans() | refined_plans(), st.sampled_from(FIELDS), st.integers(1, 7))
def test_a_setting_changes_one_field_of_the_pass_it_names_or_is_refused(plan: Plan, name: str, number: int) -> None:
    try:
        found = changed(plan, [Setting(name, f"pass {number}: 1")])
    except PlanError:
        return
    fields = [msgspec.structs.asdict(own) for own in found.passes]
    assert fields[number - 1].pop(name) in (1, "1")
    before = [msgspec.structs.asdict(own) for own in plan.passes]
    del before[number - 1][name]
    assert fields == before
    assert plan.passes[number - 1].enabled
    same = {name: getattr(plan, name) for name in ("switch_unit", "common", "save_passes", "request")}
    assert same == {name: getattr(found, name) for name in same}
