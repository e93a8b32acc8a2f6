"""The real ADetailer beside a plan, and other scripts that render something in the middle of one.

A face is in the picture: in img2img, where ADetailer is told to work on the given picture alone, or put in by the probe
before ADetailer looks.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.webui.asking import REQUEST, a_then_b, b64, cache, clear_cache, hires, image_of, plan, runs, settings
from tests.webui.browsing import Panel, opened
from tests.webui.conftest import PROBE, STYLES, settle
from tests.webui.host import ROOT, Answer, Install, Webui, changes, running
from tests.webui.test_together import until
from tests.webui.test_xyz import SWITCH_AT, asking_for_grid

VAE = "other.vae.safetensors"
SHOW_FACE = """
import sys
from PIL import Image
from skimage import data
Image.fromarray(data.astronaut()).save(sys.argv[1])
"""
YOLO = "person_yolov8n-seg.pt"
SEES_PERSONS = """
import sys
import torch
from ultralytics import YOLO
torch.manual_seed(0)
model = YOLO("yolov8n-seg.yaml")
for classifies in model.model.model[-1].cv3:
    classifies[-1].bias.data[0] = 4  # a person, wherever it looks
model.save(sys.argv[1])
model(torch.zeros(1, 3, 64, 64))
"""


@pytest.fixture(scope="module")
def detailed(install: Install, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """With the ADetailer extension beside ours, by the names that a git clone gives them: it comes first."""
    extension = Path(os.environ.get("ADETAILER_DIR", "~/adetailer")).expanduser().resolve()
    if not (extension / "scripts/!adetailer.py").is_file():
        pytest.skip("no ADetailer: set ADETAILER_DIR to a clone of Bing-su/adetailer")
    asked = [str(install.python), "-c", "import mediapipe, rich, ultralytics"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("this host's Python lacks what ADetailer needs: mediapipe==0.10.9, rich, ultralytics, and theirs")
    folder, config = models
    # of a config file of its own, for which AUTOMATIC1111 builds another module
    shutil.copy(folder / "ink.safetensors", folder / "apart.safetensors")
    (folder / "apart.yaml").write_text(f"# {config}\n{config.read_text()}")
    extensions = {"adetailer": extension, "sd-webui-multipass": ROOT, "zprobe": PROBE}
    data = tmp_path_factory.mktemp("detailed") / "data"
    data.mkdir()
    (data / "styles.csv").write_text(STYLES)
    models_of_it = data / "models/adetailer"
    models_of_it.mkdir(parents=True)
    made = subprocess.run([*asked[:2], SEES_PERSONS, str(models_of_it / YOLO)], capture_output=True, check=False)
    if made.returncode:  # there are torchvisions without what this needs
        (models_of_it / YOLO).unlink(missing_ok=True)
    with running(install, data, folder, config, extensions, "--ad-no-huggingface") as host:
        settle(host)
        host.set_options(ad_script_names="", ad_only_selected_scripts=True)
        yield host


@pytest.fixture(scope="module")
def face(install: Install, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A photograph with a face, as the API takes it."""
    file = tmp_path_factory.mktemp("face") / "face.png"
    subprocess.run([str(install.python), "-c", SHOW_FACE, str(file)], check=True)
    return base64.b64encode(file.read_bytes()).decode()


def tab(**own: Any) -> dict[str, Any]:
    size = {"ad_use_inpaint_width_height": True, "ad_inpaint_width": 128, "ad_inpaint_height": 128}
    return {"ad_model": "mediapipe_face_full", "ad_use_steps": True, "ad_steps": 8, **size, **own}


def scripts(*tabs: dict[str, Any], several: Any = None, skips: bool = False) -> dict[str, Any]:
    """The part of a request that turns ADetailer on, and a plan where there is one."""
    told: dict[str, Any] = {"ADetailer": {"args": [True, skips, *(tabs or (tab(),))]}}
    return {"alwayson_scripts": told if several is None else {**told, "Multipass": {"args": [several]}}}


class Detailed:
    """ADetailer on the photograph, whatever the request renders."""

    def __init__(self, host: Webui, face: str) -> None:
        self.host = host
        self.request = {**REQUEST, "init_images": [face], "denoising_strength": 0.6}

    def by(self, several: dict[str, Any], *tabs: dict[str, Any], **more: Any) -> Answer:
        """Beside a plan."""
        asked = {**self.request, **more, **scripts(*tabs, several=several, skips=True)}
        return self.host.generate_unchanged("img2img", **asked)

    def on(self, checkpoint: str, *tabs: dict[str, Any], **own: Any) -> Answer:
        """Without a plan, on a checkpoint, with these options."""
        options = {"sd_model_checkpoint": checkpoint, **own}
        asked = {**self.request, **scripts(*tabs, skips=True), "override_settings": options}
        return self.host.generate("img2img", **asked)


