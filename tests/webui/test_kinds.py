"""Other kinds of model beside the usual one: what cannot share a trajectory is refused before anything happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.webui import browsing, checkpoints
from tests.webui.asking import REQUEST, a_then_b, plan
from tests.webui.browsing import Panel
from tests.webui.conftest import EXTENSIONS, settle
from tests.webui.host import Install, Webui, running


@pytest.fixture(scope="module")
def webui(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """One with checkpoints of its own."""
    folder = tmp_path_factory.mktemp("kinds") / "checkpoints"
    config = checkpoints.make(folder)
    checkpoints.make_other_kinds(folder)
    if install.is_forge:
        checkpoints.forge_configs(install.folder, config)
    data = tmp_path_factory.mktemp("kinds") / "data"
    with running(install, data, folder, config, EXTENSIONS) as host:
        settle(host)
        yield host


def one_after_the_other(*names: str) -> dict[str, Any]:
    first, *others = names
    return plan({"checkpoint": first}, *({"checkpoint": name, "switch_at": 0.5} for name in others))


def refusal(webui: Webui, asked: Any, **request: Any) -> str:
    """The reason of a refusal that loads nothing, samples nothing and changes nothing; `validate` gives it too."""
    webui.arm()
    before = webui.circumstances()
    answer = webui.try_generate(plan=asked, **REQUEST, **request)
    assert answer.status_code == 422, answer.text[:2000]
    state = webui.state()
    assert state["evaluations"] == state["loads"] == []
    assert webui.circumstances() == before
    reason = answer.json()["detail"]
    if not request:
        told = webui.post("/multipass/v1/validate", {"plan": asked}).json()
        assert not told["ok"]
        assert "; ".join(f"{error['path']}: {error['message']}" for error in told["errors"]) == reason
        assert webui.state()["loads"] == []
    return reason


LATENTS = "the checkpoints of a trajectory share one latent space"
INPUT = "the UNets of a trajectory take the same input"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("soft", "xl"), "xl (SDXL, 4 UNet channels) cannot continue what soft (SD 1.x, 4 UNet channels) "
                         f"began: {LATENTS}"),
        (("xl", "soft"), "soft (SD 1.x, 4 UNet channels) cannot continue what xl (SDXL, 4 UNet channels) began: "),
        (("sd2", "xl"), "xl (SDXL, 4 UNet channels) cannot continue what sd2 (SD 2.x, 4 UNet channels) began: "),
        (("soft", "xl_refiner"), "xl_refiner (SDXL refiner, 4 UNet channels) cannot continue what soft (SD 1.x, "),
        (("soft", "xl_unet"), "xl_unet (SDXL, 4 UNet channels) cannot continue what soft (SD 1.x, "),
        (("soft", "sd3"), "sd3 (SD 3) cannot continue what soft (SD 1.x, "),
        (("sd3", "xl"), "xl (SDXL, 4 UNet channels) cannot continue what sd3 (SD 3) began: "),
        (("flux", "sd3"), "sd3 (SD 3) cannot continue what flux (Flux) began: "),
        (("soft", "inpaint"), "inpaint (SD 1.x, 9 UNet channels) cannot continue what soft (SD 1.x, 4 UNet channels) "
                              f"began: {INPUT}, 9 channels are an inpainting model's"),
        (("inpaint", "soft"), "soft (SD 1.x, 4 UNet channels) cannot continue what inpaint (SD 1.x, 9 UNet channels) "),
        (("soft", "pix2pix"), f"began: {INPUT}, 8 channels are an InstructPix2Pix model's"),
        (("soft", "depth"), f"began: {INPUT}, 5 channels are a depth model's"),
    ],
    ids=lambda value: " then ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_c24_two_that_cannot_share_a_trajectory(webui: Webui, names: tuple[str, ...], reason: str) -> None:
    told = refusal(webui, one_after_the_other(*names))
    assert told.startswith("passes[1].checkpoint: ")
    assert reason in told


def test_c24_a_third_pass_is_compared_too_and_each_checkpoint_told_once(webui: Webui) -> None:
    told = refusal(webui, one_after_the_other("soft", "ink", "xl", "soft", "xl"))
    assert told.startswith("passes[2].checkpoint: xl (SDXL")
    assert told.count("cannot continue") == 1


def test_c24_the_checkpoint_that_the_request_will_have(webui: Webui) -> None:
    second = plan({}, {"checkpoint": "xl", "switch_at": 0.5})
    assert "passes[1].checkpoint: xl (SDXL, 4 UNet channels) cannot continue what soft (" in refusal(webui, second)
    overridden = refusal(webui, a_then_b(0.5) | {"passes": [{}, {"checkpoint": "ink", "switch_at": 0.5}]},
                         override_settings={"sd_model_checkpoint": "xl"})  # fmt: skip
    assert "ink (SD 1.x, 4 UNet channels) cannot continue what xl (SDXL" in overridden


def test_c24_the_panel_says_it_before_generate(browser: Browser, webui: Webui) -> None:
    webui.arm()
    with browsing.opened(browser, webui.url) as page:
        panel = Panel(page, webui).open()
        panel.pick("xl")
        told = panel.notes.locator(".multipass-refused")
        expect(told).to_have_text(re.compile(r"^Pass 2, Checkpoint: xl \(SDXL, 4 UNet channels\) cannot continue"))
        expect(panel.by_id("pill_1")).to_have_class(re.compile("multipass-wrong"))
        panel.pick("ink")
        expect(told).to_have_count(0)
        expect(panel.by_id("pill_1")).not_to_have_class(re.compile("multipass-wrong"))
    assert webui.state()["loads"] == []


@pytest.mark.parametrize("name", ["cut", "cut_header", "empty", "page"])
@pytest.mark.parametrize("place", [0, 1])
def test_c24_a_damaged_file(webui: Webui, name: str, place: int) -> None:
    names = ("soft", name) if place else (name, "soft")
    told = refusal(webui, one_after_the_other(*names))
    assert told.startswith(f"passes[{place}].checkpoint: {name} is not a readable safetensors file: ")


def test_c24_a_file_that_is_gone_or_was_exchanged_since(webui: Webui) -> None:
    """What was read of a file is not remembered longer than the file is the same."""
    file = Path(webui.get("/sdapi/v1/sd-models")[0]["filename"]).parent / "unknown.safetensors"
    content = file.read_bytes()
    asked = one_after_the_other("soft", "unknown")
    assert webui.post("/multipass/v1/validate", {"plan": asked}).json()["ok"]
    file.write_bytes(content[:-1])
    assert "unknown is not a readable safetensors file: its tensors take 16 bytes, 15 are there" in refusal(
        webui, asked
    )
    file.unlink()
    assert "unknown is not a readable safetensors file: No such file" in refusal(webui, asked)
    file.write_bytes(content)
    assert webui.post("/multipass/v1/validate", {"plan": asked}).json()["ok"]


@pytest.mark.parametrize(
    "names",
    [("soft", "sd2"), ("sd2", "soft"), ("xl", "xl_refiner"), ("xl_unet", "xl"), ("soft", "unknown", "soft")],
    ids=" then ".join,
)
def test_those_that_may_share_one_are_not_refused(webui: Webui, names: tuple[str, ...]) -> None:
    webui.arm()
    answer = webui.post("/multipass/v1/validate", {"plan": one_after_the_other(*names)}).json()
    assert answer["ok"], answer
    assert webui.state()["loads"] == []


def test_a_pickled_checkpoint_is_the_hosts_to_judge(webui: Webui) -> None:
    ours = webui.generate_unchanged(plan=one_after_the_other("soft", "pickled"), **REQUEST)
    assert ours.same_picture(webui.generate(plan=one_after_the_other("soft", "noise1"), **REQUEST))
    plain = webui.generate(**REQUEST)
    before = webui.circumstances()
    answer = webui.try_generate(plan=one_after_the_other("soft", "junk"), **REQUEST)
    assert answer.status_code == 500
    assert webui.circumstances() == before
    assert webui.generate(**REQUEST).same_picture(plain)
