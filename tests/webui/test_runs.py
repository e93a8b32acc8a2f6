"""What is kept of a request in the webui: every pass's picture, the manifest, and the endpoints that tell them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from multipass.manifest import Manifest, read
from tests.webui.asking import LOOPBACK, REQUEST, a_then_b, asking_for, clear_cache, hires, image_of, plan
from tests.webui.host import Webui
from tests.webui.samplers import SAMPLERS, Sampler
from tests.webui.test_together import Meanwhile

pytestmark = pytest.mark.usefixtures("computed")

HALF = a_then_b(0.5)
UNSAVED = {**HALF, "save_passes": False}
SAVING = {"save_images": True, "override_settings": {"samples_save": True}}
TIMESTEPS = ("DDIM", "DDIM CFG++", "PLMS", "UniPC")


def latest(webui: Webui) -> dict[str, Any]:
    return webui.get("/multipass/v1/runs/latest")


def folders(webui: Webui) -> list[Path]:
    """Of all runs, the last one last."""
    found = (path for path in webui.data.glob("*/multipass/*/*/passes.json"))
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def ask(webui: Webui, path: str) -> requests.Response:
    return requests.get(f"{webui.url}/multipass/v1/runs/{path}", timeout=60)


def picture(webui: Webui, of_pass: int, image: int = 0) -> Image.Image:
    """The last run's."""
    answer = ask(webui, f"latest/{of_pass}/{image}")
    assert (answer.status_code, answer.headers.get("content-type")) == (200, "image/png"), answer.text[:500]
    return Image.open(io.BytesIO(answer.content))


def pixels(webui: Webui, of_pass: int, image: int = 0) -> bytes:
    return picture(webui, of_pass, image).convert("RGB").tobytes()


def passes(manifest: dict[str, Any], *fields: str, image: int = 0) -> list[Any]:
    told = [tuple(own[name] for name in fields) for own in manifest["images"][image]["passes"]]
    return [own[0] for own in told] if len(fields) == 1 else told


# --- what a run is ---------------------------------------------------------------------------------------------------


def test_a_run_tells_what_each_pass_did(webui: Webui) -> None:
    named = plan({"name": "one", "checkpoint": "soft"}, {"name": "two", "checkpoint": "ink", "switch_at": 0.3})
    answer = webui.generate_unchanged(plan=named, **REQUEST)
    told = latest(webui)
    folder = folders(webui)[-1]
    assert (told["run"], told["status"], told["error"], told["version"]) == (folder.name, "done", None, 1)
    assert told == json.loads((folder / "passes.json").read_text()) == webui.get(f"/multipass/v1/runs/{folder.name}")
    assert isinstance(read(folder / "passes.json"), Manifest)
    assert [image["seed"] for image in told["images"]] == [7]
    assert passes(told, "name", "kind", "first_step", "end_step", "unet_evaluations", "memo_hits", "picture") == [
        ("one", "first", 0, 3, 3, 0, "pass_0/00000-7.png"),
        ("two", "switch", 3, 10, 7, 0, "pass_1/00000-7.png"),
    ]
    first, second = told["images"][0]["passes"]
    assert first["sigma_in"] > first["sigma_out"] == second["sigma_in"] > second["sigma_out"] == 0
    assert first["seconds"] > 0
    assert second["checkpoint"] == f"ink [{second['sha256'][:10]}]"
    assert [own["checkpoint"] for own in told["plan"]["passes"]] == passes(told, "checkpoint")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "pass_0/00000-7.png",
        "pass_1/00000-7.png",
        "passes.json",
    ]
    assert pixels(webui, 1) == answer.pixels[0] != pixels(webui, 0)


def test_a_picture_says_which_pass_it_is_of_and_fills_the_panel(webui: Webui) -> None:
    answer = webui.generate(plan=a_then_b(0.5, name="in ink", cfg_scale=7), **REQUEST)
    texts = [picture(webui, index).info["parameters"] for index in (0, 1)]
    for text, name in zip(texts, ("Pass 1", "in ink"), strict=True):
        told = webui.post("/sdapi/v1/png-info", {"image": encoded(webui, texts.index(text))}).json()["parameters"]
        assert told["Multipass pass"] == name
        assert json.loads(told["Multipass"])["passes"][1]["name"] == "in ink"
        assert float(told["CFG scale"]) == 4
        assert text.startswith("a red apple\nNegative prompt: a bus\nSteps: 10")
    assert texts[1].replace("Multipass pass: in ink, ", "") == answer.infotexts[0]


