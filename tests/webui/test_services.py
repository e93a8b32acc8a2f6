"""What the panel asks the server, on the real host."""

from __future__ import annotations

import shutil
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.webui.asking import REQUEST, a_then_b, alone, b64, clear_cache, plan, runs, settings
from tests.webui.host import ROOT, Webui
from tests.webui.test_api import validate
from tests.webui.test_subject import MASK

REFINED = plan(
    {"name": "a", "checkpoint": "soft"},
    {"name": "off", "enabled": False, "switch_at": 0.1},
    {"name": "b", "checkpoint": "ink", "switch_at": 0.3},
    {"name": "c", "kind": "refine", "denoising_strength": 0.5, "steps": 6, "checkpoint": "soft"},
    {"name": "d", "switch_at": 3, "switch_unit": "step", "checkpoint": "ink"},
)


def test_validate_tells_of_every_pass_where_it_is_and_where_it_could_begin(webui: Webui) -> None:
    answer = validate(webui, REFINED, steps=10, sampler_name="Euler")
    size = {"width": 512, "height": 512}
    assert answer["trajectories"] == [{"steps": 10, **size}, {"steps": 6, **size}]
    places = [(own["name"], own["index"], own["trajectory"]) for own in answer["passes"]]
    assert places == [("a", 0, 0), ("b", 2, 0), ("c", 3, 1), ("d", 4, 1)]
    ranges = [(own["first_step"], own["end_step"]) for own in answer["passes"]]
    assert ranges == [(0, 3), (3, 10), (0, 3), (3, 6)]
    assert ["switch_at" in own for own in answer["passes"]] == [False, True, False, True]
    assert answer["passes"][1]["switch_at"] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert answer["passes"][3]["switch_at"] == [0, 1, 2, 3, 4, 5, 6]
    assert answer["warnings"] == []


@pytest.mark.parametrize("unit", ["steps", "timestep", "sigma", "step"])
@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM++ SDE", "DDIM", "DPM fast"])
@pytest.mark.parametrize("img2img", [False, True])
def test_each_of_these_values_begins_at_its_step(webui: Webui, unit: str, sampler: str, img2img: bool) -> None:
    asked = {"steps": 7, "sampler_name": sampler, "img2img": img2img}
    told = validate(webui, a_then_b(0, unit), **asked)
    count = told["trajectories"][0]["steps"]
    points = told["passes"][1]["switch_at"]
    assert len(points) == count + 1
    for step, at in enumerate(points):
        again = validate(webui, a_then_b(at, unit), **asked)["passes"]
        assert [(own["first_step"], own["end_step"]) for own in again] == [(0, step), (step, count)]


def test_a_pass_without_a_step_is_warned_of(webui: Webui) -> None:
    def warned(at: float) -> list[dict[str, str]]:
        return validate(webui, a_then_b(at), steps=8, sampler_name="Euler")["warnings"]

    assert warned(1) == [{"path": "passes[1].switch_at", "message": "Pass 2 gets no step and is left out"}]
    assert warned(0) == [{"path": "passes[0]", "message": "Pass 1 gets no step and is left out"}]
    enlarging = plan(
        {}, {"kind": "refine", "denoising_strength": 0, "scale": 1.25}, {"switch_at": 0.5, "checkpoint": "ink"}
    )
    answer = validate(webui, enlarging, steps=8, sampler_name="Euler")
    size, enlarged = {"width": 512, "height": 512}, {"width": 640, "height": 640}
    assert answer["trajectories"] == [{"steps": 8, **size}, {"steps": 0, **enlarged}]
    for unknown in ({"img2img": True}, {"enable_hr": True}):
        answer = validate(webui, enlarging, steps=8, sampler_name="Euler", **unknown)
        assert all(own.keys() == {"steps"} for own in answer["trajectories"])
    assert [warning["path"] for warning in answer["warnings"]] == ["passes[2].switch_at"]
    assert answer["passes"][2]["switch_at"] == [1]