@pytest.fixture
def photo(detailed: Webui, face: str) -> Detailed:
    return Detailed(detailed, face)


A_THEN_B = a_then_b(0.5)
OWN = tab(ad_use_checkpoint=True, ad_checkpoint="noise1")


# --- which checkpoint ----------------------------------------------------------------------------------------------


def test_without_a_choice_the_last_pass_is_followed(photo: Detailed) -> None:
    ours = photo.by(A_THEN_B)
    assert ours.pixels == photo.on("ink").pixels
    assert ours.pixels != photo.on("soft").pixels
    assert "ADetailer checkpoint: ink [" in ours.infotexts[0]
    assert runs(ours)[-1][0] == "ink"


def test_the_last_that_runs(photo: Detailed) -> None:
    several = plan({"checkpoint": "noise1"}, {"switch_at": 1, "checkpoint": "ink"})
    assert photo.by(several).pixels == photo.on("noise1").pixels
    several = plan(
        {"checkpoint": "soft"}, {"switch_at": 0, "checkpoint": "noise1"}, {"enabled": False, **refine("ink")}
    )
    assert photo.by(several).pixels == photo.on("noise1").pixels
    assert (
        photo.by(plan({"checkpoint": "soft"}, refine("ink", denoising_strength=0.5))).pixels == photo.on("ink").pixels
    )
    # which only enlarges, so that nothing is loaded for it
    assert photo.by(plan({"checkpoint": "soft"}, refine("ink", denoising_strength=0))).pixels == photo.on("soft").pixels


def refine(checkpoint: str, **own: Any) -> dict[str, Any]:
    return {"kind": "refine", "checkpoint": checkpoint, **own}


def test_a_chosen_pass_is_followed(photo: Detailed) -> None:
    for chosen, checkpoint in enumerate(("soft", "ink", "noise1")):
        three = plan({}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "noise1", "switch_at": 0.6})
        ours = photo.by({**three, "adetailer": {"pass": chosen}})
        assert ours.pixels == photo.on(checkpoint).pixels
        assert f"ADetailer checkpoint: {checkpoint} [" in ours.infotexts[0]


def test_what_no_pass_names_is_what_the_plan_really_ran_on(photo: Detailed) -> None:
    same = plan({}, {"switch_at": 0.5, "cfg_scale": 6})
    ours = photo.by(same, override_settings={"sd_model_checkpoint": "noise1"})
    assert ours.pixels == photo.on("noise1").pixels
    assert "ADetailer checkpoint: noise1 [" in ours.infotexts[0]
    photo.host.arm(kind="checkpoint", at="ink")  # by an extension that comes after ours
    answer = photo.host.try_generate("img2img", **{**photo.request, **scripts(several=same, skips=True)})
    ours = photo.host.read(answer)
    assert ours.pixels == photo.on("ink").pixels
    assert "ADetailer checkpoint: ink [" in ours.infotexts[0]


def test_a_tab_s_own_checkpoint_wins(photo: Detailed) -> None:
    ours = photo.by(A_THEN_B, OWN)
    assert ours.pixels == photo.on("noise1").pixels
    assert "ADetailer checkpoint: noise1" in ours.infotexts[0]
    for none in ("None", "Use same checkpoint", "", None):
        assert photo.by(A_THEN_B, tab(ad_use_checkpoint=True, ad_checkpoint=none)).pixels == photo.on("ink").pixels
    unused = tab(ad_use_checkpoint=False, ad_checkpoint="noise1")
    assert photo.by(A_THEN_B, unused).pixels == photo.on("ink").pixels


def test_each_tab_has_its_own(photo: Detailed) -> None:
    second = tab(ad_model="mediapipe_face_mesh")
    ours = photo.by(A_THEN_B, OWN, second)
    named = tab(ad_model="mediapipe_face_mesh", ad_use_checkpoint=True, ad_checkpoint="ink")
    assert ours.pixels == photo.on("soft", OWN, named).pixels
    assert ours.pixels != photo.on("noise1", OWN, second).pixels
    assert "ADetailer checkpoint 2nd: ink [" in ours.infotexts[0]


