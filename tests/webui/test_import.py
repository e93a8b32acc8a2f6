"""Plans out of prompts with editing by hand, of pictures and of files, on the real host."""

from __future__ import annotations

import base64
import io
import json
from itertools import pairwise
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.webui.asking import REQUEST, a_then_b, asking_for, plan
from tests.webui.asking import settings as options
from tests.webui.host import Webui
from tests.webui.samplers import SAMPLERS
from tests.webui.test_refine import furthest


def imported(webui: Webui, prompt: str, negative: str = "", **more: Any) -> list[dict[str, Any]]:
    body = {"prompt": prompt, "negative_prompt": negative, "steps": 10, **more}
    answer = webui.post("/multipass/v1/import/prompt", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["switch_unit"] == "steps"
    return answer.json()["passes"]


# --- prompt editing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "texts", "begins"),
    [
        ("a fox", ["a fox"], []),
        ("a [fox:cat:0.5]", ["a fox", "a cat"], [6]),
        ("a [fox:cat:.25]", ["a fox", "a cat"], [3]),
        ("a [fox:cat:4]", ["a fox", "a cat"], [5]),
        ("a fox[ in snow:0.3]", ["a fox", "a fox in snow"], [4]),
        ("a fox[ in snow::3]", ["a fox in snow", "a fox"], [4]),
        ("[a:b:2] [c:d:0.7]", ["a c", "b c", "b d"], [3, 8]),
        ("a[b:[c:d:5]:2]e", ["abe", "ace", "ade"], [3, 6]),
        ("[a:[b:c:3]:7]", ["a", "c"], [8]),
        ("(a [b:c:0.5]:1.2), [d|e], [f], \\\\[g:h:3\\\\]", ["(a b:1.2), [d|e], [f], \\\\[g:h:3\\\\]",
                                                          "(a c:1.2), [d|e], [f], \\\\[g:h:3\\\\]"], [6]),
        ("[[a:b:5]|c|]", ["[a|c|]", "[b|c|]"], [6]),
        ("[a:b:5] AND [c:d:5] :0.5", ["a AND c :0.5", "b AND d :0.5"], [6]),
        ("[a:b:0] [c:d:10] [e:f:9] [g:h:0.95] [i:j:-1]", ["b c e g j"], []),
        ("a [b:c", ["a [b:c"], []),
    ],
)  # fmt: skip
def test_editing_is_passes(webui: Webui, prompt: str, texts: list[str], begins: list[int]) -> None:
    prompt, texts = prompt.replace("\\\\", "\\"), [text.replace("\\\\", "\\") for text in texts]
    passes = imported(webui, prompt)
    assert [own["prompt"] for own in passes] == texts
    assert [first_step(own["switch_at"], 10) for own in passes[1:]] == begins
    assert "switch_at" not in passes[0]
    assert [own["negative_prompt"] for own in imported(webui, "", prompt)] == texts


def test_both_texts_change_their_passes_together(webui: Webui) -> None:
    passes = imported(webui, "[a:b:0.5]", "[c:d:0.5] [e:f:0.8]")
    told = [(own["prompt"], own["negative_prompt"], own.get("switch_at")) for own in passes]
    assert told == [("a", "c e", None), ("b", "d e", 0.51), ("b", "d f", 0.81)]


def test_a_network_holds_for_the_whole_picture_as_by_hand(webui: Webui) -> None:
    passes = imported(webui, "[<lora:inky:0.5>a:b:0.5], c")
    assert [own["prompt"] for own in passes] == ["a, c<lora:inky:0.5>", "b, c<lora:inky:0.5>"]


def test_more_than_a_plan_may_have_is_refused(webui: Webui) -> None:
    prompt = "".join(f"[a{i}:b{i}:{i}]" for i in range(1, 17))
    body = {"prompt": prompt, "steps": 20}
    answer = webui.post("/multipass/v1/import/prompt", body)
    assert answer.status_code == 422
    assert "more than 15 times" in answer.json()["errors"][0]["message"]
    assert len(imported(webui, prompt.replace("[a16:b16:16]", ""), steps=20)) == 16


def first_step(at: float, steps: int, per_step: int = 1) -> int:
    return next((i for i in range(steps) if i * per_step / (steps * per_step) >= at), steps)