def test_what_is_not_used_here_is_warned_of(webui: Webui) -> None:
    warnings = validate(webui, plan({}, request={"steps": 3}))["warnings"]
    assert [warning["path"] for warning in warnings] == ["request"]


def test_a_prompt_that_no_pass_uses_is_warned_of(webui: Webui) -> None:
    own = plan({"prompt": "a"}, {"prompt": "b", "switch_at": 0.5}, common={"prompt": "a fox"})
    assert [warning["path"] for warning in validate(webui, own)["warnings"]] == ["passes[0].prompt"]
    assert validate(webui, plan({}, own["passes"][1]))["warnings"] == []
    person = {"kind": "subject", "target": "person", "denoising_strength": 0.5, "prompt": "b"}
    divided = plan({"prompt": "a"}, person, prompt_syntax="scene-break")
    assert validate(webui, divided)["warnings"] == [], "the prompt, which is not told, has a part for all"


@pytest.mark.parametrize(
    ("passes", "alike"),
    [
        ([{}, {"switch_at": 0.5}], True),
        ([{"checkpoint": "soft"}, {"switch_at": 0.3}, {"switch_at": 0.5, "enabled": False}], True),
        ([{"cfg_scale": 3, "prompt": "b"}, {"switch_at": 0.5, "cfg_scale": 3}], True),
        ([{}, {"switch_at": 0.5, "checkpoint": "soft"}], True),
        ([{}, {"switch_at": 0.5, "checkpoint": "ink"}, {"switch_at": 0.7, "checkpoint": "soft"}], False),
        ([{}, {"switch_at": 0.5, "prompt": "a"}], False),
        ([{}, {"switch_at": 0.5, "negative_prompt": ""}], False),
        ([{}, {"switch_at": 0.5, "cfg_scale": 3}], False),
        ([{}, {"kind": "refine", "denoising_strength": 0.5}], False),
        ([{}, {"switch_at": 0.5, "checkpoint": "ink", "enabled": False}], False),
    ],
)
def test_passes_that_all_do_the_same_are_warned_of(webui: Webui, passes: list[dict[str, Any]], alike: bool) -> None:
    warnings = [own for own in validate(webui, plan(*passes))["warnings"] if "do the same" in own["message"]]
    last = max(index for index, own in enumerate(passes) if own.get("enabled", True))
    assert [own["path"] for own in warnings] == [f"passes[{last}].checkpoint"] * alike


def test_the_refiner_beside_a_plan_is_refused(webui: Webui) -> None:
    answer = validate(webui, plan({}), refiner_checkpoint="ink")
    assert [error["path"] for error in answer["errors"]] == ["refiner_checkpoint"]
    assert answer["warnings"] == []
    assert validate(webui, plan({}), refiner_checkpoint="None")["ok"]


def test_the_cost_is_what_is_kept_and_what_would_be_read(webui: Webui) -> None:
    webui.generate(**REQUEST)
    clear_cache(webui)

    def costs(own: dict[str, Any]) -> list[tuple[str, list[int], str]]:
        listed = validate(webui, own)["cost"]["checkpoints"]
        assert all(cost["nbytes"] > 1e6 for cost in listed)
        return [(cost["checkpoint"].split(" [")[0], cost["passes"], cost["source"]) for cost in listed]

    three = plan({}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "soft", "switch_at": 0.6})
    assert costs(three) == [("soft", [0, 2], "resident"), ("ink", [1], "disk")]
    assert costs(a_then_b(1)) == [("soft", [0], "resident")], "what gets no step is not read"
    assert runs(webui.generate(plan=three, **REQUEST))[1][0] == "ink"
    assert costs(three) == [("soft", [0, 2], "resident"), ("ink", [1], "ram")]