def encoded(webui: Webui, of_pass: int) -> str:
    return base64.b64encode(ask(webui, f"latest/{of_pass}/0").content).decode()


def test_the_manifest_s_plan_and_request_render_the_same_picture(webui: Webui) -> None:
    """C13."""
    request = {**REQUEST, "seed": -1, "styles": ["starry"], "sampler_name": "Euler a", "scheduler": "Karras"}
    if webui.install.host == "classic":
        del request["scheduler"]
    answer = webui.generate(plan=a_then_b(0.4, prompt_mode="append", prompt="round"), **request)
    told = latest(webui)
    assert told["plan"]["request"]["seed"] == told["images"][0]["seed"] >= 0
    again = webui.generate(plan=told["plan"], **told["plan"]["request"])
    assert again.same_picture(answer)
    assert latest(webui)["plan"] == told["plan"]


def test_what_a_plan_cannot_say_of_the_request_is_left_out(webui: Webui) -> None:
    webui.generate(plan=HALF, **{**REQUEST, "cfg_scale": 0.5})
    request = latest(webui)["plan"]["request"]
    assert "cfg_scale" not in request
    assert request["steps"] == 10


# --- where it is -----------------------------------------------------------------------------------------------------


def test_a_request_that_saves_its_images_has_its_run_in_the_output_folder(webui: Webui) -> None:
    webui.generate(plan=HALF, **REQUEST, **SAVING)
    assert folders(webui)[-1].parents[2] == webui.data / "outputs"
    elsewhere = {"samples_save": True, "outdir_samples": str(webui.data / "elsewhere")}
    webui.generate(plan=HALF, **REQUEST, save_images=True, override_settings=elsewhere)
    assert folders(webui)[-1].parents[2] == webui.data / "elsewhere"
    for more in ({}, {"save_images": True, "override_settings": {"samples_save": False}}):
        webui.generate(plan=HALF, **REQUEST, **more)
        assert folders(webui)[-1].parents[2] == webui.data / "tmp"


def test_of_the_temporary_runs_the_newest_are_kept(webui: Webui) -> None:
    webui.generate(plan=HALF, **REQUEST, **SAVING)
    saved = folders(webui)[-1]
    for _ in range(4):
        webui.generate(plan=UNSAVED, **REQUEST, override_settings={"multipass_temporary_runs": 3})
    left = [folder for folder in folders(webui) if folder.parents[2].name == "tmp"]
    assert len(left) == 3
    assert latest(webui)["run"] == left[-1].name
    assert saved.is_dir()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_sampled(
    webui: Webui, unchanged: Callable[[], None]
) -> None:
    settings = {"samples_save": True, "outdir_samples": str(webui.data / "config.json")}
    webui.arm()
    answer = webui.try_generate(plan=HALF, **REQUEST, save_images=True, override_settings=settings)
    assert answer.status_code == 500
    assert "the run cannot be written into" in answer.text
    assert webui.state()["evaluations"] == []
    unchanged()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("000000-0000", 'there is no run "000000-0000"'),
        ("..", None),
        ("%2e%2e", None),
        ("..%2f..%2fconfig", None),
        ("..%5c..%5cconfig", "there is no run"),
        ("*", 'there is no run "*"'),
        ("latest/2/0", "has no picture of pass 2, image 0"),
        ("latest/0/1", "has no picture of pass 0, image 1"),
        ("latest/0/*", "a pass and an image are numbers, got 0/*"),
        ("latest/-1/0", "a pass and an image are numbers"),
        ("latest/0/..%2f..%2fpasses.json", None),
        (f"latest/0/{'9' * 5000}", "a pass and an image are numbers"),
    ],
)
def test_what_is_not_there_is_404(webui: Webui, path: str, reason: str | None) -> None:
    webui.generate(plan=HALF, **REQUEST)
    session, prepared = requests.Session(), requests.Request("GET", webui.url).prepare()
    prepared.url = f"{webui.url}/multipass/v1/runs/{path}"  # as it is: a client would tidy it
    answer = session.send(prepared, timeout=60)
    assert answer.status_code == 404
    assert reason is None or reason in answer.json()["detail"]