def test_adetailer_that_is_off_is_left_alone(photo: Detailed) -> None:
    host = photo.host
    tabs = scripts(several=A_THEN_B)
    tabs["alwayson_scripts"]["ADetailer"]["args"][0] = False
    plain = host.generate("img2img", plan=A_THEN_B, **photo.request)
    assert host.generate("img2img", **photo.request, **tabs).pixels == plain.pixels
    ours = photo.by(A_THEN_B, tab(ad_tab_enable=False))
    assert "ADetailer" not in ours.infotexts[0]
    assert [name for name, _ in runs(ours)] == ["soft", "ink"]


@pytest.mark.parametrize("name", [None, "None", "Automatic", VAE, VAE.removesuffix(".safetensors")])
def test_the_pass_s_vae(photo: Detailed, name: str | None) -> None:
    if photo.host.install.is_forge_family:
        pytest.skip("this webui cannot change a pass's VAE")
    own = {} if name is None else {"vae": name}
    expected = photo.on("ink", **({"sd_vae": name if name in ("None", "Automatic") else VAE} if name else {}))
    assert photo.by(a_then_b(0.5, **own)).pixels == expected.pixels
    # of a pass that is not the last, whose VAE is another
    for other in ({}, {"vae": "None"}, {"vae": VAE}):
        first = plan({"checkpoint": "ink", **own}, {"checkpoint": "soft", "switch_at": 0.5, **other})
        assert photo.by({**first, "adetailer": {"pass": 0}}).pixels == expected.pixels


def test_a_tab_s_own_vae_wins_and_its_own_checkpoint_has_the_host_s(photo: Detailed) -> None:
    if photo.host.install.is_forge_family:
        pytest.skip("this webui cannot change a pass's VAE")
    named = tab(ad_use_vae=True, ad_vae=VAE)
    assert photo.by(a_then_b(0.5, vae="None"), named).pixels == photo.on("ink", sd_vae=VAE).pixels
    assert photo.by(a_then_b(0.5, vae=VAE), OWN).pixels == photo.on("noise1").pixels
    assert photo.on("noise1").pixels != photo.on("noise1", sd_vae=VAE).pixels


def test_the_pass_s_clip_skip(photo: Detailed) -> None:
    skipping = a_then_b(0.5, clip_skip=2)
    expected = photo.on("ink", CLIP_stop_at_last_layers=2)
    assert expected.pixels != photo.on("ink").pixels
    assert photo.by(skipping).pixels == expected.pixels
    assert photo.by({**skipping, "adetailer": {"pass": 0}}).pixels == photo.on("soft").pixels
    assert photo.by(skipping, OWN).pixels == photo.on("noise1").pixels
    assert photo.by(skipping, tab(ad_use_clip_skip=True, ad_clip_skip=1)).pixels == photo.on("ink").pixels


# --- whose texts ---------------------------------------------------------------------------------------------------

TEXTS = {"prompt": "a rocket <lora:one:0.8>", "negative_prompt": "an owl"}


def test_a_pass_s_texts_where_that_is_asked_for(photo: Detailed) -> None:
    of_pass = photo.on("ink", tab(ad_prompt=TEXTS["prompt"], ad_negative_prompt=TEXTS["negative_prompt"]))
    own = a_then_b(0.5, **TEXTS)
    assert photo.by(own).pixels == photo.on("ink").pixels != of_pass.pixels
    asked = {**own, "adetailer": {"prompts": True}}
    ours = photo.by(asked)
    assert ours.pixels == of_pass.pixels
    assert 'ADetailer prompt: "a rocket <lora:one:0.8>"' in ours.infotexts[0]
    one = tab(ad_prompt="a bus")
    kept = photo.on("ink", tab(ad_prompt="a bus", ad_negative_prompt=TEXTS["negative_prompt"]))
    assert photo.by(asked, one).pixels == kept.pixels


@pytest.mark.parametrize("styles", [[], ["starry"]])
@pytest.mark.parametrize("prompt", ["a red apple", ""])
def test_a_text_that_a_pass_adds_to_the_request_s(photo: Detailed, prompt: str, styles: list[str]) -> None:
    added = a_then_b(0.5, prompt="fine lines", prompt_mode="append")
    asked = {**added, "common": {"prompt": "round"}, "adetailer": {"prompts": True}}
    styled = {"a red apple": "a red apple, a star", "": ", a star"}[prompt] if styles else prompt
    whole = ", ".join(text for text in (styled, "fine lines", "round") if text)
    ours = photo.by(asked, prompt=prompt, styles=styles)
    photo.request |= {"styles": styles}  # which ADetailer adds to any text
    assert ours.pixels == photo.on("ink", tab(ad_prompt=whole)).pixels


