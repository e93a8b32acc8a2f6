"""The endpoints under /multipass/v1/ on the real host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from tests.webui.asking import REQUEST, a_then_b, asking_for, plan, runs
from tests.webui.conftest import EXTENSIONS
from tests.webui.host import Install, Webui, running
from tests.webui.samplers import SAMPLERS, Sampler

THREE = plan({"name": "a"}, {"name": "b", "checkpoint": "ink", "switch_at": 0.3}, {"name": "c", "switch_at": 0.75})


def validate(webui: Webui, plan: Any, **request: Any) -> dict[str, Any]:
    answer = webui.post("/multipass/v1/validate", {"plan": plan, **request})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_schema_describes_what_is_accepted(webui: Webui) -> None:
    schema = webui.get("/multipass/v1/schema")
    jsonschema.validate(THREE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**THREE, "pases": []}, schema)


@pytest.mark.parametrize("img2img", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_c8_validate_announces_the_steps_that_then_run(
    webui: Webui, picture: str, sampler: Sampler, img2img: bool
) -> None:
    asking_for(webui, sampler)
    ways = {"denoising_strength": 0.7} if img2img else {}
    asked = {"steps": 12, **sampler.request(webui.install.host), **ways}
    answer = validate(webui, THREE, img2img=img2img, **asked)
    assert answer["ok"]
    more = {"init_images": [picture]} if img2img else {}
    ran = webui.generate("img2img" if img2img else "txt2img", plan=THREE, **{**REQUEST, **asked, **more})
    ranges = [(own["first_step"] + 1, own["end_step"]) for own in answer["passes"]]
    spans = [f"{first}-{last}" if first < last else f"{last}" for first, last in ranges if first <= last]
    assert all(f"] {span}" in ran.infotexts[0] for span in spans), (spans, ran.infotexts[0])
    assert [own["name"] for own in answer["passes"]] == ["a", "b", "c"]


def test_a_pass_without_a_step_has_an_empty_range(webui: Webui) -> None:
    passes = validate(webui, a_then_b(1), steps=8, sampler_name="Euler")["passes"]
    assert [(own["first_step"], own["end_step"]) for own in passes] == [(0, 8), (8, 8)]
    passes = validate(webui, a_then_b(0), steps=8, sampler_name="DPM++ 2M Karras")["passes"]
    assert [(own["first_step"], own["end_step"]) for own in passes] == [(0, 0), (0, 8)]


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"plan": a_then_b(1.5)}, "passes[1].switch_at", "expected a number from 0 to 1, got 1.5"),
        ({"plan": plan({"checkpoint": "none"})}, "passes[0].checkpoint", "the webui lists no checkpoint"),
        ({"plan": THREE, "steps": 0}, "steps", "expected a whole number from 1 to 1000, got 0"),
        ({"plan": THREE, "sampler_name": "Oiler"}, "sampler_name", 'the webui has no sampler "Oiler"'),
        ({"plan": THREE, "sampler_name": "DPM adaptive"}, "sampler_name", "multipass cannot switch inside"),
        ({"plan": THREE, "stepps": 2}, "stepps", "unknown field"),
        ({}, "plan", "required"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(webui: Webui, body: dict[str, Any], path: str, message: str) -> None:
    answer = webui.post("/multipass/v1/validate", body).json()
    assert not answer["ok"]
    assert answer["errors"][0]["path"] == path
    assert answer["errors"][0]["message"].startswith(message)


def test_asking_renders_nothing_and_changes_nothing(webui: Webui) -> None:
    webui.arm()
    before = webui.circumstances()
    assert validate(webui, THREE)["ok"]
    assert webui.circumstances() == before
    assert webui.state()["evaluations"] == webui.state()["loads"] == []
    assert runs(webui.generate(plan=THREE, **REQUEST))[0] == ("soft", 3)


@pytest.fixture(scope="module")
def locked(install: Install, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """A host that wants credentials, for its API and for its page."""
    folder, config = models
    data = tmp_path_factory.mktemp("locked") / "data"
    locks = ("--api-auth", "ann:one,bob:two", "--gradio-auth", "eve:three")
    with running(install, data, folder, config, EXTENSIONS, *locks) as host:
        yield host


@pytest.mark.parametrize(
    ("credentials", "status"),
    [(None, 401), (("ann", "wrong"), 401), (("eve", "three"), 401), (("ann", "one"), 200), (("bob", "two"), 200)],
)
def test_api_auth_opens_the_endpoints(locked: Webui, credentials: Any, status: int) -> None:
    for asked in ("schema", "cache", "choices", "presets", "presets/Toon to photo"):
        assert requests.get(f"{locked.url}/multipass/v1/{asked}", auth=credentials, timeout=60).status_code == status
    for asked in ("runs/latest", "runs/latest/0/0"):
        answer = requests.get(f"{locked.url}/multipass/v1/{asked}", auth=credentials, timeout=60)
        assert answer.status_code == (404 if status == 200 else status), "there is none yet"
    cleared = requests.post(f"{locked.url}/multipass/v1/cache/clear", auth=credentials, timeout=60)
    assert cleared.status_code == status
    bodies = {"validate": {"plan": THREE}, "texts": {"plan": THREE}, "tokens": {"texts": []}}
    bodies |= {"import/prompt": {}, "import/file": THREE}
    for asked, body in bodies.items():
        answer = requests.post(f"{locked.url}/multipass/v1/{asked}", auth=credentials, json=body, timeout=60)
        assert answer.status_code == status
    preset = f"{locked.url}/multipass/v1/presets/mine"
    saved = requests.put(preset, auth=credentials, json=THREE, timeout=60).status_code
    assert saved == (201 if status == 200 else status)
    assert requests.delete(preset, auth=credentials, timeout=60).status_code == status


@pytest.mark.parametrize("credentials", ["Basic", "Basic ?", b"Basic \xe9", "Bearer YW5uOm9uZQ=="])
def test_credentials_that_are_none_open_nothing(locked: Webui, credentials: str | bytes) -> None:
    told = requests.get(f"{locked.url}/multipass/v1/schema", headers={"Authorization": credentials}, timeout=60)
    assert told.status_code == 401


def test_a_login_to_the_page_opens_the_endpoints(locked: Webui) -> None:
    session = requests.Session()
    session.cookies.set("access-token-unsecure", "made up")
    assert session.get(f"{locked.url}/multipass/v1/schema", timeout=60).status_code == 401
    session.cookies.clear()
    login = session.post(f"{locked.url}/login", data={"username": "eve", "password": "three"}, timeout=60)
    assert login.status_code == 200
    # the other cookie is for https alone
    assert session.get(f"{locked.url}/multipass/v1/schema", timeout=60).status_code == 200