@pytest.mark.parametrize("place", ["../{}", "pass_0/../../{}", "{}"])
def test_a_manifest_tells_of_no_file_outside_of_its_folder(webui: Webui, place: str) -> None:
    webui.generate(plan=HALF, **REQUEST)
    here = folders(webui)[-1]
    outside = here.parent / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    place = place.format(outside.name if "/" in place else outside)
    told = latest(webui)
    (image,) = told["images"]
    image |= {"original": place, "triptych": place}
    image["passes"][0]["picture"] = place
    (here / "passes.json").write_text(json.dumps(told))
    assert [ask(webui, f"latest/{kind}/0").status_code for kind in ("original", "triptych")] == [404, 404]
    (image,) = ask(webui, "latest/stages").json()["images"]
    assert image["triptych"] is None
    assert [stage["src"] is None for stage in image["stages"]] == [True, True, False]


# --- the pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_pass_s_picture_is_what_its_last_evaluation_saw(webui: Webui, sampler: Sampler) -> None:
    """And keeping it changes nothing: not a bit of the picture, and nothing is decoded that is not kept."""
    request = asking_for(webui, sampler)
    kept = webui.generate_unchanged(plan=HALF, **request)
    decoded, seen = webui.state()["decoded"], pixels(webui, 0)
    (made, _) = passes(latest(webui), "unet_evaluations")
    assert decoded == [made, len(kept.evaluations)]
    not_kept = webui.generate_unchanged(plan=UNSAVED, **request)
    assert not_kept.same_picture(kept)
    assert webui.state()["decoded"] == [len(kept.evaluations)]
    assert passes(latest(webui), "picture") == [None, None]

    answered_with_noise = sampler.name in TIMESTEPS and not webui.install.is_forge_family
    if answered_with_noise and sampler.name != "DDIM":
        return  # which the callback tells of
    by = "sampler" if answered_with_noise else "denoiser"
    watched = webui.generate_with({"kind": "look", "at": made, "by": by}, HALF, **request)
    assert watched.same_picture(kept)
    reference = np.frombuffer(bytes.fromhex(webui.state()["seen"][-1]), np.uint8).astype(int)
    difference = np.abs(reference - np.frombuffer(seen, np.uint8).astype(int)).max()
    assert difference <= answered_with_noise  # DDIM reckons in double precision
    assert seen != kept.pixels[0]


def test_a_pass_s_picture_does_not_depend_on_what_comes_after_it(webui: Webui) -> None:
    webui.generate(plan=HALF, **REQUEST)
    first = pixels(webui, 0)
    for after in (a_then_b(0.5, prompt="an owl"), plan({}, {"checkpoint": "noise1", "switch_at": 0.5})):
        webui.generate(plan=after, **REQUEST)
        assert pixels(webui, 0) == first
    webui.generate(plan=a_then_b(0.6), **REQUEST)
    assert pixels(webui, 0) != first


@pytest.mark.parametrize(
    "more",
    [
        {"sampler_name": "Euler a"},
        {"sampler_name": "DPM++ SDE"},
        {"batch_size": 2, "n_iter": 2},
        {"subseed": 3, "subseed_strength": 0.3},
    ],
    ids=str,
)
def test_three_passes_kept_or_not_are_the_same_picture(webui: Webui, more: dict[str, Any]) -> None:
    three = plan({}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "noise1", "switch_at": 0.7, "vae": None})
    kept = webui.generate_unchanged(plan=three, **{**REQUEST, **more})
    count = len(webui.state()["decoded"])
    not_kept = webui.generate_unchanged(plan={**three, "save_passes": False}, **{**REQUEST, **more})
    assert not_kept.same_picture(kept)
    assert count == 3 * len(webui.state()["decoded"])


@pytest.mark.parametrize("inpainting", [False, True], ids=["whole", "masked"])
def test_in_img2img_too(webui: Webui, picture: str, inpainting: bool) -> None:
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.8}
    if inpainting:
        request |= {"mask": picture, "inpainting_fill": 1, "inpaint_full_res": True}
    kept = webui.generate_unchanged("img2img", plan=HALF, **request)
    told, last = latest(webui), pixels(webui, 1)
    assert told["status"] == "done"
    assert all(own["picture"] for own in told["images"][0]["passes"])
    assert (last == kept.pixels[0]) == (not inpainting)  # before it is pasted into the picture it was given
    assert webui.generate_unchanged("img2img", plan=UNSAVED, **request).same_picture(kept)