# --- it is not a part of the plan ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["selected", "all"])
def test_its_pictures_do_not_begin_the_plan_again(photo: Detailed, way: str) -> None:
    listed: dict[str, Any] = (
        {"ad_script_names": "multipass"} if way == "selected" else {"ad_only_selected_scripts": False}
    )
    with settings(photo.host, **listed):
        ours = photo.by(A_THEN_B)
        assert ours.pixels == photo.on("ink").pixels
        assert len(runs(ours)) == 2


FACE = {"face": True}
WAYS: dict[str, dict[str, Any]] = {
    "switch": {"plan": A_THEN_B},
    "hires fix": {"plan": A_THEN_B, "hires": True},
    "refine": {"plan": plan({"checkpoint": "soft"}, refine("ink", denoising_strength=0.5, scale=1.5))},
    "three, on the first": {
        "plan": {
            **plan(
                {"checkpoint": "soft"},
                {"checkpoint": "ink", "switch_at": 0.4},
                refine("noise1", denoising_strength=0.5),
            ),
            "adetailer": {"pass": 0},
        }
    },
    "a network": {"plan": a_then_b(0.5, prompt="a rocket <lora:one:0.8>")},
    "another module": {"plan": plan({"checkpoint": "soft"}, {"checkpoint": "apart", "switch_at": 0.5})},
    "on another module": {
        "plan": plan({"checkpoint": "apart"}, {"checkpoint": "soft", "switch_at": 0.5}, adetailer={"pass": 0})
    },
    "a tab on another module": {"plan": A_THEN_B, "tab": tab(ad_use_checkpoint=True, ad_checkpoint="apart")},
    "token merging": {"plan": A_THEN_B, "override_settings": {"token_merging_ratio": 0.5}},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, detailed: Webui) -> dict[str, Any]:
    """The part of a request in txt2img, with a face in the picture."""
    asked = dict(WAYS[request.param])
    with_hires = hires(detailed) if asked.pop("hires", False) else {}
    return {**REQUEST, **with_hires, **asked}


def with_face(host: Webui, several: Any = None, *tabs: dict[str, Any], **request: Any) -> Answer:
    return host.generate_with(FACE, None, **request, **scripts(*tabs, several=several))


def test_c12_each_picture_is_its_seed_alone_and_each_file_is_read_once(detailed: Webui, way: dict[str, Any]) -> None:
    several, own = way.pop("plan"), way.pop("tab", tab())
    with_face(detailed, **REQUEST)
    clear_cache(detailed)
    before, loads = detailed.circumstances(), cache(detailed)["loads_from_disk"]
    three = with_face(detailed, several, own, n_iter=3, **way)
    assert changes(before, detailed.circumstances()) == {}
    others = {one["checkpoint"] for one in (*several["passes"], {"checkpoint": own.get("ad_checkpoint", "soft")})}
    others -= {"soft"}
    assert sorted(three.loads) == sorted(others)
    assert cache(detailed)["loads_from_disk"] - loads == len(others)
    for number in range(3):
        clear_cache(detailed)  # loading must not matter: the next picture's encoding draws from a generator of all
        alone = with_face(detailed, several, own, **{**way, "seed": 7 + number})
        assert alone.pixels[0] == three.pixels[number - 3]
    detailed.arm()
    assert detailed.generate(plan=several, **way).pixels[0] != three.pixels[-3]


def test_c12_in_img2img_and_with_a_plot_over_seeds(photo: Detailed) -> None:
    host = photo.host
    photo.request |= {"steps": 10}
    both = photo.by(A_THEN_B, n_iter=2)
    for number in range(2):
        assert photo.by(A_THEN_B, seed=7 + number).pixels[0] == both.pixels[number - 2]
    seeds = {"X type": 1, "X values": "7,8", "Y type": 0, "Z type": 0, "Include Sub Images": True}
    cells = photo.by(A_THEN_B, **host.script("X/Y/Z plot", seeds))
    assert cells.pixels[-2:] == both.pixels[-2:]


