"""The plan: what is read, what is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.plan import Plan, decode, encode, in_words, json_schema
from multipass.problems import PlanError, Problem
from tests.core.strategies import subject_plans

TWO = {
    "version": 1,
    "passes": [{"checkpoint": "a"}, {"checkpoint": "b", "switch_at": 0.5}],
}


def two(**second: object) -> dict[str, object]:
    return {"version": 1, "passes": [{"checkpoint": "a"}, {"checkpoint": "b", "switch_at": 0.5, **second}]}


def problems(source: object) -> list[str]:
    with pytest.raises(PlanError) as caught:
        decode(source)
    return [str(problem) for problem in caught.value.problems]


CONTRACT_EXAMPLE = {
    "version": 1,
    "switch_unit": "steps",
    "common": {"prompt": "", "negative_prompt": ""},
    "passes": [
        {"name": "composition", "checkpoint": "ponyDiffusionV6XL", "prompt": "score_9, a fox", "clip_skip": 2},
        {
            "name": "style",
            "kind": "switch",
            "switch_at": 0.4,
            "checkpoint": "animagine-xl-3.1",
            "prompt": "masterpiece, a fox",
            "negative_prompt": "lowres",
            "cfg_scale": 6,
        },
        {
            "name": "photo",
            "kind": "refine",
            "checkpoint": "virileReality",
            "denoising_strength": 0.35,
            "steps": 12,
            "sampler_name": "DPM++ 2M",
            "scheduler": "karras",
            "scale": 1.5,
            "upscaler": "Latent",
            "vae": "vae-ft-mse-840000",
        },
    ],
}


def test_the_contract_example_is_read() -> None:
    plan = decode(CONTRACT_EXAMPLE)
    assert [own.name for own in plan.passes] == ["composition", "style", "photo"]
    assert plan.passes[1].cfg_scale == 6
    assert decode(json.dumps(CONTRACT_EXAMPLE)) == decode(json.dumps(CONTRACT_EXAMPLE).encode()) == plan


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (two(switch_at=1.5), "passes[1].switch_at: expected a number from 0 to 1, got 1.5"),
        (two(switch_at=-0.1), "passes[1].switch_at: expected a number from 0 to 1, got -0.1"),
        (two(switch_at=1.5, switch_unit="step"), "passes[1].switch_at: expected a whole number of at least 0, got 1.5"),
        (two(switch_at=-1, switch_unit="sigma"), "passes[1].switch_at: expected a number of at least 0, got -1"),
        (two(switch_at="0.5"), 'passes[1].switch_at: expected a number, got "0.5"'),
        (two(switch_at=None), "passes[1].switch_at: a switch pass needs it: a number from 0 to 1"),
        (
            two(switch_unit="percent"),
            'passes[1].switch_unit: expected one of "steps", "timestep", "sigma", "step", got "percent"',
        ),
        (two(swich_at=0.5), "passes[1].swich_at: unknown field"),
        (two(cfg_scale=0), "passes[1].cfg_scale: expected a number from 1 to 100, got 0"),
        (two(clip_skip=1.5), "passes[1].clip_skip: expected a whole number from 1 to 12, got 1.5"),
        (two(enabled="yes"), 'passes[1].enabled: expected true or false, got "yes"'),
        (two(checkpoint=""), 'passes[1].checkpoint: expected a text that is not empty, got ""'),
        (two(prompt=["a"]), "passes[1].prompt: expected a text, got 1 of them"),
        (two(scale=2), "passes[1].scale: a switch pass continues its trajectory and does not have it"),
        (two(switch_at=float("nan")), "passes[1].switch_at: expected a finite number, got nan"),
        (two() | {"adetailer": {"pass": 2}}, "adetailer.pass: expected a pass from 0 to 1, got 2"),
        (two() | {"adetailer": {"pass": -1}}, "adetailer.pass: expected a pass from 0 to 1, got -1"),
        (two() | {"adetailer": {"pass": "b"}}, 'adetailer.pass: expected a whole number, got "b"'),
        (two(enabled=False) | {"adetailer": {"pass": 1}}, "adetailer.pass: passes[1] is switched off"),
        (two() | {"adetailer": {"index": 1}}, "adetailer.index: unknown field"),
        ({"version": 2, "passes": [{}]}, "version: expected 1, got 2"),
        ({"passes": [{}]}, "version: required"),
        ({"version": 1, "passes": []}, "passes: expected a list of 1 to 16 passes, got 0 of them"),
        ({"version": 1, "passes": [{}] * 17}, "passes: expected a list of 1 to 16 passes, got 17 of them"),
        ({"version": 1, "passes": [{}, 5]}, "passes[1]: expected an object, got 5"),
        ({"version": 1, "passes": [{"enabled": False}]}, "passes: every pass is switched off"),
        ({"version": 1, "passes": [{"switch_at": 0.5}]}, "passes[0].switch_at: the first pass does not have it"),
        ([], "expected an object, got 0 of them"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(plan: object, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(plan)), problems(plan)


def test_which_pass_adetailer_follows() -> None:
    plan = decode(two() | {"adetailer": {"pass": 0, "prompts": True}})
    assert (plan.adetailer.index, plan.adetailer.prompts) == (0, True)
    assert '"adetailer":{"pass":0,"prompts":true}' in encode(plan)
    assert (decode(two()).adetailer.index, decode(two()).adetailer.prompts) == (None, False)
    assert "adetailer" not in encode(decode(two()))


def test_every_broken_rule_is_told_at_once() -> None:
    plan = {"version": 3, "passes": [{"kind": "switch"}, {"switch_at": 7}, {"kind": "refine", "switch_at": 0.5}]}
    assert [problem.split(":")[0] for problem in problems(plan)] == [
        "version",
        "passes[0].kind",
        "passes[1].switch_at",
        "passes[2].switch_at",
    ]


def test_a_refine_pass_cannot_be_what_is_left_of_a_plan() -> None:
    plan = {"version": 1, "passes": [{"enabled": False}, {"kind": "refine"}]}
    assert problems(plan) == ["passes[1].kind: a refine pass needs a picture, and every pass before it is off"]


def test_only_the_checkpoint_chains_and_the_rest_comes_from_the_head() -> None:
    plan = decode(
        {
            "version": 1,
            "passes": [
                {"checkpoint": "a", "cfg_scale": 7},
                {"switch_at": 0.2, "checkpoint": "b", "cfg_scale": 3},
                {"switch_at": 0.4, "enabled": False, "checkpoint": "c"},
                {"switch_at": 0.6},
            ],
        }
    )
    assert [(index, own.checkpoint, own.cfg_scale) for index, own in plan.running] == [
        (0, "a", 7),
        (1, "b", 3),
        (3, "b", 7),
    ]


def test_a_head_inherits_how_it_samples_from_the_head_before() -> None:
    plan = decode(
        {
            "version": 1,
            "passes": [
                {"checkpoint": "a", "steps": 30, "cfg_scale": 5},
                {"checkpoint": "b", "switch_at": 0.5, "cfg_scale": 9},
                {"kind": "refine", "denoising_strength": 0.4, "sampler_name": "Euler", "scale": 2},
                {"switch_at": 0.5},
                {"kind": "refine", "checkpoint": "c", "steps": 8},
            ],
        }
    )
    first, refined, last = plan.trajectories
    assert [trajectory.index for trajectory in (first, refined, last)] == [0, 2, 4]
    assert (refined.head.checkpoint, refined.head.steps, refined.head.cfg_scale) == ("b", 30, 5)
    inherited = (last.head.checkpoint, last.head.steps, last.head.denoising_strength, last.head.sampler_name)
    assert inherited == ("c", 8, 0.4, "Euler")
    assert last.head.scale is None, "else every pass would enlarge again"
    switched = refined.passes[1][1]
    assert (switched.checkpoint, switched.cfg_scale, switched.steps) == ("b", 5, None)


@given(subject_plans())
def test_trajectories_are_the_enabled_passes_each_begun_by_its_head(plan: Plan) -> None:
    trajectories = plan.trajectories
    assert tuple(own for trajectory in trajectories for own in trajectory.passes) == plan.running
    assert all(trajectory.head.is_head for trajectory in trajectories[1:])
    assert not any(own.is_head for trajectory in trajectories for _, own in trajectory.passes[1:])


@given(subject_plans())
def test_a_plan_written_and_read_is_the_same_plan(plan: Plan) -> None:
    assert decode(encode(plan)) == plan
    assert encode(decode(encode(plan))) == encode(plan)


@given(subject_plans())
def test_every_plan_fits_the_published_schema(plan: Plan) -> None:
    jsonschema.validate(json.loads(encode(plan)), json_schema())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=20,
)
field_names = st.sampled_from(
    [*Plan.__struct_fields__, "switch_at", "kind", "prompt", "checkpoint", "name", "nonsense"]
)
nearly_plans = st.fixed_dictionaries(
    {"version": st.just(1) | json_values, "passes": st.lists(st.dictionaries(field_names, json_values), max_size=3)},
    optional={"switch_unit": json_values, "common": json_values, "request": json_values},
)


@given(st.text() | st.binary() | json_values | nearly_plans | nearly_plans.map(json.dumps))
def test_no_input_raises_anything_but_our_error(source: object) -> None:
    try:
        plan = decode(source)
    except PlanError as error:
        assert error.problems
        assert str(error)
    else:
        assert isinstance(plan, Plan)


class Hostile(dict[str, object]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError("looked at")

    items = keys = values = __iter__ = __getitem__  # type: ignore[assignment]


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "source",
    [
        object(),
        {1: 2},
        {"version": 1, "passes": [Hostile(a=1)]},
        two(prompt=object()),
        two(prompt="\ud800"),
        two(prompt=Text("a")),
        two(prompt={1, 2}),
        {"version": 1, "passes": {1, 2}},
        2**200,
        two(switch_at=2**2000),
    ],
    ids=lambda source: type(source).__name__,
)
def test_objects_that_are_not_json_are_refused_too(source: object) -> None:
    assert problems(source)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("passes[1].switch_at", "Pass 2, Switch at: "),
        ("passes[0]", "Pass 1: "),
        ("passes[0].unknown", "Pass 1, unknown: "),
        ("common.prompt", "common.prompt: "),
        ("", ""),
    ],
)
def test_a_place_in_words(path: str, place: str) -> None:
    assert in_words(PlanError(Problem(path, "it is wrong"), Problem("", "too"))) == f"{place}it is wrong; too"