def test_a_batch_keeps_every_picture_in_its_place(webui: Webui) -> None:
    answer = webui.generate(plan=HALF, **REQUEST, batch_size=2, n_iter=2)
    told = latest(webui)
    assert [image["seed"] for image in told["images"]] == [7, 8, 9, 10]
    assert [passes(told, "picture", image=image) for image in range(4)] == [
        [f"pass_{index}/{image:05}-{image + 7}.png" for index in (0, 1)] for image in range(4)
    ]
    assert tuple(pixels(webui, 1, image) for image in range(4)) == answer.pixels[-4:]
    assert len({pixels(webui, 0, image) for image in range(4)}) == 4
    assert [passes(told, "unet_evaluations", image=image) for image in range(4)] == [[5, 5]] * 4
    assert "Seed: 10," in picture(webui, 0, 3).info["parameters"]


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
@pytest.mark.parametrize("checkpoint", [None, "noise1"])
def test_hires_fix_is_a_pass(webui: Webui, upscaler: str, checkpoint: str | None) -> None:
    without = webui.generate(plan=HALF, **REQUEST)
    request = {**REQUEST, **hires(webui), "hr_upscaler": upscaler}
    if checkpoint is not None:
        request["hr_checkpoint_name"] = checkpoint
    kept = webui.generate_unchanged(plan=HALF, **request)
    told, decoded = latest(webui), len(webui.state()["decoded"])
    assert passes(told, "kind", "unet_evaluations") == [("first", 5), ("switch", 5), ("hires", 4)]
    own = told["images"][0]["passes"][2]
    assert (own["name"], own["first_step"], own["end_step"], own["sigma_out"]) == ("Hires fix", 0, 4, 0)
    assert 0 < own["sigma_in"] < told["images"][0]["passes"][0]["sigma_in"]
    assert own["checkpoint"].startswith(f"{checkpoint or 'ink'} [")
    assert [picture(webui, index).size for index in range(3)] == [(128, 64), (128, 64), (256, 128)]
    assert pixels(webui, 1) == without.pixels[0]
    assert pixels(webui, 2) == kept.pixels[0]
    assert webui.generate_unchanged(plan=UNSAVED, **request).same_picture(kept)
    # the picture that is enlarged in latent space is decoded for us, the other one is anyway
    assert decoded - len(webui.state()["decoded"]) == 1 + (upscaler == "Latent")


def test_a_picture_without_numbers_is_not_kept_and_that_is_said(webui: Webui) -> None:
    answer = webui.generate_with({"kind": "no numbers", "at": 5}, HALF, **REQUEST)
    assert answer.pixels == webui.generate_with({"kind": "none"}, UNSAVED, **REQUEST).pixels
    webui.generate_with({"kind": "no numbers", "at": 5}, HALF, **REQUEST)
    assert passes(latest(webui), "picture") == [None, "pass_1/00000-7.png"]
    assert any("no numbers for Pass 1" in comment for comment in webui.state()["comments"])


def test_only_the_plan_s_own_pictures_are_kept(webui: Webui) -> None:
    """Not those that an extension renders by a copy of the request, and what it makes of the finished one."""
    answer = webui.generate_with({"kind": "copy", "at": "scripts"}, HALF, **REQUEST)
    assert len(answer.evaluations) == 20
    told = latest(webui)
    assert passes(told, "unet_evaluations") == [5, 5]
    assert pixels(webui, 1) == answer.pixels[0]
    assert hashlib.sha256(pixels(webui, 1)).hexdigest() not in webui.state()["copies"]


def test_each_picture_of_a_loop_is_a_run(webui: Webui, picture: str) -> None:
    before = folders(webui)[-1].stat().st_mtime_ns
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.8}
    webui.generate("img2img", plan=HALF, **request, **webui.script("Loopback", LOOPBACK))
    new = [folder for folder in folders(webui) if folder.stat().st_mtime_ns > before]
    assert len(new) == 2
    assert [json.loads((folder / "passes.json").read_text())["status"] for folder in new] == ["done"] * 2


