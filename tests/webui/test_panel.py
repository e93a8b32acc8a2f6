"""The panel from the first look to the picture, on the real webui: what is shown, what is kept, what is asked."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.webui import browsing
from tests.webui.asking import plan_in
from tests.webui.browsing import ANSWER_MS, REQUEST, THREE, Panel, generate, screenshot, set_request, type_in
from tests.webui.host import Webui

# --- to a picture -----------------------------------------------------------------------------------------------------


def test_two_passes_from_the_panel_to_the_picture(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    expect(panel.by_id("more")).not_to_have_attribute("open", "")
    panel.choose(0).pick("soft")
    panel.choose(1).pick("ink")
    panel.by_id("switch_at").fill("0.3")
    panel.by_id("negative_prompt").fill("a bus")
    # Generate right after typing: what was typed counts
    panel.by_id("prompt").press_sequentially("a fox face")
    webui.arm()
    infotext = generate(page)
    screenshot(page, webui, "panel")
    passes = plan_in(infotext)["passes"]
    assert [own["checkpoint"].split(" [")[0] for own in passes] == ["soft", "ink"]
    assert passes[1]["switch_at"] == 0.3
    assert (passes[1]["prompt"], passes[1]["negative_prompt"]) == ("a fox face", "a bus")
    assert re.search(r"Multipass passes: \"?Pass 1 soft \[\w+\] 1-6; Pass 2 ink \[\w+\] 7-20", infotext)
    assert webui.state()["evaluations"] == ["soft"] * 6 + ["ink"] * 14


def test_all_that_a_newcomer_has_to_do(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    screenshot(page, webui, "panel-first", panel.form)
    panel.pick("ink")
    webui.arm()
    generate(page)
    assert webui.state()["evaluations"] == ["soft"] * 10 + ["ink"] * 10


def test_sixteen_passes(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    panel.by_id("remove").click()
    panel.pick("soft")
    for _ in range(15):
        panel.by_id("add").click()
    expect(panel.pills).to_have_count(16)
    expect(panel.by_id("add")).to_be_disabled()
    expect(panel.by_id("duplicate")).to_be_disabled()
    for index in range(1, 16):
        panel.choose(index).pick("ink" if index % 2 else "soft")
        panel.by_id("switch_at").fill(str(index / 16))
    panel.expect_summary(re.compile("^Pass 1 1-2, .*, Pass 16 20$"))
    screenshot(page, webui, "panel-sixteen", panel.form)
    webui.arm()
    infotext = generate(page)
    assert len(plan_in(infotext)["passes"]) == 16
    evaluations = webui.state()["evaluations"]
    begins = [next(step for step in range(20) if step / 20 >= index / 16) for index in range(16)] + [20]
    steps = [end - begin for begin, end in pairwise(begins)]
    assert evaluations == [("soft", "ink")[index % 2] for index in range(16) for _ in range(steps[index])]


def test_closed_means_off_and_asks_nothing(page: Page, webui: Webui) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/multipass/" in request.url else None)
    set_request(page)
    assert "Multipass" not in generate(page)
    page.wait_for_timeout(1500)
    assert asked == []
    panel = Panel(page, webui).open()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    # open, but switched off
    page.locator("#multipass_txt2img-visible-checkbox").click()
    page.wait_for_timeout(700)  # for what was already on its way
    asked.clear()
    type_in(page, "#txt2img_steps", 12)
    panel.by_id("switch_at").fill("0.7")
    page.wait_for_timeout(1500)
    assert asked == []
    assert panel.passes[1]["switch_at"] == 0.7


def test_an_open_panel_asks_only_when_something_has_changed(panel: Panel) -> None:
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    panel.page.wait_for_timeout(1500)
    asked: list[str] = []
    panel.page.on("request", lambda request: asked.append(request.url) if "/multipass/" in request.url else None)
    panel.page.wait_for_timeout(2000)
    assert asked == []


def test_what_is_refused_is_said_in_the_page(page: Page, webui: Webui) -> None:
    if webui.install.host in ("classic", "reforge"):
        pytest.skip("this host tells no exception's text in its page, only its API does")
    set_request(page)
    Panel(page, webui).open().put({"version": 1, "passes": [{"checkpoint": "gone"}]})
    page.locator("#txt2img_generate").click()
    expect(page.locator("#html_log_txt2img, #html_info_txt2img").filter(has_text="gone").first).to_contain_text(
        'Pass 1, Checkpoint: the webui lists no checkpoint "gone"', timeout=ANSWER_MS
    )


def test_img2img_has_a_panel_of_its_own(page: Page, webui: Webui) -> None:
    page.locator("#tabs button", has_text="img2img").first.click()
    panel = Panel(page, webui, "img2img").open()
    panel.pick("ink")
    panel.by_id("prompt").fill("only here")
    assert panel.passes[1]["prompt"] == "only here"
    assert "only here" not in Panel(page, webui).text


# --- what is in a picture ---------------------------------------------------------------------------------------------


def test_a_pasted_picture_fills_the_panel_with_more_than_it_shows(page: Page, webui: Webui) -> None:
    rendered = webui.generate(plan=THREE, **REQUEST)
    page.locator("#txt2img_prompt textarea").fill(rendered.infotexts[0])
    page.locator("#paste").first.click()
    panel = Panel(page, webui)
    expect(panel.pills).to_have_count(3)
    expect(panel.form).to_be_visible()
    assert panel.plan == plan_in(rendered.infotexts[0])
    # an edit changes what was edited and nothing else
    panel.choose(2).by_id("prompt").fill("d")
    changed = plan_in(rendered.infotexts[0])
    changed["passes"][2]["prompt"] = "d"
    assert panel.plan == changed
    webui.arm()
    assert plan_in(generate(page)) == changed
    # a paste can be taken back
    panel.by_id("undo").click()
    panel.by_id("undo").click()
    assert panel.passes == [{}, {"switch_at": 0.5}]


@pytest.mark.parametrize("way", ["PNG Info", "dropped on the prompt"])
def test_c13_a_picture_given_to_the_page_renders_again(page: Page, webui: Webui, tmp_path: Path, way: str) -> None:
    answer = webui.try_generate(plan=THREE, **REQUEST)
    rendered = webui.read(answer)
    picture = tmp_path / "picture.png"
    picture.write_bytes(base64.b64decode(answer.json()["images"][0]))
    if way == "PNG Info":
        page.locator("#tabs button", has_text="PNG Info").first.click()
        page.locator("#pnginfo_image input[type=file]").set_input_files(picture)
        expect(page.locator("#tab_pnginfo").get_by_text("Multipass passes").first).to_be_visible(timeout=ANSWER_MS)
        page.locator("#tab_pnginfo #txt2img_tab").click()
    else:
        page.locator("#txt2img_prompt_image input[type=file]").set_input_files(picture)
        expect(page.locator("#txt2img_prompt textarea")).to_have_value(re.compile("Multipass"), timeout=ANSWER_MS)
        page.locator("#paste").first.click()
    panel = Panel(page, webui)
    expect(panel.pills).to_have_count(3, timeout=ANSWER_MS)
    assert panel.plan == plan_in(rendered.infotexts[0])
    expect(page.locator("#txt2img_steps input[type=number]")).to_have_value("10")
    webui.arm()
    generate(page)
    assert tuple(webui.state()["latents"]) == rendered.latents[-1:]


def test_pasting_a_picture_without_a_plan_keeps_the_plan(page: Page, webui: Webui) -> None:
    panel = Panel(page, webui).open()
    panel.by_id("prompt").fill("mine")
    kept = panel.text
    page.locator("#txt2img_prompt textarea").fill("a cat\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64")
    page.locator("#paste").first.click()
    expect(page.locator("#txt2img_steps input[type=number]")).to_have_value("9")
    assert panel.text == kept


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["browser", "Reload UI"])
def test_the_plan_survives_a_reload(page: Page, webui: Webui, way: str) -> None:
    panel = Panel(page, webui).open()
    panel.pick("ink")
    panel.by_id("prompt").fill("kept\nin two lines")
    kept = panel.text
    if way == "Reload UI":
        panel.expect_summary("Pass 1 1-10, Pass 2 11-20")  # nothing is asked any more: AUTOMATIC1111 waits for that
        page.evaluate("window.before = true")
        ping = re.compile("/internal/ping")  # answered in the middle of it, AUTOMATIC1111 can end
        page.route(ping, lambda route: route.abort())
        page.evaluate("restart_reload()")  # as the button does
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        webui.reload_ui()
        assert [url for url in asked if not ping.search(url)] == []
        page.unroute(ping)  # the page comes back by itself
        page.wait_for_function("!window.before", timeout=120_000)
        browsing.wait(page)
    else:
        browsing.load(page, webui.url)
    expect(panel.form).to_be_visible(timeout=ANSWER_MS)  # and on
    assert panel.text == kept
    expect(panel.choose(1).by_id("prompt")).to_have_value("kept\nin two lines")
    set_request(page, 4)
    assert plan_in(generate(page))["passes"][1]["prompt"] == "kept\nin two lines"
    # off stays off
    page.locator("#multipass_txt2img .label-wrap").click()
    browsing.load(page, webui.url)
    page.wait_for_timeout(500)
    expect(panel.form).to_be_hidden()
    assert panel.text == kept


def test_the_plan_goes_along_to_img2img(page: Page, webui: Webui) -> None:
    set_request(page, 4)
    panel = Panel(page, webui).open()
    panel.pick("ink")
    panel.by_id("prompt").fill("sent along")
    generate(page)
    page.locator("#txt2img_send_to_img2img").click()
    other = Panel(page, webui, "img2img")
    expect(other.form).to_be_visible(timeout=ANSWER_MS)
    assert other.passes[1]["prompt"] == "sent along"
    assert other.passes[1]["checkpoint"].startswith("ink [")
    # a plan that is off stays where it is
    other.by_id("prompt").fill("of img2img")
    page.locator("#tabs button", has_text="txt2img").first.click()
    page.locator("#multipass_txt2img .label-wrap").click()
    page.locator("#txt2img_send_to_img2img").click()
    expect(other.form).to_be_visible(timeout=ANSWER_MS)
    page.wait_for_timeout(1000)
    assert other.passes[other.chosen]["prompt"] == "of img2img"


def test_styles_leave_the_plan_alone(page: Page, webui: Webui) -> None:
    set_request(page, 4)
    panel = Panel(page, webui).open()
    panel.by_id("prompt").fill("mine")
    kept = panel.text
    styles = page.locator("#txt2img_styles input").first
    styles.click()
    page.locator("#txt2img_styles").get_by_text("starry").or_(page.get_by_role("option", name="starry")).first.click()
    page.locator("#txt2img_style_apply").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value(re.compile("a star"), timeout=ANSWER_MS)
    assert panel.text == kept


@pytest.mark.parametrize(
    "plan",
    [
        {"version": 1, "passes": [{}, {"kind": "blend"}]},
        {"version": 1, "passes": [{}, []]},
        {"version": 1, "passes": [{}, {"switch_at": 0.5}], "common": "text"},
        {"version": 1, "passes": [{}, {"switch_at": 0.5}], "adetailer": 1},
    ],
)
def test_a_text_that_the_form_cannot_show_breaks_nothing(page: Page, webui: Webui, plan: dict[str, object]) -> None:
    panel = Panel(page, webui).open().put(plan)
    expect(panel.notes.locator("li")).to_have_class("multipass-refused", timeout=ANSWER_MS)
    expect(panel.pills).to_have_count(2)
    browsing.load(page, webui.url)
    expect(panel.form).to_be_visible(timeout=ANSWER_MS)
    expect(Panel(page, webui, "img2img").form.locator("[role=tab]")).to_have_count(2)  # hidden, but there
    panel.choose(1).by_id("prompt").fill("x")
    assert panel.passes == [{}, {"switch_at": 0.5, "prompt": "x"}]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, '{"error": "OSError", "detail": "", "errors": "the disk is full"}', "the disk is full"),
        (401, '{"detail": "Not authenticated"}', "Not authenticated"),
        (502, "<html>", "HTTP 502"),
    ],
)
def test_no_answer_is_told_and_asked_again(page: Page, webui: Webui, status: int, body: str, told: str) -> None:
    panel = Panel(page, webui).open()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    page.route("**/multipass/v1/validate", lambda route: route.fulfill(status=status, body=body))
    panel.by_id("switch_at").fill("0.6")
    expect(panel.by_id("message")).to_contain_text(told, timeout=ANSWER_MS)
    expect(panel.summary).to_be_empty()
    page.unroute("**/multipass/v1/validate")
    panel.expect_summary("Pass 1 1-12, Pass 2 13-20")  # with nothing done
    expect(panel.by_id("message")).to_be_empty()


# --- how it looks -----------------------------------------------------------------------------------------------------

SHOWN = {
    "version": 1,
    "common": {"prompt": "sunset"},
    "passes": [
        {"name": "composition", "checkpoint": "soft"},
        {"name": "style", "switch_at": 0.4, "checkpoint": "ink", "prompt": "masterpiece, a fox", "cfg_scale": 5},
        {"name": "photo", "kind": "refine", "denoising_strength": 0.35, "steps": 12, "scale": 1.5},
    ],
}


def contrast(one: str, other: str) -> float:
    """Of two colours as the browser tells them, as WCAG has it."""

    def luminance(colour: str) -> float:
        parts = [int(own) / 255 for own in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (own / 12.92 if own <= 0.04045 else ((own + 0.055) / 1.055) ** 2.4 for own in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(browser: Browser, webui: Webui, theme: str, width: int) -> None:
    with browsing.opened(browser, f"{webui.url}?__theme={theme}", width) as page:
        page.locator("#txt2img_prompt textarea").fill("a fox")
        panel = Panel(page, webui).open().put(SHOWN)
        panel.expect_summary("composition 1-8, style 9-20, photo 1-12")
        panel.more()
        panel.by_id("whole").locator("summary").click()
        panel.form.scroll_into_view_if_needed()
        screenshot(page, webui, f"panel-{theme}-{width}", panel.form)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = panel.form.evaluate(
            """(form) => {
                const right = (own) => own.getBoundingClientRect().right;
                const shown = [...form.querySelectorAll("*")].filter((own) => own.checkVisibility());
                return shown.filter((own) => right(own) > right(form) + 8).map((own) => own.outerHTML);
            }"""
        )
        assert outside == []
        # text and what is behind it differ, in either theme
        ink = panel.by_id("prompt").evaluate(
            "(own) => [getComputedStyle(own).color, getComputedStyle(own).backgroundColor]"
        )
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in ink]
        assert abs(light[0] - light[1]) > 0.4
        assert (light[0] > light[1]) == (theme == "dark")
        segments = panel.form.locator(".multipass-segment").evaluate_all(
            """(all) => all.flatMap((bar) => [...bar.children].map((own) =>
                [getComputedStyle(own).color, getComputedStyle(bar).backgroundColor]))"""
        )
        # what is wrong is red in both
        panel.put({"version": 1, "passes": [{"checkpoint": "gone"}]})
        wrong = panel.notes.locator(".multipass-refused")
        expect(wrong).to_have_count(1)
        red, green, blue, *_ = map(int, re.findall(r"\d+", wrong.evaluate("(own) => getComputedStyle(own).color")))
        assert red > 200 > max(green, blue)
        assert len(segments) == 6
        assert all(contrast(*colours) >= 4.5 for colours in segments), segments


def test_every_field_has_a_name_and_an_id_of_its_own(panel: Panel) -> None:
    panel.put(SHOWN)
    expect(panel.pills).to_have_count(3)
    for index in range(3):
        panel.choose(index)
        if index == 0:
            panel.more()
        without_id = panel.page.evaluate(
            """[...document.querySelectorAll(".multipass-form :is(input, select, textarea)")]
                .filter((own) => !own.id).map((own) => own.outerHTML)"""
        )
        assert without_id == []
        found = panel.form.evaluate(
            """(form) => [...form.querySelectorAll("input:not([type=file]), select, textarea, button, [role=slider]")]
                .map((own) => [own.outerHTML, own.labels?.[0]?.textContent || own.getAttribute("aria-label")
                    || own.textContent.trim()])"""
        )
        assert all(name for _, name in found), found
        ids = panel.page.evaluate("[...document.querySelectorAll('[id^=multipass_]')].map((own) => own.id)")
        assert len(ids) == len(set(ids))
        expect(panel.form.get_by_role("tabpanel")).to_have_attribute(
            "aria-labelledby", f"multipass_txt2img_pill_{index}"
        )


def test_the_keyboard_goes_through_it_in_the_order_that_is_seen(panel: Panel) -> None:
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    panel.by_id("pill_1").focus()
    order = []
    for _ in range(14):
        panel.page.keyboard.press("Tab")
        order.append(panel.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    names = [own.removeprefix("multipass_txt2img_") for own in order]
    assert names == [
        "add", "presets_open", "boundary_1", "name", "kind", "enabled", "move_left", "duplicate", "remove",
        "checkpoint", "checkpoint_refresh", "switch_at_slider", "switch_at", "prompt_mode",
    ]  # fmt: skip


def test_the_keyboard_s_place_is_seen(panel: Panel) -> None:
    panel.by_id("kind").focus()
    panel.page.keyboard.press("Tab")
    for name in ("enabled", "move_left"):
        assert panel.page.evaluate("document.activeElement.id") == f"multipass_txt2img_{name}"
        assert panel.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        panel.page.keyboard.press("Tab")


def test_texts_are_in_the_language_of_the_page(browser: Browser, webui: Webui) -> None:
    words = {
        "Checkpoint": "Modell", "More": "Mehr", "inherited": "geerbt", "Switch": "Wechsel", "no step": "kein Schritt",
        "Add a pass, a copy of this one": "Durchgang hinzu", "All passes": "Alle", "soft": "weich", "ink": "Tinte",
        "Slider": "Schieber", "Picture": "Bild", "seed": "Startwert", "picture": "Bild", "Looks": "Ansichten",
    }  # fmt: skip
    # as the webui's own setting does it; the page reads it before anything else
    script = f"Object.defineProperty(window, 'localization', {{value: {json.dumps(words)}, writable: false}});"
    with browsing.opened(browser, webui.url, before=script) as page:
        panel = Panel(page, webui).open()
        expect(panel.form.locator(".multipass-checkpoint label")).to_have_text("Modell")
        expect(panel.by_id("more").locator("summary")).to_have_text("Mehr")
        expect(panel.by_id("checkpoint").locator("option").first).to_contain_text("(geerbt)")
        expect(panel.by_id("kind").locator("option").first).to_have_text("Wechsel")
        expect(panel.by_id("add")).to_have_attribute("title", "Durchgang hinzu")
        expect(panel.by_id("add")).to_have_attribute("aria-label", "Durchgang hinzu")
        # but the names of files are nobody's to translate
        panel.put({"version": 1, "passes": [{"checkpoint": "soft"}, {"switch_at": 0.5}]})
        inherited = panel.by_id("checkpoint").locator("option").first
        expect(inherited).to_have_text("soft (geerbt)")
        assert "weich" not in " ".join(panel.by_id("checkpoint").locator("option").all_inner_texts())
        panel.by_id("switch_at").fill("1")
        panel.expect_summary("Pass 1 1-20, Pass 2 kein Schritt")
        # nor is the window to compare them in left out, which is not in the page's own part
        webui.generate(plan=THREE, **REQUEST)
        runs = page.locator(".multipass-runs").first
        runs.locator("summary").click()
        expect(runs.locator("option").first).to_contain_text("· 1 Bild")
        runs.get_by_role("button", name="Open").click()
        window = page.locator("dialog.multipass-viewer")
        expect(window.get_by_role("button", name="Schieber")).to_be_visible()
        expect(window.get_by_role("group", name="Ansichten")).to_be_visible()
        expect(window.locator("header option")).to_have_text("Bild 1, Startwert 7")