def test_c21_a_sweep_computes_the_first_pass_s_steps_once(detailed: Webui) -> None:
    """And ADetailer's own in each cell: its pictures are no part of the plan."""
    steps, boundaries = 8, (2, 4, 6)
    request = {**REQUEST, "steps": steps}
    with settings(detailed, multipass_memo_mb=0):
        alone = [with_face(detailed, a_then_b(at, "step"), **request) for at in boundaries]
        own = len(detailed.state()["unets"]) - steps
    assert own > 0
    folder = detailed.data / "tmp/multipass"
    before = set(folder.rglob("passes.json"))
    grid = asking_for_grid(detailed, (SWITCH_AT, ", ".join(map(str, boundaries))))
    cells = with_face(detailed, a_then_b(boundaries[0], "step"), **request, **grid)
    assert cells.pixels[1:] == tuple(one.pixels[0] for one in alone)
    assert len(set(cells.pixels[1:])) == len(boundaries)
    assert all("ADetailer checkpoint: ink [" in text for text in cells.infotexts)
    manifests = [json.loads(file.read_text()) for file in set(folder.rglob("passes.json")) - before]
    assert [run["memo"] for run in manifests] == [None] * len(boundaries), "nothing stood in the way"
    passes = [one for run in manifests for one in run["images"][0]["passes"]]
    expected = max(boundaries) + sum(steps - at for at in boundaries)
    assert sum(one["unet_evaluations"] for one in passes) == expected
    assert sum(one["unet_evaluations"] + one["memo_hits"] for one in passes) == steps * len(boundaries)
    assert len(detailed.state()["unets"]) == expected + own * len(boundaries)


def test_the_workflow_toon_to_photo(detailed: Webui) -> None:
    """A cartoon, enlarged and redrawn by a photographic checkpoint, which ADetailer then paints the face with."""
    three = plan(
        {"name": "toon", "checkpoint": "soft"},
        {
            "name": "photo", **refine("ink"), "prompt": "a photo of an apple", "sampler_name": "DPM++ 2M",
            "scheduler": "karras", "steps": 6, "denoising_strength": 0.5, "scale": 1.5, "upscaler": "enlarger",
        },
        adetailer={"prompts": True},
    )  # fmt: skip
    before = detailed.circumstances()
    ours = with_face(detailed, three, **REQUEST)
    assert changes(before, detailed.circumstances()) == {}
    assert runs(ours) == [("soft", 10), ("ink", 10)]
    assert "ADetailer checkpoint: ink [" in ours.infotexts[0]
    assert "ADetailer prompt: a photo of an apple" in ours.infotexts[0]
    named = tab(ad_use_checkpoint=True, ad_checkpoint="ink", ad_prompt="a photo of an apple")
    asked = {**REQUEST, **scripts(named, several=three)}
    assert detailed.generate_with(FACE, None, **asked).pixels == ours.pixels
    run = detailed.get("/multipass/v1/runs/latest")
    assert run["status"] == "done"
    told = [(own["name"], own["unet_evaluations"] + own["memo_hits"]) for own in run["images"][0]["passes"]]
    assert told == [("toon", 10), ("photo", 6)], "ADetailer is no pass"


def test_the_bar_says_nothing_of_the_plan_meanwhile(detailed: Webui) -> None:
    asked = {**REQUEST, **scripts(several=A_THEN_B)}
    for at, meant in ((7, True), (12, False)):
        detailed.arm(kind="wait", at=at, face=True)
        with ThreadPoolExecutor() as threads:
            answer = threads.submit(detailed.try_generate, **asked)
            until(lambda: len(detailed.state()["evaluations"]) == at)  # noqa: B023 - called in this round
            text = detailed.get("/sdapi/v1/progress")["textinfo"]
            detailed.post("/probe/go", {}).raise_for_status()
        assert answer.result().status_code == 200
        assert bool(text) == meant


# --- whatever stops it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(detailed: Webui) -> tuple[Answer, Answer]:
    """Without a plan, and two pictures with one."""
    return with_face(detailed, **REQUEST), with_face(detailed, A_THEN_B, n_iter=2, **REQUEST)


@pytest.mark.parametrize("at", [7, 12, 21])
@pytest.mark.parametrize("kind", ["interrupt", "skip", "raise"])
def test_c15_whatever_stops_it(detailed: Webui, undisturbed: tuple[Answer, Answer], kind: str, at: int) -> None:
    """In the first picture's second pass, in ADetailer, in the second picture's second pass."""
    plain, whole = undisturbed
    before = detailed.circumstances()
    detailed.arm(kind=kind, at=at, **FACE)
    answer = detailed.try_generate(n_iter=2, **REQUEST, **scripts(several=A_THEN_B))
    assert detailed.state()["evaluations"][:at] == list(whole.evaluations[:at])
    assert changes(before, detailed.circumstances()) == {}
    in_adetailer = at == 12
    assert answer.status_code == (500 if kind == "raise" and not in_adetailer else 200)
    if kind == "raise" and in_adetailer:  # the webui goes on without ADetailer
        assert detailed.read(answer).pixels[-1] == whole.pixels[-1]
    assert with_face(detailed, **REQUEST).pixels == plain.pixels


