"""What the host's bar says while a plan is rendered."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest

from tests.webui.asking import REQUEST, a_then_b, clear_cache, hires, plan
from tests.webui.host import Webui

TEXT = re.compile(
    r"Pass (?P<number>\d+) of (?P<passes>\d+)(?:: (?P<name>[^,]+))?, "
    r"(?P<doing>step (?P<step>\d+)/(?P<steps>\d+)|[a-z ]+)(?:, (?P<left>[0-9a-z ]+) left)?"
)
REFINED = plan(
    {"name": "composition", "checkpoint": "soft"},
    {"name": "style", "checkpoint": "ink", "switch_at": 0.5},
    {"name": "photo", "kind": "refine", "denoising_strength": 0.5, "steps": 4, "scale": 2, "upscaler": "Lanczos"},
)


def texts(webui: Webui, **request: Any) -> list[dict[str, str]]:
    """What was told of one request, taken apart."""
    webui.generate(**{**REQUEST, **request})
    found = [TEXT.fullmatch(text) for text in webui.state()["texts"]]
    assert all(found), webui.state()["texts"]
    return [match.groupdict() for match in found if match]


def test_every_pass_is_named_and_what_it_does(webui: Webui) -> None:
    clear_cache(webui)
    told = texts(webui, plan=REFINED)
    assert {text["passes"] for text in told} == {"3"}
    names = {("1", "composition"), ("2", "style"), ("3", "photo")}
    assert {(text["number"], text["name"]) for text in told} == names
    doing = [(text["number"], text["doing"].split()[0]) for text in told]
    for wanted in [("2", "reading"), ("1", "step"), ("2", "loading"), ("2", "step"), ("3", "upscaling"), ("3", "step")]:
        assert wanted in doing
    sampled = [int(number) for number, what in doing if what == "step"]
    assert sampled == sorted(sampled)
    assert doing[-1] == ("3", "decoding")
    steps = {(text["number"], text["steps"]) for text in told if text["step"]}
    assert steps == {("1", "5"), ("2", "5"), ("3", "4")}, "of each pass, not of all"
    assert webui.get("/sdapi/v1/progress")["textinfo"] is None, "it is over"


def test_the_second_time_it_says_how_long(webui: Webui) -> None:
    webui.generate(plan=REFINED, **REQUEST)
    told = texts(webui, plan=REFINED, n_iter=2)
    assert all(text["left"] for text in told)
    paces = json.loads((webui.data / "multipass" / "timings.json").read_text())["paces"]
    assert any(key.startswith("sample|ink") and key.endswith(f"|{256 * 128}") for key in paces)


def test_the_hires_fix_is_a_pass(webui: Webui) -> None:
    told = texts(webui, plan=a_then_b(0.5), **hires(webui))
    assert {text["passes"] for text in told} == {"3"}
    own = [text for text in told if text["number"] == "3"]
    assert own[0]["name"] == "Hires fix"
    assert {text["steps"] for text in own if text["step"]} == {"4"}


@pytest.mark.parametrize(("at", "number", "step", "done"), [(3, 1, 3, 0.03), (8, 2, 3, 0.25), (12, 3, 2, 0.5)])
def test_the_api_tells_it_while_it_is_rendered(webui: Webui, at: int, number: int, step: int, done: float) -> None:
    """``done``: of all samplings, at least."""
    webui.generate(plan=REFINED, **REQUEST)
    webui.arm(kind="wait", at=at)
    thread = threading.Thread(target=webui.try_generate, kwargs={"plan": REFINED, **REQUEST})
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while len(webui.state()["evaluations"]) < at and time.monotonic() < deadline:
            time.sleep(0.02)
        told = webui.get("/sdapi/v1/progress?skip_current_image=true")
    finally:
        webui.post("/probe/go", {})
        thread.join()
    match = TEXT.fullmatch(told["textinfo"])
    assert match
    assert int(match["number"]) == number
    assert int(match["step"]) <= step
    assert match["left"]
    assert done < told["progress"] < 1
    assert told["state"]["job_count"] == 2, "two samplings"


def test_without_a_plan_nothing_is_said(webui: Webui) -> None:
    webui.generate(**REQUEST)
    assert webui.state()["texts"] == []


def test_a_damaged_record_of_times_is_no_obstacle(webui: Webui) -> None:
    file = webui.data / "multipass" / "timings.json"
    webui.generate(plan=REFINED, **REQUEST)
    file.write_text("{")
    told = texts(webui, plan=REFINED)
    assert told[0]["left"] is None
    assert json.loads(file.read_text())["paces"]