# --- what the host answers -------------------------------------------------------------------------------------------


def asked(webui: Webui, **more: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    webui.arm()
    answer = webui.try_generate(plan=HALF, **REQUEST, **more)
    assert answer.status_code == 200, answer.text
    images = [image_of(image) for image in answer.json()["images"]]
    return images, json.loads(answer.json()["info"])


def test_the_answer_names_the_run_and_the_picture_its_place_in_it(webui: Webui) -> None:
    images, info = asked(webui)
    run = info["extra_generation_params"]["Multipass run"]
    assert run == latest(webui)["run"]
    assert len(images) == len(info["infotexts"]) == 1
    assert f", Multipass run: {run}/0, " in info["infotexts"][0]
    assert images[0].info["parameters"] == info["infotexts"][0]


def test_the_gallery_shows_the_passes_behind_the_finished_pictures_if_asked_to(webui: Webui) -> None:
    plain, _ = asked(webui, n_iter=2)
    settings = {"multipass_passes_in_gallery": True}
    images, info = asked(webui, n_iter=2, override_settings=settings)
    assert [image.tobytes() for image in images[: len(plain)]] == [image.tobytes() for image in plain]
    assert [image.convert("RGB").tobytes() for image in images[len(plain) :]] == [
        pixels(webui, 0, image) for image in (0, 1)
    ]
    assert len(info["infotexts"]) == len(images)
    assert all("Multipass pass: Pass 1, " in text for text in info["infotexts"][len(plain) :])
    assert [image.info["parameters"] for image in images] == info["infotexts"]


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["interrupt", "skip"])
@pytest.mark.parametrize(("at", "ran"), [(3, [3]), (5, [5]), (7, [5, 2]), (10, [5, 5])])
def test_a_run_that_is_stopped_tells_how_far_it_came(webui: Webui, kind: str, at: int, ran: list[int]) -> None:
    answer = webui.generate_with({"kind": kind, "at": at}, HALF, **REQUEST)
    told = latest(webui)
    word = "skipped" if kind == "skip" else "interrupted"
    stopped = None if at == 10 else f"{word} in Pass {len(ran)} after step {at}"
    assert (told["status"], told["error"]) == ("interrupted" if stopped else "done", stopped)
    assert passes(told, "unet_evaluations") == ran
    assert passes(told, "end_step")[-1] == at
    assert all(passes(told, "picture"))
    assert pixels(webui, len(ran) - 1) == answer.pixels[-1], "what the host makes of what there is"


@pytest.mark.parametrize(
    ("kind", "at", "ran", "error"),
    [
        ("skip", 12, [[5, 5], [2], [5, 5]], "skipped in Pass 1 after step 2"),
        ("interrupt", 17, [[5, 5], [5, 2]], "interrupted in Pass 2 after step 7; 2 of 3 pictures"),
        ("interrupt", 10, [[5, 5]], "1 of 3 pictures"),
    ],
)
def test_of_several_pictures_every_one_tells(
    webui: Webui, kind: str, at: int, ran: list[list[int]], error: str
) -> None:
    webui.generate_with({"kind": kind, "at": at}, HALF, **REQUEST, n_iter=3)
    told = latest(webui)
    assert (told["status"], told["error"]) == ("interrupted", error)
    assert [passes(told, "unet_evaluations", image=image) for image in range(len(ran))] == ran
    assert len(told["images"]) == len(ran)


def test_a_stop_in_hires_fix_is_told(webui: Webui) -> None:
    webui.generate_with({"kind": "interrupt", "at": 12}, HALF, **REQUEST, **hires(webui))
    told = latest(webui)
    assert (told["status"], told["error"]) == ("interrupted", "interrupted in Hires fix after step 2")
    assert passes(told, "unet_evaluations", "end_step") == [(5, 5), (5, 10), (2, 2)]
    webui.generate_with({"kind": "interrupt", "at": 3}, HALF, **REQUEST, **hires(webui))
    assert passes(latest(webui), "unet_evaluations") == [3]
    assert picture(webui, 0).size == (128, 64)


