"""The panel's edits of a plan, which are pure functions in JavaScript, on any plan: what they make is a plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from multipass.plan import MAX_PASSES, Pass, PassKind, Plan, PromptSyntax, decode, fields_of
from multipass.problems import PlanError
from multipass.prompts import expanded
from tests.core.strategies import plans, refined_plans, subject_plans

SCRIPT = Path(__file__).parents[2] / "javascript/multipass_plan.js"
EDITS = ["add", "duplicate", "remove", "move", "setKind"]
KINDS = {"first": None, **{kind.value: kind for kind in PassKind}}
# what the page gets of each field, as far as the edits look at it
DECLARED = [
    {"name": name, "kinds": [kind for kind, own in KINDS.items() if name in fields_of(own)]}
    for name in Pass.__struct_fields__
]
Edit = Callable[..., Any]
# the plans come from strategies, the browser stays the same
browsing = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def edit(browser: Browser) -> Iterator[Edit]:
    """Call one of the functions: what it makes of a plan, whose fields it may want to know."""
    page = browser.new_page()
    page.add_script_tag(path=SCRIPT)

    def call(name: str, plan: Any, *args: Any) -> Any:
        return page.evaluate(
            "([name, plan, args]) => multipass.plan[name](plan, ...args) ?? null",
            [name, json.loads(msgspec.json.encode(plan)), list(args)],
        )

    yield call
    page.close()


def all_on(plan: Plan) -> Plan:
    """A pass that is off may leave the others without a beginning, as it would by hand."""
    return msgspec.structs.replace(
        plan, passes=tuple(msgspec.structs.replace(own, enabled=True) for own in plan.passes)
    )


chosen_plans = st.one_of(plans(), refined_plans()).map(all_on)
places = st.integers(0, MAX_PASSES - 1)


@browsing
@given(plan=chosen_plans, edits=st.lists(st.tuples(st.sampled_from(EDITS), places, places), max_size=8))
def test_whatever_is_done_gives_a_plan(edit: Edit, plan: Plan, edits: list[tuple[str, int, int]]) -> None:
    now: Any = plan
    for name, one, two in edits:
        count = len(now["passes"] if isinstance(now, dict) else now.passes)
        index, other = one % count, two % count
        if name == "setKind":
            if index == 0:
                continue
            args: tuple[Any, ...] = (index, ["switch", "refine"][other % 2], DECLARED)
        elif name in {"add", "duplicate"} and count == MAX_PASSES:
            continue  # whose buttons are off
        else:
            args = (index, other, DECLARED) if name == "move" else (index, DECLARED)
        now = edit(name, now, *args)
        decode(now)


@browsing
@given(plan=chosen_plans, place=places)
def test_a_copy_is_put_in_and_the_others_stay(edit: Edit, plan: Plan, place: int) -> None:
    index = place % len(plan.passes)
    made = decode(edit("duplicate", plan, index, DECLARED))
    others = (*made.passes[: index + 1], *made.passes[index + 2 :])
    assert others == decode(msgspec.to_builtins(plan)).passes
    own, copied = plan.passes[index], made.passes[index + 1]
    assert (copied.checkpoint, copied.prompt, copied.cfg_scale) == (own.checkpoint, own.prompt, own.cfg_scale)
    assert edit("remove", made, index + 1, DECLARED) == json.loads(msgspec.json.encode(plan))


@browsing
@given(plan=plans().map(all_on), one=places, other=places)
def test_passes_change_places_and_the_switch_points_stay(edit: Edit, plan: Plan, one: int, other: int) -> None:
    count = len(plan.passes)
    source, target = one % count, other % count
    made = decode(edit("move", plan, source, target, DECLARED))
    assert [own.switch_at for own in made.passes] == [own.switch_at for own in plan.passes]
    assert [made.unit_of(own) for own in made.passes] == [plan.unit_of(own) for own in plan.passes]
    order = list(plan.passes)
    order.insert(target, order.pop(source))
    assert [(own.name, own.checkpoint, own.prompt) for own in made.passes] == [
        (own.name, own.checkpoint, own.prompt) for own in order
    ]
    back = decode(edit("move", made, target, source, DECLARED))
    assert back == decode(msgspec.to_builtins(plan))


@browsing
@given(plan=refined_plans().map(all_on), one=places, other=places, told=places)
def test_adetailers_pass_goes_along(edit: Edit, plan: Plan, one: int, other: int, told: int) -> None:
    count = len(plan.passes)
    source, target, told = one % count, other % count, told % count
    raw = json.loads(msgspec.json.encode(plan))
    for index, own in enumerate(raw["passes"]):
        own["name"] = str(index)
    raw["adetailer"] = {"pass": told}
    moved = edit("move", raw, source, target, DECLARED)
    assert moved["passes"][moved["adetailer"]["pass"]]["name"] == str(told)
    assume(count > 1)
    removed = edit("remove", raw, source, DECLARED)
    if source == told:
        assert "adetailer" not in removed
    else:
        assert removed["passes"][removed["adetailer"]["pass"]]["name"] == str(told)


@browsing
@given(plan=chosen_plans, place=places)
def test_what_is_inherited_is_what_runs(edit: Edit, plan: Plan, place: int) -> None:
    index = place % len(plan.passes)
    runs = dict(plan.running)[index]
    fields = ["checkpoint", "cfg_scale", "clip_skip"]
    if index == 0 or plan.passes[index].is_head:
        fields += ["steps", "sampler_name", "scheduler", "denoising_strength"]
    for name in fields:
        if getattr(plan.passes[index], name) is None:
            assert edit("inherited", plan, index, name) == getattr(runs, name), name


def test_the_only_pass_stays(edit: Edit) -> None:
    assert edit("remove", {"version": 1, "passes": [{}]}, 0, DECLARED) == {"version": 1, "passes": [{}]}


def test_another_kind_drops_what_it_cannot_have_and_gets_what_it_needs(edit: Edit) -> None:
    plan = {"version": 1, "passes": [{}, {"switch_at": 0.4, "switch_unit": "steps", "prompt": "a", "cfg_scale": 3}]}
    refined = edit("setKind", plan, 1, "refine", DECLARED)
    assert refined["passes"][1] == {"kind": "refine", "prompt": "a", "cfg_scale": 3, "denoising_strength": 0.35}
    switched = edit("setKind", refined, 1, "switch", DECLARED)
    assert switched["passes"][1] == {"prompt": "a", "cfg_scale": 3, "switch_at": 0.5}


def test_a_new_switch_pass_shares_the_steps_with_the_one_before(edit: Edit) -> None:
    plan = {"version": 1, "passes": [{"name": "a"}, {"switch_at": 0.5}]}
    assert edit("duplicate", plan, 0, DECLARED)["passes"] == [
        {"name": "a"}, {"name": "a 2", "switch_at": 0.25}, {"switch_at": 0.5},
    ]  # fmt: skip
    assert edit("add", plan, 1, DECLARED)["passes"][2] == {"switch_at": 0.75}
    steps = {"version": 1, "switch_unit": "step", "passes": [{}, {"switch_at": 4}, {"switch_at": 9}]}
    assert edit("duplicate", steps, 1, DECLARED)["passes"][2] == {"switch_at": 6}


def test_a_prompts_passes_take_the_place_of_the_first_trajectory(edit: Edit) -> None:
    plan = {
        "version": 1,
        "passes": [
            {"checkpoint": "a", "prompt": "x"},
            {"checkpoint": "b", "switch_at": 0.3, "prompt_mode": "append"},
            {"kind": "refine", "denoising_strength": 0.3},
            {"switch_at": 0.5},
        ],
        "adetailer": {"pass": 3},
    }
    told = {
        "switch_unit": "step",
        "passes": [{"prompt": "p"}, {"prompt": "q", "switch_at": 4}, {"prompt": "r", "switch_at": 8}],
    }
    assert edit("imported", plan, told) == {
        "version": 1,
        "switch_unit": "step",
        "passes": [
            {"checkpoint": "a", "prompt": "p"},
            {"checkpoint": "b", "prompt": "q", "switch_at": 4},
            {"prompt": "r", "switch_at": 8},
            {"kind": "refine", "denoising_strength": 0.3},
            {"switch_at": 0.5, "switch_unit": "steps"},
        ],
        "adetailer": {"pass": 4},
    }


@browsing
@given(plan=subject_plans(), subjects=st.integers(1, 6))
def test_the_passes_that_a_prompt_adds_move_no_pass_before_them(edit: Edit, plan: Plan, subjects: int) -> None:
    plan = msgspec.structs.replace(plan, prompt_syntax=PromptSyntax.SCENE_BREAK)
    try:
        longer = expanded(plan, " BREAK ".join("ab" + "c" * subjects), "")
    except PlanError:
        assume(False)
        return
    unmoved = edit("unmoved", plan, json.loads(msgspec.json.encode(longer)))
    added = len(longer.passes) - len(plan.passes)
    place = {"which", "checkpoint"}  # of the one that is copied, these may be told now
    same = [
        all(getattr(one, name) == getattr(other, name) for name in set(Pass.__struct_fields__) - place)
        for one, other in zip(plan.passes, longer.passes, strict=False)
    ]
    assert all(same[:unmoved])
    assert longer.passes[unmoved + added :] == plan.passes[unmoved:]
    if any(own.kind is PassKind.SUBJECT for _, own in plan.running):
        assert unmoved == len(plan.passes) or not added or plan.passes[unmoved].is_head


def test_what_is_told_of_a_longer_plan_is_told_by_the_plan_s_own_places(edit: Edit) -> None:
    told = {
        "added": [2, 3],
        "passes": [{"index": index, "name": name} for index, name in enumerate("abcde")],
        "warnings": [{"path": f"passes[{index}].target", "message": "m"} for index in (1, 2, 4)],
        "errors": [{"path": "passes[4]", "message": "m"}, {"path": "common.prompt", "message": "m"}],
    }
    found = edit("inOwnPlaces", told)
    assert [own.get("index") for own in found["passes"]] == [0, 1, None, None, 2]
    assert [own["path"] for own in found["warnings"]] == ["passes[1].target", "prompt", "passes[2].target"]
    assert [own["path"] for own in found["errors"]] == ["passes[2]", "common.prompt"]
    assert {own["message"] for own in [*found["warnings"], *found["errors"]]} == {"m"}


def test_a_copied_subject_s_switch_passes_keep_their_place(edit: Edit) -> None:
    person = {"kind": "subject", "target": "person", "denoising_strength": 0.5, "checkpoint": "a"}
    refine = {"kind": "refine", "denoising_strength": 0.5}
    plan = decode({"version": 1, "prompt_syntax": "scene-break", "passes": [{}, person, {"switch_at": 0.5}, refine]})
    longer = expanded(plan, "a BREAK b BREAK c BREAK d", "")
    assert [own.kind and own.kind.value for own in longer.passes] == [
        None, "subject", None, "subject", None, "refine"
    ]  # fmt: skip
    assert edit("unmoved", plan, json.loads(msgspec.json.encode(longer))) == 3