def test_the_cost_says_whether_there_is_room(webui: Webui) -> None:
    webui.generate(**REQUEST)
    clear_cache(webui)
    answer = validate(webui, a_then_b(0.5))
    needed = sum(cost["nbytes"] for cost in answer["cost"]["checkpoints"])
    ram = answer["cost"]["ram"]
    assert (ram["needed_bytes"], ram["fits"], answer["cost"]["vram"]) == (needed, True, None)
    with settings(webui, multipass_ram_budget_gb=0.9 * needed / 2**30):
        answer = validate(webui, a_then_b(0.5))
        assert answer["cost"]["ram"] == {"needed_bytes": needed, "budget_bytes": int(0.9 * needed), "fits": False}
        assert "what has no room is read from disk again" in answer["warnings"][0]["message"]
        if webui.install.host != "reforge":  # whose own setting, here, has it keep them
            assert read_by(webui, a_then_b(0.5), a_then_b(0.5))[1] > 0
    assert read_by(webui, a_then_b(0.5), a_then_b(0.5))[1] == 0, "where all have room"


def read_by(webui: Webui, *plans: dict[str, Any]) -> list[int]:
    """The bytes that were read from disk for each of these, one after the other."""
    read = [webui.get("/multipass/v1/cache")["bytes_read"]]
    for own in plans:
        webui.generate(plan=own, **REQUEST)
        read.append(webui.get("/multipass/v1/cache")["bytes_read"])
    return [after - before for before, after in pairwise(read)]


def test_the_bytes_are_those_that_are_then_kept(webui: Webui) -> None:
    if webui.install.host == "reforge":
        pytest.skip("its own setting, here, has it keep its models")
    webui.generate(**REQUEST)
    clear_cache(webui)
    told = validate(webui, a_then_b(0.5))["cost"]["checkpoints"][1]["nbytes"]
    webui.generate(plan=a_then_b(0.5), **REQUEST)
    entries = webui.get("/multipass/v1/cache")["entries"]
    kept = sum(entry["nbytes"] for entry in entries if entry["checkpoint"].startswith("ink"))
    assert told == pytest.approx(kept, rel=0.01)


# --- choices and texts ---------------------------------------------------------------------------------------------


def test_the_choices_are_names_that_a_plan_takes(webui: Webui) -> None:
    found = webui.get("/multipass/v1/choices")
    assert {"soft", "ink"} <= {title.split(" [")[0] for title in found["checkpoints"]}
    assert {"name": "Latent", "latent": True} in found["upscalers"]
    assert {"name": "Lanczos", "latent": False} in found["upscalers"]
    assert "DPM adaptive" not in found["samplers"]
    assert bool(found["vaes"]) == (webui.install.host == "a1111")
    own = {"kind": "refine", "denoising_strength": 0.5, "scale": 1.25}
    for name in found["samplers"]:
        answer = validate(webui, plan({}, {**own, "sampler_name": name}), sampler_name="Euler")
        if webui.install.host == "reforge" and not answer["ok"]:  # some need what only a picture in the making has
            assert answer["errors"][0]["message"].startswith(f"multipass cannot switch inside {name}")
        else:
            assert answer["ok"], name
    ways = [{"scheduler": name} for name in found["schedulers"]]
    ways += [{"upscaler": upscaler["name"]} for upscaler in found["upscalers"]]
    ways += [{"checkpoint": title} for title in found["checkpoints"]]
    for way in ways:
        assert validate(webui, plan({}, {**own, **way}), sampler_name="Euler")["ok"], way
    for name in found["vaes"]:
        assert validate(webui, plan({"vae": name}))["ok"], name


def test_the_choices_are_looked_for_anew_when_that_is_asked(webui: Webui, models: Any) -> None:
    file = models[0] / "brand-new.safetensors"
    file.write_bytes((models[0] / "ink.safetensors").read_bytes())

    def listed(query: str = "") -> bool:
        return any("brand-new" in title for title in webui.get(f"/multipass/v1/choices{query}")["checkpoints"])

    try:
        assert not listed()
        assert listed("?refresh=1")
    finally:
        file.unlink()
    assert not listed("?refresh=1")