words = st.sampled_from(["a", "fox ", "cat, ", " ", "red", "\\\\(", "x:", ":", "[", "]", "(", ")", "|", "1"])
numbers = st.integers(-1, 22).map(str) | st.sampled_from(["0.5", ".25", "0.0", "1.0", "0.33", "0.96", "2.5"])
prompts = st.recursive(
    words,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.builds("[{}:{}:{}]".format, inner, inner, numbers),
        st.builds("[{}:{}]".format, inner, numbers),
        st.builds("[{}::{}]".format, inner, numbers),
        st.builds("[{}|{}]".format, inner, inner),
        st.builds("({}:1.2)".format, inner),
        st.builds("[{}]".format, inner),
        st.builds("{} AND {} :0.7".format, inner, inner),
    ),
    max_leaves=8,
)


def at(schedules: Any, evaluation: int) -> list[Any]:
    return [[weight, next(text for end, text in own if evaluation <= end)] for weight, own in schedules]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts, prompts, st.integers(1, 20), st.sampled_from([("Euler", 1), ("Heun", 2)]))
def test_the_passes_are_read_as_the_whole_is(
    webui: Webui, prompt: str, negative: str, steps: int, sampler: tuple[str, int]
) -> None:
    """At every evaluation; where a step is asked for twice, at the first one. Or it is refused, and that is rare."""
    name, per_step = sampler
    body = {"prompt": prompt, "negative_prompt": negative, "steps": steps, "sampler_name": name}
    answer = webui.post("/multipass/v1/import/prompt", body)
    if answer.status_code == 422:
        message = answer.json()["errors"][0]["message"]
        assert message.startswith(("the webui would read", "these texts change"))
        return
    passes = answer.json()["passes"]
    assert all(one != other for one, other in pairwise(passes))
    begins = [0, *(first_step(own["switch_at"], steps) for own in passes[1:])]
    assert begins == sorted(begins)

    def read(texts: dict[str, Any]) -> Any:
        asked = {name: texts[name] for name in ("prompt", "negative_prompt")}
        return webui.post("/probe/schedules", {**asked, "steps": steps * per_step}).json()

    whole, parts = read(body), [read(own) for own in passes]
    for step in range(steps):
        holds = max(index for index, begin in enumerate(begins) if begin <= step)
        # by hand it changes within a step, too: then the pass begins with the next
        assert at(parts[holds], step * per_step) == at(whole, step * per_step)


BY_HAND = [
    ("[a red apple:a bus:0.5]", "an owl"),
    ("a red apple[ and a star:3]", "[an owl:a fox:0.7]"),
    ("[a red apple<lora:inky:1>:a bus:0.3] [snow|rain], ([white:blue:6]:1.2)", "[an owl::4]"),
    ("[a red apple:a bus:5] AND a star :0.5", ""),
]


@pytest.mark.parametrize("texts", BY_HAND, ids=["one", "both", "tags", "and"])
@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M Karras", "DDIM"])
def test_c4_the_passes_are_the_picture_that_editing_by_hand_makes(
    webui: Webui, sampler: str, texts: tuple[str, str]
) -> None:
    """Emphasis as the host has it by default makes up for the mean of all texts that it encodes at once, which by hand
    are others."""
    own = next(known for known in SAMPLERS if str(known) == sampler)
    with options(webui, emphasis="No norm"):
        compare(webui, asking_for(webui, own), *texts)


@pytest.mark.parametrize("sampler", ["Heun", "DPM2 a", "DPM++ SDE"])
def test_c4_where_a_step_is_asked_for_twice(webui: Webui, sampler: str) -> None:
    """At a boundary of steps; a whole number counts what is asked."""
    own = next(known for known in SAMPLERS if known.request(webui.install.host)["sampler_name"] == sampler)
    compare(webui, asking_for(webui, own), "[a red apple:a bus:9]", "[an owl:a fox:13]")


@pytest.mark.parametrize("old", [False, True])
def test_c4_by_either_reading_of_numbers(webui: Webui, old: bool) -> None:
    with options(webui, use_old_scheduling=old) if webui.install.host == "a1111" else options(webui):
        compare(webui, REQUEST, "[a red apple:a bus:0.45]", "[an owl:a fox:6.0]")


