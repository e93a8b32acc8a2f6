"""A triptych in the webui: each checkpoint alone and the plan's picture, from one request."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from tests.webui.asking import LOOPBACK, REQUEST, alone, b64, clear_cache, hires, image_of, plan
from tests.webui.browsing import Panel, generate, set_request
from tests.webui.host import Answer, Webui
from tests.webui.test_compare import choose_picture
from tests.webui.test_memo import counted, plainly

SOFT, INK = {"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.5}
HALF = plan(SOFT, INK)
TRIPTYCH = plan(SOFT, INK, triptych=True)


def latest(webui: Webui) -> dict[str, Any]:
    return webui.get("/multipass/v1/runs/latest")


def triptych(webui: Webui, image: int = 0) -> np.ndarray:
    answer = requests.get(f"{webui.url}/multipass/v1/runs/latest/triptych/{image}", timeout=60)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def pixels(answer: Answer, image: int = 0, size: tuple[int, int] = (128, 64)) -> np.ndarray:
    return np.frombuffer(answer.pixels[image], np.uint8).reshape(size[1], size[0], 3)


def places(grid: np.ndarray, *pictures: np.ndarray) -> list[int]:
    """From the left, where the pictures are, each of which must be there once."""
    found: list[int] = []
    for picture in pictures:
        height, width, _ = picture.shape
        (here,) = [
            int(x)
            for y, x in np.argwhere((grid == picture[0, 0]).all(axis=2))
            if np.array_equal(grid[y : y + height, x : x + width], picture)
        ]
        found.append(here)
    return found


def test_each_checkpoint_alone_stands_beside_the_plan_s_picture(webui: Webui) -> None:
    plain = webui.generate(plan=HALF, **REQUEST)
    both = webui.generate(plan=TRIPTYCH, **REQUEST)
    assert both.pixels[0] == plain.pixels[0]
    (image,) = latest(webui)["images"]
    assert len(image["passes"]) == 2
    grid = triptych(webui)
    singles = [pixels(alone(webui, name)) for name in ("soft", "ink")]
    found = places(grid, *singles, pixels(plain))
    assert found == sorted(found)


def test_what_the_pictures_have_in_common_is_computed_once(webui: Webui) -> None:
    steps = REQUEST["steps"]
    _, made = plainly(webui, plan=TRIPTYCH, **REQUEST)
    assert made == 3 * steps
    full = triptych(webui)
    clear_cache(webui)
    _, made = counted(webui, plan=TRIPTYCH, **REQUEST)
    assert made == steps + steps // 2 + steps  # the plan's, the rest of soft's, and ink's
    assert np.array_equal(triptych(webui), full)


def test_the_host_is_as_before(webui: Webui, unchanged: Callable[[], None]) -> None:
    webui.generate(plan=TRIPTYCH, **{**REQUEST, "seed": 3000})
    unchanged()


def test_it_is_a_picture_more_with_a_text_of_its_own(webui: Webui) -> None:
    answer = webui.try_generate(plan=TRIPTYCH, **REQUEST, n_iter=2)
    images = [image_of(image) for image in answer.json()["images"]]
    texts = json.loads(answer.json()["info"])["infotexts"]
    assert [np.array_equal(np.asarray(images[-2 + n]), triptych(webui, n)) for n in (0, 1)] == [True, True]
    assert "Multipass triptych: soft alone | ink alone | soft then ink" in texts[-1]
    assert "Multipass run" not in texts[-1]  # none to compare with the passes
    assert '\\"triptych\\":true' in texts[0]
    assert len(texts) == len(images)


def test_a_batch_has_a_triptych_for_each_picture(webui: Webui) -> None:
    both = webui.generate(plan=TRIPTYCH, **REQUEST, batch_size=2)
    told = latest(webui)["images"]
    assert [image["triptych"] for image in told] == ["triptych/00000-7.png", "triptych/00001-8.png"]
    single = alone(webui, "ink", batch_size=2)
    for image in (0, 1):
        found = places(triptych(webui, image), pixels(single, -2 + image), pixels(both, -4 + image))
        assert found == sorted(found)


def test_a_refine_pass_s_checkpoint_is_alone_too(webui: Webui) -> None:
    refine = {"kind": "refine", "checkpoint": "ink", "denoising_strength": 0.5, "scale": 2, "steps": 4}
    both = webui.generate(plan=plan(SOFT, refine, triptych=True), **REQUEST)
    single = Image.fromarray(pixels(alone(webui, "ink"))).resize((256, 128), Image.Resampling.LANCZOS)
    webui.generate(plan=plan(SOFT, refine, triptych=True), **REQUEST)
    found = places(triptych(webui), np.asarray(single), pixels(both, size=(256, 128)))
    assert found == sorted(found)


def test_with_hires_fix_the_first_pass_alone_is_not_enlarged_by_it(webui: Webui) -> None:
    request = {**REQUEST, **hires(webui)}
    plain = webui.generate(plan=HALF, **request)
    both = webui.generate(plan=TRIPTYCH, **request)
    assert both.pixels[0] == plain.pixels[0]
    single = Image.fromarray(pixels(alone(webui, "soft"))).resize((256, 128), Image.Resampling.LANCZOS)
    webui.generate(plan=TRIPTYCH, **request)
    places(triptych(webui), np.asarray(single))


def test_in_img2img(webui: Webui, picture: str) -> None:
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.8}
    plain = webui.generate("img2img", plan=HALF, **request)
    both = webui.generate("img2img", plan=TRIPTYCH, **request)
    assert both.pixels[0] == plain.pixels[0]
    single = webui.generate("img2img", **request, override_settings={"sd_model_checkpoint": "ink"})
    webui.generate("img2img", plan=TRIPTYCH, **request)
    found = places(triptych(webui), pixels(single), pixels(both))
    assert found == sorted(found)


@pytest.mark.parametrize("at", [8, 13, 24])
def test_who_interrupts_it_keeps_the_picture(webui: Webui, at: int) -> None:
    fresh = {**REQUEST, "seed": 1000 + at}  # of which nothing is remembered
    answer = webui.generate_with({"kind": "interrupt", "at": at}, TRIPTYCH, **fresh)
    told = latest(webui)
    assert told["status"] == "interrupted"
    assert told["images"][0]["triptych"] is None
    assert len(answer.pixels) == 1
    if at > REQUEST["steps"]:
        assert told["error"] == "interrupted before the triptych"
        assert answer.pixels == webui.generate(plan=HALF, **fresh).pixels


def test_an_error_in_it_costs_the_triptych_alone(webui: Webui, unchanged: Callable[[], None]) -> None:
    request = {**REQUEST, "seed": 2000}
    webui.arm(kind="raise", at=15)
    answer = webui.try_generate(plan=TRIPTYCH, **request)
    assert answer.status_code == 200
    assert any("no triptych" in comment for comment in webui.state()["comments"])
    assert latest(webui)["status"] == "done"
    assert not latest(webui)["images"][0].get("triptych")
    unchanged()
    (picture,) = (image_of(own) for own in answer.json()["images"])
    assert picture.tobytes() == webui.generate(plan=HALF, **request).pixels[0]


def test_a_requests_own_mask_acts_in_it_though_a_subject_is_repainted(webui: Webui, picture: str) -> None:
    mask, left = Image.new("L", (128, 64)), Image.new("L", (128, 64))
    mask.paste(255, (64, 0, 128, 64))
    left.paste(255, (8, 8, 40, 56))
    asked = {**REQUEST, "init_images": [picture], "mask": b64(mask), "inpainting_fill": 1}
    single = webui.generate("img2img", **asked, denoising_strength=0.7, inpaint_full_res=False)
    subject = {"kind": "subject", "mask": b64(left), "checkpoint": "ink", "denoising_strength": 0.6, "steps": 3}
    own = plan(SOFT, {**INK, "switch_at": 0.5}, subject, triptych=True)
    webui.generate("img2img", plan=own, **asked, denoising_strength=0.7, inpaint_full_res=False)
    # what the mask covers: the rest is laid over the request's own picture alone
    places(triptych(webui), pixels(single)[:, 72:])


def test_a_script_is_not_given_it(webui: Webui, picture: str) -> None:
    own = webui.script("Loopback", LOOPBACK)
    answer = webui.generate("img2img", plan=TRIPTYCH, **REQUEST, init_images=[picture], **own)
    assert not any("Multipass triptych" in text for text in answer.infotexts)


def test_the_panel_s_checkbox_adds_it_to_the_gallery(page: Page, panel: Panel, webui: Webui) -> None:
    panel.put(HALF)
    panel.by_id("whole").locator("summary").click()
    panel.form.get_by_role("checkbox", name="Triptych").check()
    set_request(page, steps=10)
    generate(page)
    expect(page.locator("#txt2img_gallery .thumbnails button")).to_have_count(2)
    source = choose_picture(page, 1).get_attribute("src")
    assert source is not None
    told = "Multipass triptych: soft alone | ink alone | soft then ink"
    expect(page.locator("#html_info_txt2img").first).to_contain_text(told)
    shown = Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")
    assert np.array_equal(np.asarray(shown), triptych(webui))