def test_files_of_one_name_are_told_apart(webui: Webui, models: Any) -> None:
    files = {kind: models[0] / kind / "twin.safetensors" for kind in ("soft", "ink")}
    try:
        for kind, file in files.items():
            file.parent.mkdir()
            shutil.copyfile(models[0] / f"{kind}.safetensors", file)
        titles = [title for title in webui.get("/multipass/v1/choices?refresh=1")["checkpoints"] if "twin" in title]
        assert len(set(titles)) == 2
        for kind in files:
            own = plan({"checkpoint": next(title for title in titles if title.startswith(kind))})
            for _ in range(2):  # the host hashes the file meanwhile
                assert webui.generate(plan=own, **REQUEST).same_picture(alone(webui, kind))
    finally:
        for file in files.values():
            shutil.rmtree(file.parent)
        webui.get("/multipass/v1/choices?refresh=1")


def test_the_texts_are_each_pass_s_whole_ones(webui: Webui) -> None:
    texts = plan(
        {"prompt": "lines", "prompt_mode": "append"},
        {"switch_at": 0.5, "enabled": False},
        {"switch_at": 0.5, "negative_prompt": "blur"},
        common={"prompt": "a lake"},
    )
    asked = {"plan": texts, "prompt": "a fox", "negative_prompt": "a bus"}
    told = webui.post("/multipass/v1/texts", asked).json()["passes"]
    assert told == [
        {"index": 0, "prompt": "a fox, lines, a lake", "negative_prompt": "a bus"},
        {"index": 2, "prompt": "a fox, lines, a lake", "negative_prompt": "blur"},
    ]


def test_tokens_are_counted_as_the_host_does(webui: Webui) -> None:
    texts = ["", "a fox", "a fox <lora:inky:1>", "[a:a b c:0.5]", "fox " * 80]
    found = webui.post("/multipass/v1/tokens", {"texts": texts, "steps": 10}).json()["tokens"]
    assert [own["count"] for own in found] == [0, 2, 2, 3, 80]
    assert [own["limit"] for own in found] == [75, 75, 75, 75, 150]
    for negative, count in ((False, 1), (True, 3)):
        body = {"texts": ["fox AND bus"], "negative": negative}
        assert webui.post("/multipass/v1/tokens", body).json()["tokens"][0]["count"] == count


@pytest.mark.parametrize(
    ("endpoint", "body", "path", "message"),
    [
        ("texts", {"plan": a_then_b(2)}, "passes[1].switch_at", "expected a number from 0 to 1, got 2"),
        ("texts", {}, "plan", "required"),
        ("tokens", {"texts": "a fox"}, "texts", "expected"),
        ("tokens", {"texts": [], "step": 1}, "step", "unknown field"),
    ],
)
def test_what_is_refused_is_told_with_its_place(
    webui: Webui, endpoint: str, body: dict[str, Any], path: str, message: str
) -> None:
    answer = webui.post(f"/multipass/v1/{endpoint}", body)
    assert answer.status_code == 422
    error = answer.json()["errors"][0]
    assert error["path"] == path
    assert error["message"].startswith(message)


# --- presets -------------------------------------------------------------------------------------------------------