def compare(webui: Webui, request: dict[str, Any], prompt: str, negative: str) -> None:
    by_hand = webui.generate(**{**request, "prompt": prompt, "negative_prompt": negative})
    passes = imported(webui, prompt, negative, steps=request["steps"], sampler_name=request["sampler_name"])
    assert len(passes) > 1
    ours = webui.generate(plan=plan(*passes, switch_unit="steps"), **request)
    assert ours.same_picture(by_hand)
    unedited = webui.generate(**{**request, **{name: passes[0][name] for name in ("prompt", "negative_prompt")}})
    assert furthest(unedited.pixels[0], by_hand.pixels[0]) > 0


# --- files ---------------------------------------------------------------------------------------------------------

MINE = plan(
    {"checkpoint": "soft"},
    {"name": "b", "checkpoint": "ink", "switch_at": 0.5, "prompt": 'a "fox", <lora:inky:1>: 1\nand more'},
)


def file(webui: Webui, content: bytes) -> requests.Response:
    return requests.post(f"{webui.url}/multipass/v1/import/file", data=content, timeout=60)


def test_a_picture_gives_its_plan_back(webui: Webui) -> None:
    answer = webui.try_generate(plan=MINE, **REQUEST)
    encoded = base64.b64decode(answer.json()["images"][0])
    told = file(webui, encoded).json()["plan"]
    assert [own["checkpoint"].split(" [")[0] for own in told["passes"]] == ["soft", "ink"]
    assert {**told["passes"][1], "checkpoint": "ink"} == MINE["passes"][1]
    again = webui.generate(plan=told, **REQUEST)
    assert again.same_picture(webui.generate(plan=MINE, **REQUEST))


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_other_pictures_that_the_host_writes_do_too(webui: Webui, kind: str) -> None:
    with options(webui, samples_format=kind, samples_save=True):
        webui.generate(plan=MINE, save_images=True, **REQUEST)
    saved = max(webui.data.rglob(f"*.{kind}"), key=lambda path: path.stat().st_mtime_ns)  # of this test
    told = file(webui, saved.read_bytes()).json()["plan"]
    assert told["passes"][1]["prompt"] == MINE["passes"][1]["prompt"]


def test_a_manifest_a_preset_and_a_plan_give_it_back(webui: Webui) -> None:
    webui.generate(plan=MINE, **REQUEST)
    manifest = webui.get("/multipass/v1/runs/latest")
    assert file(webui, json.dumps(manifest).encode()).json()["plan"] == manifest["plan"]
    assert file(webui, b"\xef\xbb\xbf\n " + json.dumps(MINE).encode()).json()["plan"] == MINE


TIFF = b"Exif\0\0MM\0*"
COMMENT_OF_NUMBERS = (
    TIFF
    + b"\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0"
    + b"\0\x01\x92\x86\0\x03\0\0\0\x02\0\x01\0\x02\0\0\0\0"
)


def a_picture(kind: str = "PNG", **more: Any) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, kind, **more)
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b"", "", "neither JSON nor a picture"),
        (b"\x89PNG\r\n\x1a\n", "", "neither JSON nor a picture"),
        (a_picture("JPEG", exif=TIFF + b"\x7f\0\0\0"), "", "neither JSON nor a picture"),  # points nowhere
        (a_picture("JPEG", exif=COMMENT_OF_NUMBERS), "", "neither JSON nor a picture"),
        (a_picture(), "", "this picture was not made by a plan"),
        (json.dumps(a_then_b(1.5)).encode(), "passes[1].switch_at", "expected a number from 0 to 1, got 1.5"),
        (json.dumps({"plan": a_then_b(1.5)}).encode(), "passes[1].switch_at", "expected a number from 0 to 1"),
        (b"{", "", "not JSON"),
        (b'{"plan": 3}', "", "expected an object, got 3"),
        (b"\xff\xfe{}", "", "neither JSON nor a picture"),
    ],
)
def test_what_is_no_plan_is_told_so(webui: Webui, content: bytes, path: str, message: str) -> None:
    answer = file(webui, content)
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["path"] == path
    assert error["message"].startswith(message)
