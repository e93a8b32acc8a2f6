"""The two infotext values: what ran, exactly, and the same for people."""

from __future__ import annotations

import json
import re

from hypothesis import given

from multipass.infotext import PASSES_KEY, PLAN_KEY, as_run, infotext_values
from multipass.plan import Plan, decode
from multipass.schedule import SamplingSteps, Segment, segments
from tests.core.strategies import laid_out

# modules/infotext_utils.py of the webui, which reads the picture's text back
RE_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def titles_of(plan: Plan) -> dict[int, str]:
    return {index: f"{own.checkpoint or 'base'} [abc123]" for index, own in plan.running}


def test_both_values() -> None:
    plan = decode(
        {
            "version": 1,
            "passes": [
                {"name": "composition", "checkpoint": "ponyXL"},
                {"name": "style", "switch_at": 0.4, "checkpoint": "animagine"},
                {"switch_at": 0.9},
                {"name": "off", "switch_at": 0.95, "checkpoint": "gone", "enabled": False},
            ],
        }
    )
    parts = (Segment(0, 0, 12, 14.6, 2.0), Segment(1, 12, 29, 2.0, 0.1), Segment(2, 29, 30, 0.1, 0.0))
    values = infotext_values(plan, parts, {0: "ponyXL [abc123]", 1: "animagine [def456]", 2: "animagine [def456]"})
    assert list(values) == [PASSES_KEY, PLAN_KEY]
    assert values["Multipass passes"] == (
        "composition ponyXL [abc123] 1-12; style animagine [def456] 13-29; Pass 3 animagine [def456] 30"
    )
    told = json.loads(values["Multipass"])["passes"]
    assert [own.get("checkpoint") for own in told] == ["ponyXL [abc123]", "animagine [def456]", None, "gone"]


def test_the_first_running_pass_gets_the_checkpoint_it_ran_with() -> None:
    plan = decode({"version": 1, "passes": [{"enabled": False}, {"switch_at": 0.5}, {"switch_at": 0.7}]})
    ran = as_run(plan, {1: "base [aa]", 2: "base [aa]"})
    assert [own.checkpoint for own in ran.passes] == [None, "base [aa]", None]


@given(laid_out())
def test_the_value_is_a_plan_with_the_same_passes(both: tuple[Plan, SamplingSteps]) -> None:
    plan, steps = both
    titles = titles_of(plan)
    parts = segments(plan, steps)
    again = decode(infotext_values(plan, parts, titles)["Multipass"])
    assert again == as_run(plan, titles)
    assert segments(again, steps) == parts
    assert as_run(again, titles) == again


@given(laid_out())
def test_the_webui_reads_the_plan_back_to_the_letter(both: tuple[Plan, SamplingSteps]) -> None:
    plan, steps = both
    values = infotext_values(plan, segments(plan, steps), titles_of(plan))
    line = "Steps: 20, Sampler: Euler, CFG scale: 7, Multipass: " + json.dumps(values["Multipass"], ensure_ascii=False)
    assert json.loads(dict(RE_PARAM.findall(line))["Multipass"]) == values["Multipass"]