@pytest.mark.parametrize("kind", ["load", "load unet"])
def test_c15_a_checkpoint_that_cannot_be_read_for_it(photo: Detailed, kind: str) -> None:
    host = photo.host
    expected = photo.by(A_THEN_B)
    clear_cache(host)
    before = host.circumstances()
    host.arm(kind=kind, at="ink")
    answer = host.try_generate("img2img", **photo.request, **scripts(several=A_THEN_B, skips=True))
    assert answer.status_code in (200, 500)
    assert changes(before, host.circumstances()) == {}
    assert photo.by(A_THEN_B).pixels == expected.pixels


# --- subjects ------------------------------------------------------------------------------------------------------


def test_its_detectors_find_subjects(photo: Detailed) -> None:
    """And it comes after that, on the last pass's checkpoint, when it is on at the same time."""
    assert "mediapipe_face_mesh" in photo.host.get("/multipass/v1/choices")["detectors"]
    request = {**photo.request, "width": 256, "height": 256}
    own = {"kind": "subject", "checkpoint": "ink", "steps": 4, "denoising_strength": 0.6}
    several = plan({"denoising_strength": 0}, {**own, "target": "mediapipe_face_short", "on_missing": "error"})
    head = image_of(request["init_images"][0]).crop((96, 0, 352, 256))
    request["init_images"] = [b64(head)]
    ours = photo.host.generate_unchanged("img2img", plan=several, **request)
    assert photo.host.get("/multipass/v1/runs/latest")["images"][0]["passes"][1]["subjects"] == 1
    assert ours.pixels != photo.host.generate("img2img", plan=plan({"denoising_strength": 0}), **request).pixels
    parts = {"prompt": "a face BREAK a photograph BREAK an owl", "negative_prompt": ""}
    anybody = plan({"denoising_strength": 0}, {**own, "target": "mediapipe_face_short"})
    told = {**anybody, "prompt_syntax": "scene-break", "adetailer": {"prompts": True}}
    answer = photo.host.generate("img2img", **{**request, **parts, **scripts(several=told, skips=True)})
    assert 'ADetailer prompt: "an owl, a photograph"' in answer.infotexts[0]
    both = photo.host.generate_unchanged("img2img", **{**request, **scripts(several=anybody, skips=True)})
    assert "ADetailer checkpoint: ink [" in both.infotexts[0]
    assert both.pixels != ours.pixels


# --- in the page ---------------------------------------------------------------------------------------------------


def test_the_panel_chooses_which_pass_it_follows(browser: Browser, detailed: Webui) -> None:
    with opened(browser, detailed.url) as page:
        panel = Panel(page, detailed).open().put(A_THEN_B)
        panel.by_id("whole").locator("summary").click()
        select = panel.by_id("adetailer_pass")
        expect(select.locator("option")).to_have_text(["the last pass", "Pass 1", "Pass 2"])
        select.select_option("Pass 1")
        assert panel.plan["adetailer"] == {"pass": 0}
        panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
        panel.by_id("adetailer_prompts").check()
        assert panel.plan["adetailer"] == {"pass": 0, "prompts": True}


# --- its models for subject passes ------------------------------------------------------------------------------------


def test_a_subject_is_found_by_yolo(photo: Detailed) -> None:
    """Whose files AUTOMATIC1111 refuses to read, but for ADetailer."""
    if YOLO not in photo.host.get("/multipass/v1/choices")["detectors"]:
        pytest.skip("no YOLO model: this host's torchvision lacks what it predicts with")
    person = {"kind": "subject", "target": "person", "which": 0, "checkpoint": "ink", "mask_blur": 0, "steps": 2}
    plain = photo.host.generate("img2img", **photo.request)
    ours = photo.host.generate_unchanged("img2img", plan=plan({}, person), **photo.request)
    assert photo.host.get("/multipass/v1/runs/latest")["images"][0]["passes"][1]["subjects"] == 1
    assert ours.pixels != plain.pixels
    named = photo.host.generate("img2img", plan=plan({}, {**person, "target": YOLO}), **photo.request)
    assert named.same_picture(ours)
