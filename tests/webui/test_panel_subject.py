"""Subject passes in the panel: what is looked for, masks that are uploaded or drawn, and the prompt in three parts."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw
from playwright.sync_api import Page, Route, expect

from multipass.masks import read
from tests.webui.asking import b64, image_of, plan_in
from tests.webui.browsing import ANSWER_MS, Panel, generate, screenshot, set_request, type_in
from tests.webui.host import Webui

SUBJECT = {"kind": "subject", "target": "person", "denoising_strength": 0.5}


@pytest.fixture
def subject(page: Page, webui: Webui) -> Panel:
    """A panel whose second pass is a subject pass, and is shown."""
    panel = Panel(page, webui).open()
    panel.by_id("kind").select_option("subject")
    assert panel.passes == [{}, SUBJECT]
    return panel


def mask_in(panel: Panel) -> Image.Image:
    return image_of(panel.passes[1]["mask"]).convert("L")


def test_what_is_looked_for_is_chosen(subject: Panel) -> None:
    which = subject.by_id("which")
    which.select_option("largest")
    assert subject.passes[1] == {**SUBJECT, "which": "largest"}
    which.select_option("1")
    assert subject.passes[1] == {**SUBJECT, "which": 1}
    expect(which.locator("option:checked")).to_have_text("From the left, number 2")
    which.select_option("")
    assert subject.passes[1] == SUBJECT
    # one that the list does not go up to
    subject.put({"version": 1, "passes": [{}, {**SUBJECT, "which": 11}]})
    expect(which).to_have_value("11")
    expect(which.locator("option:checked")).to_have_text("From the left, number 12")
    # nor any picture
    subject.put({"version": 1, "passes": [{}, {**SUBJECT, "which": 10**9}]})
    expect(which).to_have_value(str(10**9))
    expect(subject.notes).to_contain_text("from 0 to 99", timeout=ANSWER_MS)
    expect(which.locator("option")).to_have_count(1 + 2 + 8 + 1)


def test_what_is_left_out_shows_its_default(subject: Panel) -> None:
    subject.more()
    expect(subject.by_id("mask_blur")).to_have_attribute("placeholder", "4")
    expect(subject.by_id("mask_padding")).to_have_attribute("placeholder", "32")
    expect(subject.by_id("on_missing").locator("option:checked")).to_have_text("Go on unchanged (default)")
    expect(subject.by_id("only_masked")).to_be_checked()
    expect(subject.by_id("invert")).not_to_be_checked()
    subject.by_id("invert").check()
    subject.by_id("mask_blur").fill("0")
    subject.by_id("width").fill("256")
    subject.by_id("on_missing").select_option("error")
    assert subject.passes[1] == {**SUBJECT, "invert": True, "mask_blur": 0, "width": 256, "on_missing": "error"}
    # the whole picture has no working size
    subject.by_id("only_masked").uncheck()
    assert subject.passes[1] == {**SUBJECT, "invert": True, "mask_blur": 0, "on_missing": "error", "only_masked": False}
    subject.by_id("only_masked").check()
    subject.by_id("invert").uncheck()
    assert subject.passes[1] == {**SUBJECT, "mask_blur": 0, "on_missing": "error"}
    screenshot(subject.page, subject.webui, "panel-subject", subject.form)


def test_a_mask_is_uploaded_in_place_of_a_target(subject: Panel, tmp_path: Path) -> None:
    subject.by_id("which").select_option("largest")
    picture = Image.new("RGB", (64, 48), (20, 0, 0))
    ImageDraw.Draw(picture).rectangle((10, 12, 29, 31), "ivory")
    picture.save(tmp_path / "mask.png")
    subject.by_id("mask_file").set_input_files(tmp_path / "mask.png")
    expect(subject.by_id("mask_remove")).to_be_visible()
    assert set(subject.passes[1]) == {"kind", "denoising_strength", "mask"}
    mask = mask_in(subject)
    assert mask.size == (64, 48)
    assert mask.getbbox() == (10, 12, 30, 32)
    assert mask.getcolors() == [(64 * 48 - 400, 0), (400, 255)]
    # and given up again
    subject.by_id("mask_remove").click()
    assert subject.passes[1] == SUBJECT


def test_a_mask_with_an_alpha_channel_is_read_by_it(subject: Panel, tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    ImageDraw.Draw(picture).rectangle((10, 12, 29, 31), "black")
    picture.save(tmp_path / "mask.png")
    subject.by_id("mask_file").set_input_files(tmp_path / "mask.png")
    expect(subject.by_id("mask_remove")).to_be_visible()
    server = read(base64.b64encode((tmp_path / "mask.png").read_bytes()).decode())
    assert server.getbbox() == (10, 12, 30, 32)
    assert mask_in(subject).tobytes() == server.tobytes()
    # nor is one that came so lost by drawing on it
    given = base64.b64encode((tmp_path / "mask.png").read_bytes()).decode()
    subject.put({"version": 1, "passes": [{}, {"kind": "subject", "denoising_strength": 0.5, "mask": given}]})
    for name, side in (("width", 64), ("height", 64)):
        type_in(subject.page, f"#txt2img_{name}", side)
    subject.by_id("mask").click()
    subject.by_id("mask_use").click()
    expect(subject.by_id("mask_pad")).to_have_count(0)
    assert mask_in(subject).tobytes() == server.tobytes()


def test_what_is_no_picture_is_said_and_changes_nothing(subject: Panel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not one")
    subject.by_id("mask_file").set_input_files(tmp_path / "notes.txt")
    expect(subject.by_id("message")).to_contain_text("notes.txt: not a picture")
    assert subject.passes[1] == SUBJECT


def stroke(panel: Panel, begin: float, end: float) -> None:
    """With the pointer over the pad, in its middle, from one part of its width to another."""
    box = panel.by_id("mask_pad").locator("canvas").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    panel.page.mouse.move(box["x"] + begin * box["width"], y)
    panel.page.mouse.down()
    panel.page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    panel.page.mouse.up()


def test_a_mask_is_drawn(subject: Panel) -> None:
    for name, side in (("width", 320), ("height", 256)):
        type_in(subject.page, f"#txt2img_{name}", side)
    subject.by_id("mask").click()
    stroke(subject, 0.25, 0.5)
    screenshot(subject.page, subject.webui, "panel-mask", subject.by_id("mask_pad"))
    subject.by_id("mask_use").click()
    expect(subject.by_id("mask_pad")).to_have_count(0)
    mask = mask_in(subject)
    assert mask.size == (320, 256)
    assert [mask.getpixel((x, 128)) for x in (20, 100, 140, 240)] == [0, 255, 255, 0]
    # more of it, and some of it taken away again
    subject.by_id("mask").click()
    stroke(subject, 0.6, 0.9)
    subject.by_id("mask_erase").check()
    stroke(subject, 0.75, 0.75)
    subject.by_id("mask_use").click()
    expect(subject.by_id("mask_pad")).to_have_count(0)
    mask = mask_in(subject)
    assert [mask.getpixel((x, 128)) for x in (20, 100, 200, 240, 280)] == [0, 255, 255, 0, 255]
    # left as it was
    kept = subject.text
    subject.by_id("mask").click()
    subject.by_id("mask_clear").click()
    subject.page.keyboard.press("Escape")
    expect(subject.by_id("mask_pad")).to_have_count(0)
    assert subject.text == kept


def test_strokes_are_undone_and_the_plan_behind_them_is_not(subject: Panel) -> None:
    subject.more()
    subject.by_id("mask_blur").fill("9")
    kept = subject.text
    subject.by_id("mask").click()
    stroke(subject, 0.1, 0.3)
    stroke(subject, 0.6, 0.9)
    subject.page.keyboard.press("Control+z")
    subject.by_id("mask_clear").click()
    subject.by_id("mask_undo").click()
    assert subject.text == kept
    subject.by_id("mask_use").click()
    expect(subject.by_id("mask_pad")).to_have_count(0)
    assert subject.passes[1]["mask_blur"] == 9
    mask = mask_in(subject)
    assert [mask.getpixel((part * mask.width // 10, mask.height // 2)) for part in (2, 7)] == [255, 0]


def show_in_gallery(panel: Panel, grids: int, *pictures: tuple[str, int, int]) -> None:
    """As the webui shows finished pictures, grids first; each by its colour, width and height."""
    panel.page.evaluate(
        """async ([grids, sources]) => {
            const made = gradioApp().querySelector("#generation_info_txt2img textarea");
            made.value = JSON.stringify({index_of_first_image: grids});
            const shown = document.createElement("div");
            shown.className = "grid-wrap";
            for (const src of sources) {
                const picture = document.createElement("img");
                picture.src = src;
                await picture.decode();
                shown.append(picture);
            }
            gradioApp().querySelector("#txt2img_gallery").prepend(shown);
        }""",
        [grids, [f"data:image/png;base64,{b64(Image.new('RGB', size, own))}" for own, *size in pictures]],
    )


def colour_of_pad(panel: Panel, x: float) -> tuple[int, ...]:
    """In its middle, at a part of its width."""
    pad = panel.by_id("mask_pad").locator("canvas")
    script = """(pad, x) => [...pad.getContext("2d").getImageData(x * pad.width, pad.height / 2, 1, 1).data]"""
    return tuple(pad.evaluate(script, x)[:3])


@pytest.mark.parametrize("colour", ["white", "black", "gray", "red"])
def test_what_is_painted_is_seen_on_any_picture(subject: Panel, colour: str) -> None:
    """That is no grid and has the shape of what is to be made."""
    for name, side in (("width", 128), ("height", 64)):
        type_in(subject.page, f"#txt2img_{name}", side)
    show_in_gallery(subject, 1, ("blue", 512, 256), ("green", 128, 128), (colour, 256, 128))
    subject.by_id("mask").click()
    stroke(subject, 0.1, 0.4)
    assert colour_of_pad(subject, 0.8) == ImageColor.getrgb(colour)
    painted = colour_of_pad(subject, 0.25)
    assert sum(abs(one - other) for one, other in zip(painted, ImageColor.getrgb(colour), strict=True)) > 50
    subject.by_id("mask_use").click()
    expect(subject.by_id("mask_pad")).to_have_count(0)
    assert mask_in(subject).size == (256, 128)


TABS = {  # of img2img, each with where it has its picture, and the picture's width
    "Sketch": ("img2img_sketch", 72),
    "Inpaint": ("img2maskimg", 80),
    "Inpaint sketch": ("inpaint_sketch", 88),
    "Inpaint upload": ("img_inpaint_base", 96),
    "img2img": ("img2img_image", 104),
}


def test_in_img2img_a_mask_is_drawn_on_the_picture_of_the_open_tab(page: Page, webui: Webui, tmp_path: Path) -> None:
    panel = Panel(page, webui, "img2img")
    page.locator("#tabs button", has_text="img2img").first.click()
    panel.open().by_id("kind").select_option("subject")
    for name, (component, width) in TABS.items():
        Image.new("RGB", (width, 64), "green").save(tmp_path / f"{component}.png")
        page.locator("#mode_img2img").get_by_role("tab", name=name, exact=True).or_(
            page.locator("#mode_img2img > .tab-nav").get_by_role("button", name=name, exact=True)
        ).first.click()
        given = page.locator(f"#{component} input[type=file]").first
        given.set_input_files(tmp_path / f"{component}.png")
        page.wait_for_function("() => multipass.page.shownPicture('img2img')", timeout=ANSWER_MS)
        panel.by_id("mask").click()
        canvas = panel.by_id("mask_pad").locator("canvas")
        expect(canvas).to_have_attribute("width", str(width))
        stroke(panel, 0.2, 0.8)
        panel.by_id("mask_use").click()
        expect(panel.by_id("mask_pad")).to_have_count(0)
        assert mask_in(panel).size == (width, 64)
        panel.by_id("mask_remove").click()


def ask(panel: Panel, prompt: str, negative_prompt: str = "") -> None:
    panel.page.locator("#txt2img_prompt textarea").fill(prompt)
    panel.page.locator("#txt2img_neg_prompt textarea").fill(negative_prompt)


def told(panel: Panel) -> Any:
    return panel.by_id("scene").locator("li")


def test_the_prompt_is_divided_into_scene_and_subjects(subject: Panel) -> None:
    subject.by_id("name").fill("her")
    subject.by_id("whole").locator("summary").click()
    ask(subject, "a beach BREAK photorealistic BREAK a woman <lora:her:0.8> BREAK a man")
    expect(subject.by_id("scene")).to_be_hidden()
    subject.by_id("prompt_syntax").check()
    assert subject.plan["prompt_syntax"] == "scene-break"
    expect(told(subject)).to_have_text(
        [
            "Pass 1: a beach, photorealistic",
            "her: a woman <lora:her:0.8>, photorealistic",
            "her 2: a man, photorealistic",
        ],
        timeout=ANSWER_MS,
    )
    expect(subject.by_id("prompt")).to_have_attribute("placeholder", "a woman <lora:her:0.8>, photorealistic")
    screenshot(subject.page, subject.webui, "panel-scene", subject.form)
    subject.by_id("scene_make").click()
    assert [own.get("which") for own in subject.passes] == [None, 0, 1]
    expect(subject.pills).to_have_count(3)
    expect(subject.by_id("scene_make")).to_be_hidden()
    # what each is to have none of, too
    ask(subject, "a beach BREAK photorealistic BREAK a woman BREAK a man", "rain BREAK blurry")
    expect(told(subject).nth(0).locator("div")).to_have_text("Negative: rain, blurry", timeout=ANSWER_MS)
    expect(told(subject).nth(1).locator("div")).to_have_text("Negative: blurry")
    # no warning that the panel's question, which is without the prompt, would make
    expect(subject.notes).not_to_contain_text("prompt of its own")
    # too little of it is said, in its place and there alone
    ask(subject, "a beach")
    expect(told(subject)).to_have_text(
        ["The webui's prompt: expected scene BREAK common BREAK subject, got one part"], timeout=ANSWER_MS
    )
    expect(subject.summary).to_be_empty()
    expect(subject.notes.locator(".multipass-refused")).to_have_count(0)
    subject.by_id("prompt_syntax").uncheck()
    expect(subject.by_id("scene")).to_be_hidden()
    assert "prompt_syntax" not in subject.plan


def test_what_the_webui_says_before_generate_is_also_of_the_passes_that_the_prompt_adds(subject: Panel) -> None:
    ask(subject, "a beach BREAK photorealistic BREAK a woman BREAK a man")
    her = {**SUBJECT, "name": "her", "steps": 4}
    end = {"name": "end", "kind": "refine", "denoising_strength": 0.5, "steps": 6}
    divided = {"version": 1, "prompt_syntax": "scene-break", "passes": [{}, her, end]}
    subject.put(divided)
    # of the bar, the plan's own
    subject.expect_summary("Pass 1 1-20, her 1-4, her 2 1-4, end 1-6")
    segments = subject.by_id("timeline").locator(".multipass-segment")
    expect(segments).to_have_text(["Pass 1" + "1-20", "her" + "1-4", "end" + "1-6"])
    expect(subject.pills.last).to_contain_text("1-6")
    # what is wrong with an added pass is wrong with no other
    subject.put({**divided, "passes": [{}, {**her, "target": "nobody"}, end]})
    wrong = 'there is no detector "nobody"'
    expect(subject.notes.locator("li")).to_contain_text([f"her, Target: {wrong}", f"prompt: {wrong}"])
    expect(subject.pills.last).not_to_have_class(re.compile("multipass-wrong"))
    # nor are they asked for where the prompt is as it is
    subject.put({"version": 1, "passes": [{}, {"switch_at": 0.5}]})
    subject.expect_summary("Pass 1 1-10, Pass 2 11-20")


def test_passes_are_not_made_of_what_the_prompt_or_the_plan_was(subject: Panel) -> None:
    subject.by_id("whole").locator("summary").click()
    subject.by_id("prompt_syntax").check()
    ask(subject, "a beach BREAK photorealistic BREAK a woman BREAK a man")
    make = subject.by_id("scene_make")
    expect(make).to_be_visible(timeout=ANSWER_MS)
    # answers come late from here on
    held: list[Route] = []
    subject.page.route("**/multipass/v1/texts", lambda route: held.append(route))  # noqa: PLW0108 - as in browsing
    subject.by_id("name").fill("her")
    expect(make).to_be_hidden()
    while not held:
        subject.page.wait_for_timeout(50)
    subject.by_id("name").fill("him")
    held.pop(0).continue_()
    subject.page.wait_for_timeout(300)
    assert not make.is_visible(), "that answer is of another plan"
    while not held:
        subject.page.wait_for_timeout(50)
    held.pop(0).continue_()
    expect(make).to_be_visible(timeout=ANSWER_MS)
    # at once after the prompt has changed, which nobody has seen yet
    subject.page.evaluate(
        """() => {
            const prompt = gradioApp().querySelector("#txt2img_prompt textarea");
            prompt.value = "a beach BREAK photorealistic BREAK a dog BREAK a cat BREAK a cow";
            prompt.dispatchEvent(new Event("input", {bubbles: true}));
            document.querySelector("#multipass_txt2img_scene_make").click();
        }"""
    )
    expect(subject.by_id("message")).to_contain_text("The prompt has changed meanwhile")
    assert [own.get("name") for own in subject.passes] == [None, "him"]


def test_a_prompt_in_three_parts_renders(subject: Panel, tmp_path: Path) -> None:
    """And the picture fills the panel with what was rendered."""
    set_request(subject.page, 4)
    ask(subject, "a beach BREAK photorealistic BREAK a fox <lora:one:0.8>")
    picture = Image.new("L", (128, 128))
    picture.paste(255, (32, 32, 96, 96))
    picture.save(tmp_path / "mask.png")
    subject.by_id("mask_file").set_input_files(tmp_path / "mask.png")
    expect(subject.by_id("mask_remove")).to_be_visible()
    subject.pick("ink")
    subject.by_id("whole").locator("summary").click()
    subject.by_id("prompt_syntax").check()
    expect(told(subject)).to_have_count(2)
    infotext = generate(subject.page)
    rendered = plan_in(infotext)
    assert rendered["prompt_syntax"] == "scene-break"
    assert rendered["passes"][1]["checkpoint"].startswith("ink [")
    image = subject.webui.get("/multipass/v1/runs/latest")["images"][0]
    assert [(own["kind"], own["subjects"]) for own in image["passes"]] == [("first", None), ("subject", 1)]
    subject.put({"version": 1, "passes": [{}]})
    expect(subject.pills).to_have_count(1)
    ask(subject, infotext)
    subject.page.locator("#paste").first.click()
    expect(subject.pills).to_have_count(2)
    assert subject.plan == rendered
