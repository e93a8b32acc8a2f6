"""The panel in a real browser on the real webui, used as a person would use it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.webui.host import Webui

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
# Debian's chromium knocks at its maker's door otherwise
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


THREE = {
    "version": 1,
    "switch_unit": "step",
    "passes": [
        {"checkpoint": "soft", "name": "one"},
        {"checkpoint": "ink", "switch_at": 2, "prompt": 'b, "quoted": c', "prompt_mode": "append"},
        {"checkpoint": "soft", "switch_at": 6, "name": "back"},
    ],
}
REQUEST = {"prompt": "a red apple", "seed": 7, "steps": 10, "width": 64, "height": 64, "sampler_name": "Euler"}


@pytest.fixture
def page(browser: Browser, webui: Webui) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1300})
    page.goto(webui.url)
    expect(page.locator("#txt2img_generate")).to_be_visible(timeout=60_000)
    expect(page.locator("#multipass_txt2img_form fieldset")).to_have_count(2, timeout=30_000)
    yield page
    page.close()


def open_panel(page: Page, tab: str = "txt2img") -> None:
    page.locator(f"#multipass_{tab} .label-wrap").click()
    expect(page.locator(f"#multipass_{tab}_form")).to_be_visible()


def set_request(page: Page, webui: Webui) -> None:
    page.locator("#txt2img_prompt textarea").fill("a fox")
    for name, value in (("width", 128), ("height", 128), ("steps", 20), ("cfg_scale", 4)):
        field = page.locator(f"#txt2img_{name} input[type=number]")
        field.fill(str(value))
        field.press("Tab")
    page.locator("#txt2img_seed input").fill("20")


def generate(page: Page) -> str:
    """Press Generate and return the infotext under the picture."""
    page.locator("#txt2img_generate").click()
    expect(page.locator("#txt2img_gallery img").first).to_be_visible(timeout=60_000)
    told = page.locator("#html_info_txt2img .infotext, #html_info_txt2img p").first
    expect(told).to_be_visible(timeout=30_000)
    expect(page.locator("#txt2img_interrupt")).to_be_hidden(timeout=30_000)
    return told.inner_text()


def plan_in(infotext: str) -> dict[str, object]:
    found = re.search(r'Multipass: ("(?:\\.|[^\\"])+")', infotext)
    assert found is not None, infotext
    return json.loads(json.loads(found[1]))


def plan_field(page: Page, tab: str = "txt2img") -> str:
    return page.locator(f"#multipass_{tab}_plan textarea, #multipass_{tab}_plan input").input_value()


def screenshot(page: Page, webui: Webui, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}-{webui.install.host}.png")


def choose(page: Page, index: int, checkpoint: str, tab: str = "txt2img") -> None:
    select = page.locator(f"#multipass_{tab}_{index}_checkpoint")
    select.focus()
    listed = select.locator("option").all_inner_texts()
    select.select_option(next(name for name in listed if name.split(" [")[0] == checkpoint))


def test_two_passes_from_the_panel_to_the_picture(page: Page, webui: Webui) -> None:
    open_panel(page)
    set_request(page, webui)
    choose(page, 0, "soft")
    choose(page, 1, "ink")
    page.locator("#multipass_txt2img_1_switch_at").fill("0.3")
    page.locator("#multipass_txt2img_1_negative_prompt").fill("a bus")
    # Generate right after typing: what was typed counts
    page.locator("#multipass_txt2img_1_prompt").press_sequentially("a fox face")
    webui.arm()
    infotext = generate(page)
    screenshot(page, webui, "panel")
    passes = plan_in(infotext)["passes"]
    assert isinstance(passes, list)
    assert [own["checkpoint"].split(" [")[0] for own in passes] == ["soft", "ink"]
    assert passes[1]["switch_at"] == 0.3
    assert (passes[1]["prompt"], passes[1]["negative_prompt"]) == ("a fox face", "a bus")
    assert re.search(r"Multipass passes: \"?Pass 1 soft \[\w+\] 1-6; Pass 2 ink \[\w+\] 7-20", infotext)
    assert webui.state()["evaluations"] == ["soft"] * 6 + ["ink"] * 14


def test_closed_means_off(page: Page, webui: Webui) -> None:
    set_request(page, webui)
    assert "Multipass" not in generate(page)


def test_a_pasted_picture_fills_the_panel_with_more_than_it_shows(page: Page, webui: Webui) -> None:
    rendered = webui.generate(plan=THREE, **REQUEST)
    page.locator("#txt2img_prompt textarea").fill(rendered.infotexts[0])
    page.locator("#paste").first.click()
    expect(page.locator("#multipass_txt2img_form fieldset")).to_have_count(3)
    expect(page.locator("#multipass_txt2img_form")).to_be_visible()
    assert json.loads(plan_field(page)) == plan_in(rendered.infotexts[0])
    screenshot(page, webui, "pasted")
    # an edit changes what was edited and nothing else
    page.locator("#multipass_txt2img_2_prompt").fill("d")
    changed = plan_in(rendered.infotexts[0])
    changed["passes"][2]["prompt"] = "d"  # type: ignore[index]
    assert json.loads(plan_field(page)) == changed
    webui.arm()
    assert plan_in(generate(page)) == changed


@pytest.mark.parametrize("way", ["PNG Info", "dropped on the prompt"])
def test_c13_a_picture_given_to_the_page_renders_again(page: Page, webui: Webui, tmp_path: Path, way: str) -> None:
    answer = webui.try_generate(plan=THREE, **REQUEST)
    rendered = webui.read(answer)
    picture = tmp_path / "picture.png"
    picture.write_bytes(base64.b64decode(answer.json()["images"][0]))
    if way == "PNG Info":
        page.locator("#tabs button", has_text="PNG Info").first.click()
        page.locator("#pnginfo_image input[type=file]").set_input_files(picture)
        expect(page.locator("#tab_pnginfo").get_by_text("Multipass passes").first).to_be_visible(timeout=30_000)
        page.locator("#tab_pnginfo #txt2img_tab").click()
    else:
        page.locator("#txt2img_prompt_image input[type=file]").set_input_files(picture)
        expect(page.locator("#txt2img_prompt textarea")).to_have_value(re.compile("Multipass"), timeout=30_000)
        page.locator("#paste").first.click()
    expect(page.locator("#multipass_txt2img_form fieldset")).to_have_count(3, timeout=30_000)
    assert json.loads(plan_field(page)) == plan_in(rendered.infotexts[0])
    expect(page.locator("#txt2img_steps input[type=number]")).to_have_value("10")
    webui.arm()
    generate(page)
    assert tuple(webui.state()["latents"]) == rendered.latents[-1:]


def test_pasting_a_picture_without_a_plan_keeps_the_plan(page: Page, webui: Webui) -> None:
    page.locator("#multipass_txt2img_1_prompt").evaluate(
        "(field) => { field.value = 'mine'; field.dispatchEvent(new Event('input')); }"
    )
    kept = plan_field(page)
    assert json.loads(kept)["passes"][1]["prompt"] == "mine"
    page.locator("#txt2img_prompt textarea").fill("a cat\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64")
    page.locator("#paste").first.click()
    expect(page.locator("#txt2img_steps input[type=number]")).to_have_value("9")
    assert plan_field(page) == kept


def test_c8_the_panel_tells_before_which_steps_are_whose(page: Page, webui: Webui) -> None:
    preview = page.locator("#multipass_txt2img_form .multipass-preview")
    set_request(page, webui)
    open_panel(page)
    choose(page, 1, "ink")
    expect(preview).to_have_text("Pass 1: steps 1-10 · Pass 2: steps 11-20", timeout=30_000)
    steps = page.locator("#txt2img_steps input[type=number]")
    steps.fill("8")
    steps.press("Tab")
    expect(preview).to_have_text("Pass 1: steps 1-4 · Pass 2: steps 5-8", timeout=30_000)
    assert re.search(r"Multipass passes: .*1-4; .*5-8", generate(page))
    page.evaluate(
        """() => {
            const field = gradioApp().querySelector("#multipass_txt2img_plan textarea");
            field.value = JSON.stringify({version: 1, passes: [{checkpoint: "gone"}, {switch_at: 0.5}]});
            field.dispatchEvent(new Event("input", {bubbles: true}));
        }"""
    )
    expect(preview).to_contain_text('passes[0].checkpoint: the webui lists no checkpoint "gone"', timeout=30_000)
    expect(preview).to_have_class(re.compile("multipass-refused"))


def test_c8_a_refine_pass_takes_its_strength_from_the_hires_fix_or_the_init_image(page: Page, webui: Webui) -> None:
    refined = {"version": 1, "passes": [{}, {"kind": "refine", "sampler_name": "Euler"}]}
    fill = """([tab, plan]) => {
        const field = gradioApp().querySelector(`#multipass_${tab}_plan textarea`);
        field.value = JSON.stringify(plan);
        field.dispatchEvent(new Event("input", {bubbles: true}));
    }"""
    open_panel(page)
    page.evaluate(fill, ["txt2img", refined])
    preview = page.locator("#multipass_txt2img_form .multipass-preview")
    expect(preview).to_contain_text("passes[1].denoising_strength: required: ", timeout=30_000)
    page.locator("#txt2img_hr .label-wrap").click()
    expect(preview).to_have_text("Pass 1: steps 1-20 · Pass 2: steps 1-20", timeout=30_000)
    page.locator("#txt2img_hr .label-wrap").click()
    expect(preview).to_contain_text("passes[1].denoising_strength: required: ", timeout=30_000)

    page.locator("#tabs button", has_text="img2img").first.click()
    open_panel(page, "img2img")
    page.evaluate(fill, ["img2img", refined])
    strength = page.locator("#img2img_denoising_strength input[type=number]")
    strength.fill("0.5")
    strength.press("Tab")
    preview = page.locator("#multipass_img2img_form .multipass-preview")
    expect(preview).to_have_text("Pass 1: steps 1-11 · Pass 2: steps 1-20", timeout=30_000)
    strength.fill("0")
    strength.press("Tab")
    expect(preview).to_contain_text("Pass 2: no step", timeout=30_000)


def test_what_is_refused_is_said_in_the_page(page: Page, webui: Webui) -> None:
    if webui.install.host in ("classic", "reforge"):
        pytest.skip("this host tells no exception's text in its page, only its API does")
    set_request(page, webui)
    open_panel(page)
    page.evaluate(
        """() => {
            const field = gradioApp().querySelector("#multipass_txt2img_plan textarea");
            field.value = JSON.stringify({version: 1, passes: [{checkpoint: "gone"}]});
            field.dispatchEvent(new Event("input", {bubbles: true}));
        }"""
    )
    page.locator("#txt2img_generate").click()
    expect(page.locator("#html_log_txt2img, #html_info_txt2img").filter(has_text="gone").first).to_contain_text(
        'passes[0].checkpoint: the webui lists no checkpoint "gone"', timeout=30_000
    )


def test_img2img_has_a_panel_of_its_own(page: Page, webui: Webui) -> None:
    page.locator("#tabs button", has_text="img2img").first.click()
    open_panel(page, "img2img")
    choose(page, 1, "ink", "img2img")
    page.locator("#multipass_img2img_1_prompt").fill("only here")
    assert json.loads(plan_field(page, "img2img"))["passes"][1]["prompt"] == "only here"
    assert "only here" not in plan_field(page)