@pytest.mark.parametrize(
    ("fault", "ran", "error"),
    [
        ({"kind": "raise", "at": 3}, [2], "MemoryError: injected"),
        ({"kind": "raise", "at": 7}, [5, 1], "MemoryError: injected"),
        ({"kind": "decode"}, [5, 5], "MemoryError: injected"),
    ],
    ids=["in the first", "in the second", "when it is decoded"],
)
def test_a_run_that_fails_tells_why_and_keeps_what_there_is(
    webui: Webui, unchanged: Callable[[], None], fault: dict[str, Any], ran: list[int], error: str
) -> None:
    own = UNSAVED if fault["kind"] == "decode" else HALF
    webui.generate(plan=HALF, **REQUEST)
    first = pixels(webui, 0)
    webui.arm(**fault)
    assert webui.try_generate(plan=own, **REQUEST).status_code == 500
    unchanged()
    told = latest(webui)
    assert (told["status"], told["error"]) == ("failed", error)
    assert passes(told, "unet_evaluations") == ran
    kept = ["pass_0/00000-7.png", None] if own is HALF and len(ran) == 2 else [None] * len(ran)
    assert passes(told, "picture") == kept
    if kept[0]:
        assert pixels(webui, 0) == first


def test_a_checkpoint_that_cannot_be_read_leaves_the_pass_before(webui: Webui, unchanged: Callable[[], None]) -> None:
    webui.generate(plan=HALF, **REQUEST)
    first = pixels(webui, 0)
    clear_cache(webui)
    webui.arm(kind="load unet" if not webui.install.is_forge_family else "load", at="ink")
    answer = webui.try_generate(plan=HALF, **REQUEST, override_settings={"multipass_read_ahead": False})
    assert answer.status_code == 500
    webui.arm()
    unchanged()
    told = latest(webui)
    assert told["status"] == "failed"
    assert "cannot read" in told["error"] or "cannot be read" in told["error"]
    assert passes(told, "name", "unet_evaluations", "picture") == [("Pass 1", 5, "pass_0/00000-7.png")]
    assert pixels(webui, 0) == first


def test_while_it_is_made_the_manifest_says_interrupted(webui: Webui) -> None:
    """So it is true should the process be killed."""
    with Meanwhile(webui, 17, plan=HALF, n_iter=2, **REQUEST) as meanwhile:
        told = json.loads((folders(webui)[-1] / "passes.json").read_text())
        assert (told["status"], told["error"]) == ("interrupted", None)
        assert [len(image["passes"]) for image in told["images"]] == [2, 1]
        assert latest(webui) == told, "and the endpoint answers meanwhile"
        assert ask(webui, f"{told['run']}/0/1").status_code == 200
    assert meanwhile.picture.result().status_code == 200
    assert latest(webui)["run"] == told["run"]
    assert latest(webui)["status"] == "done"


def test_a_refused_plan_is_no_run(webui: Webui) -> None:
    before = folders(webui)
    assert webui.try_generate(plan=a_then_b(2), **REQUEST).status_code == 422
    assert folders(webui) == before


# --- where checkpoints came from -------------------------------------------------------------------------------------


def sources(webui: Webui, image: int = 0) -> list[str]:
    return [load["source"] for load in passes(latest(webui), "load", image=image)]


def test_a_pass_tells_where_its_checkpoint_came_from(webui: Webui) -> None:
    in_place = not webui.install.is_forge_family
    webui.generate(**REQUEST)
    clear_cache(webui)
    webui.generate(plan=HALF, **REQUEST, n_iter=2, override_settings={"multipass_read_ahead": False})
    loads = passes(latest(webui), "load")
    assert sources(webui) == ["resident", "disk"]
    assert loads[0]["seconds"] == 0 < loads[1]["seconds"]
    if in_place:
        assert sources(webui, 1) == ["resident", "resident"]
        clear_cache(webui)
        webui.generate(plan=HALF, **{**REQUEST, "steps": 20})
        assert sources(webui)[1] in ("ram", "disk")  # if it was there in time
    webui.generate(plan=plan({"checkpoint": "noise1"}, {"checkpoint": "soft", "switch_at": 0.5}), **REQUEST)
    assert sources(webui)[0] in ("disk", "ram"), "the first is the host's to load"
    assert passes(latest(webui), "load")[0]["seconds"] > 0