MINE = plan({"name": "a", "checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.5, "prompt": "füchse"})


def preset(webui: Webui, method: str, name: str, body: Any = None) -> requests.Response:
    url = f"{webui.url}/multipass/v1/presets/{quote(name, safe='')}"
    return requests.request(method, url, json=body, timeout=60)


def listed(webui: Webui) -> list[str]:
    return [own["name"] for own in webui.get("/multipass/v1/presets")["presets"] if not own["shipped"]]


def test_a_preset_is_saved_listed_given_back_replaced_and_deleted(webui: Webui) -> None:
    name = "Füchse, 2. Fassung"
    assert preset(webui, "PUT", name, MINE).status_code == 201
    assert preset(webui, "PUT", name, MINE).status_code == 200
    assert listed(webui) == [name]
    assert preset(webui, "GET", name).json() == MINE
    assert (webui.data / "multipass/presets" / f"{name}.json").is_file()
    assert preset(webui, "DELETE", name).status_code == 200
    assert listed(webui) == []
    for method in ("GET", "DELETE"):
        answer = preset(webui, method, name)
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["message"] == f'there is no preset "{name}"'


def test_a_preset_of_other_case_is_the_same(webui: Webui) -> None:
    assert preset(webui, "PUT", "Mine", MINE).status_code == 201
    other = plan({"checkpoint": "ink"})
    assert preset(webui, "PUT", "mine", other).status_code == 200
    assert listed(webui) == ["mine"]
    assert preset(webui, "DELETE", "Mine").status_code == 404
    assert preset(webui, "GET", "mine").json() == other
    assert preset(webui, "DELETE", "mine").status_code == 200


def test_what_the_file_system_refuses_is_told_as_all_is(webui: Webui) -> None:
    in_the_way = webui.data / "multipass/presets/mine.json"
    in_the_way.mkdir(parents=True)
    try:
        for method in ("GET", "PUT", "DELETE"):
            answer = preset(webui, method, "mine", MINE)
            assert answer.status_code == 500
            assert [error["path"] for error in answer.json()["errors"]] == [""]
            assert "mine.json" in answer.json()["errors"][0]["message"]
    finally:
        in_the_way.rmdir()


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "a\\b", ".hidden", "CON", "x" * 300])
def test_c24_a_preset_s_name_has_no_path_in_it(webui: Webui, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = preset(webui, method, name, MINE)
        if name == "..":  # the client goes up by itself
            assert answer.status_code in (404, 405, 422)
        else:
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["path"] == "name"
    assert listed(webui) == []


def test_a_preset_is_a_plan(webui: Webui) -> None:
    answer = preset(webui, "PUT", "mine", a_then_b(1.5))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "passes[1].switch_at"
    assert listed(webui) == []


def shipped() -> list[str]:
    return [path.stem for path in sorted((ROOT / "multipass/shipped_presets").iterdir())]


def test_what_comes_along_is_described_and_stays(webui: Webui) -> None:
    told = {own["name"]: own["description"] for own in webui.get("/multipass/v1/presets")["presets"] if own["shipped"]}
    assert sorted(told) == shipped()
    assert all(told.values())
    for method in ("PUT", "DELETE"):
        assert preset(webui, method, "Toon to photo", MINE).status_code == 409


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
@pytest.mark.parametrize("name", shipped())
def test_what_comes_along_is_accepted_and_renders(webui: Webui, picture: str, name: str, kind: str) -> None:
    own = preset(webui, "GET", name).json()
    for place, checkpoint in zip(own["passes"], ("soft", "ink", "soft", "ink"), strict=False):
        place["checkpoint"] = checkpoint
        if "target" in place:  # whatever finds it: there is nobody in these pictures
            place.pop("target")
            place["mask"] = b64(MASK)
    asked = {"steps": 8, "sampler_name": "Euler", "width": 128, "height": 64, "denoising_strength": 0.7}
    answer = validate(webui, own, img2img=kind == "img2img", **asked)
    assert answer["ok"]
    unused = ["passes[0].prompt"] if name == "Pony to Animagine" else []  # whose common text has what it shows
    assert [warning["path"] for warning in answer["warnings"]] == unused
    more = {"init_images": [picture]} if kind == "img2img" else {}
    if "prompt_syntax" in own:
        more["prompt"] = "a red apple BREAK a photograph BREAK a fox"
    ran = webui.generate(kind, plan=own, **{**REQUEST, **asked, **more})
    counts = [told["end_step"] - told["first_step"] for told in answer["passes"]]
    assert runs(ran) == list(zip(("soft", "ink", "soft", "ink"), counts, strict=False))
