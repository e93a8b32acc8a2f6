"""Passes in the panel: adding, moving, filling and undoing them, as a person would."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from tests.webui import browsing
from tests.webui.asking import plan_in
from tests.webui.browsing import ANSWER_MS, Panel, choose_in, generate, screenshot, set_request, type_in
from tests.webui.host import REQUEST_SECONDS, Webui

NAMED: dict[str, Any] = {
    "version": 1,
    "passes": [
        {"name": "a", "checkpoint": "soft"},
        {"name": "b", "checkpoint": "ink", "switch_at": 0.3},
        {"name": "c", "switch_at": 0.6},
        {"name": "d", "kind": "refine", "denoising_strength": 0.4},
    ],
}


def names(panel: Panel) -> list[str]:
    return [own.get("name", "") for own in panel.passes]


@pytest.fixture
def four(panel: Panel) -> Panel:
    panel.put(NAMED)
    expect(panel.pills).to_have_count(4)
    return panel


# --- pills ------------------------------------------------------------------------------------------------------------


def test_add_duplicate_rename_remove(panel: Panel) -> None:
    panel.by_id("name").fill("style")
    expect(panel.by_id("pill_1")).to_contain_text("style")
    panel.by_id("add").click()
    assert panel.passes[2] == {"name": "style 2", "switch_at": 0.75}
    panel.choose(1).by_id("duplicate").click()
    assert [own.get("switch_at") for own in panel.passes] == [None, 0.5, 0.63, 0.75]
    expect(panel.by_id("pill_2")).to_have_attribute("aria-selected", "true")
    panel.by_id("pill_0").dblclick()
    expect(panel.by_id("name")).to_be_focused()
    panel.page.keyboard.type("start")
    assert names(panel) == ["start", "style", "style 2", "style 2"]
    panel.choose(2).by_id("remove").click()
    assert names(panel) == ["start", "style", "style 2"]
    for _ in range(2):
        panel.by_id("remove").click()
    assert len(panel.passes) == 1
    expect(panel.by_id("remove")).to_be_disabled()


def test_a_pass_is_switched_off_and_on(four: Panel) -> None:
    four.expect_summary("a 1-6, b 7-12, c 13-20, d 1-20")
    four.choose(1).by_id("enabled").uncheck()
    assert four.passes[1]["enabled"] is False
    expect(four.by_id("pill_1")).to_have_class(re.compile("multipass-off"))
    four.expect_summary("a 1-12, c 13-20, d 1-20")
    four.by_id("enabled").check()
    assert "enabled" not in four.passes[1]


def test_pills_are_dragged(four: Panel) -> None:
    four.by_id("pill_2").drag_to(four.by_id("pill_1"))
    assert names(four) == ["a", "c", "b", "d"]
    assert [own.get("switch_at") for own in four.passes] == [None, 0.3, 0.6, None]  # they stay where they were
    expect(four.by_id("pill_1")).to_have_attribute("aria-selected", "true")
    four.by_id("pill_3").drag_to(four.by_id("pill_0"))
    assert names(four) == ["d", "a", "c", "b"]
    assert "kind" not in four.passes[0]
    # a drag that ends nowhere changes nothing
    four.by_id("pill_1").drag_to(four.by_id("prompt"))
    assert names(four) == ["d", "a", "c", "b"]


def test_passes_are_moved_by_buttons_and_keys(four: Panel) -> None:
    four.choose(1).by_id("move_right").click()
    assert names(four) == ["a", "c", "b", "d"]
    four.by_id("move_left").click()
    assert names(four) == ["a", "b", "c", "d"]
    four.choose(0)
    expect(four.by_id("move_left")).to_be_disabled()
    four.by_id("pill_0").focus()
    keyboard = four.page.keyboard
    keyboard.press("ArrowRight")
    expect(four.by_id("pill_1")).to_be_focused()
    keyboard.press("Alt+ArrowRight")
    assert names(four) == ["a", "c", "b", "d"]
    expect(four.by_id("pill_2")).to_be_focused()
    keyboard.press("End")
    expect(four.by_id("name")).to_have_value("d")
    keyboard.press("Delete")
    assert names(four) == ["a", "c", "b"]
    keyboard.press("Home")
    keyboard.press("F2")
    expect(four.by_id("name")).to_be_focused()


def test_what_holds_for_the_whole_plan_is_switched_on_and_off(panel: Panel) -> None:
    panel.by_id("whole").locator("summary").click()
    screenshot(panel.page, panel.webui, "panel-whole", panel.form)
    triptych = panel.form.get_by_role("checkbox", name="Triptych")
    expect(triptych).not_to_be_checked()
    triptych.check()
    assert panel.plan["triptych"] is True
    keep = panel.form.get_by_role("checkbox", name="Keep every pass's picture")
    expect(keep).to_be_checked()
    keep.uncheck()
    assert panel.plan["save_passes"] is False
    triptych.uncheck()
    keep.check()
    assert not {"triptych", "save_passes"} & panel.plan.keys()  # as it is where nothing is said


def test_the_keyboard_stays_where_it_is(four: Panel) -> None:
    keyboard = four.page.keyboard
    four.choose(0).by_id("move_right").focus()
    keyboard.press("Enter")
    keyboard.press("Enter")
    assert names(four) == ["b", "c", "a", "d"]
    expect(four.by_id("move_right")).to_be_focused()
    four.by_id("duplicate").focus()
    keyboard.press("Enter")
    keyboard.press("Enter")
    assert names(four) == ["b", "c", "a", "a 2", "a 3", "d"]
    four.by_id("remove").focus()
    keyboard.press("Enter")
    keyboard.press("Enter")
    assert names(four) == ["b", "c", "a", "a 2"]
    four.by_id("kind").focus()
    four.by_id("kind").select_option("refine")
    expect(four.by_id("kind")).to_be_focused()
    # where the button can do no more, it goes to the pass
    four.choose(1).by_id("move_left").focus()
    keyboard.press("Enter")
    expect(four.by_id("name")).to_be_focused()


def test_adetailers_pass_goes_along(browser: Browser, webui: Webui) -> None:
    # what the panel looks for, with or without the extension itself
    there = """document.addEventListener("DOMContentLoaded", () => {
        const accordion = document.createElement("div");
        accordion.id = "script_txt2img_adetailer_ad_main_accordion";
        onUiLoaded(() => gradioApp().append(accordion));
        uiLoadedCallbacks.unshift(uiLoadedCallbacks.pop());
    });"""
    with browsing.opened(browser, webui.url, before=there) as page:
        panel = Panel(page, webui).open().put(NAMED)
        expect(panel.pills).to_have_count(4)
        panel.by_id("whole").locator("summary").click()
        panel.by_id("adetailer_pass").select_option("1")
        panel.by_id("adetailer_prompts").check()
        assert panel.plan["adetailer"] == {"pass": 1, "prompts": True}
        panel.choose(1).by_id("move_right").click()
        assert panel.plan["adetailer"] == {"pass": 2, "prompts": True}
        panel.by_id("adetailer_pass").select_option("")
        panel.by_id("adetailer_prompts").uncheck()
        assert "adetailer" not in panel.plan


def test_without_adetailer_there_is_nothing_to_choose_for_it(panel: Panel) -> None:
    expect(panel.by_id("adetailer_pass")).to_have_count(0)
    panel.put({**NAMED, "adetailer": {"pass": 1}})
    expect(panel.pills).to_have_count(4)
    panel.choose(1).by_id("move_right").click()
    assert panel.plan["adetailer"] == {"pass": 2}


def test_undo_and_redo(four: Panel) -> None:
    before = four.text
    four.choose(1).by_id("remove").click()
    four.choose(0).by_id("prompt").press_sequentially("typed in one go")
    after = four.text
    four.by_id("undo").click()
    assert names(four) == ["a", "c", "d"]
    assert "prompt" not in four.passes[0]  # all that was typed at once
    four.by_id("pill_0").focus()
    four.page.keyboard.press("Control+z")
    assert four.text == before
    four.by_id("redo").click()
    four.page.keyboard.press("Control+Shift+Z")
    assert four.text == after
    expect(four.by_id("redo")).to_be_disabled()


# --- the form ---------------------------------------------------------------------------------------------------------


def finished(webui: Webui) -> bytes:
    """The newest picture's pixels, as its second pass left them."""
    told = requests.get(f"{webui.url}/multipass/v1/runs/latest/1/0", timeout=REQUEST_SECONDS)
    told.raise_for_status()
    return Image.open(io.BytesIO(told.content)).tobytes()


def test_a_field_for_everything_that_a_pass_can_have(four: Panel, webui: Webui) -> None:
    four.more()
    common = {
        "name",
        "enabled",
        "checkpoint",
        "vae",
        "prompt",
        "negative_prompt",
        "prompt_mode",
        "cfg_scale",
        "clip_skip",
    }
    head = {"steps", "sampler_name", "scheduler", "denoising_strength"}
    own = [set(), {"kind", "switch_at", "switch_unit"}, {"kind", *head, "scale", "upscaler"}]
    if webui.install.is_forge_family:
        common -= {"vae"}  # which cannot change with the pass there
    if webui.install.host == "classic":
        own[2] -= {"scheduler"}
    for index, more in ((0, own[0]), (1, own[1]), (3, own[2])):
        four.choose(index)
        shown = four.by_id("pass").locator("input:visible, select:visible, textarea:visible")
        ids = shown.evaluate_all("(all) => all.map((own) => own.id.replace('multipass_txt2img_', ''))")
        assert {name for name in ids if not name.endswith("_slider")} == common | more
    written = {"cfg_scale": 5.5, "clip_skip": 2, "steps": 9, "scale": 1.5, "denoising_strength": 0.6}
    for name, value in written.items():
        four.by_id(name).fill(str(value))
    chosen = {"sampler_name": "Euler a", "upscaler": "Lanczos"}
    for name, value in chosen.items():
        four.by_id(name).select_option(value)
    assert four.passes[3] == {"name": "d", "kind": "refine", **written, **chosen}
    four.expect_summary("a 1-6, b 7-12, c 13-20, d 1-9")
    # what is emptied is inherited again
    for name in written:
        four.by_id(name).fill("")
    four.by_id("sampler_name").select_option("")
    assert four.passes[3] == {"name": "d", "kind": "refine", "upscaler": "Lanczos"}


def test_another_kind_drops_what_it_cannot_have(panel: Panel) -> None:
    panel.by_id("prompt").fill("stays")
    panel.by_id("kind").select_option("refine")
    assert panel.passes[1] == {"prompt": "stays", "kind": "refine", "denoising_strength": 0.35}
    panel.expect_summary("Pass 1 1-20, Pass 2 1-20")
    panel.by_id("kind").select_option("switch")
    assert panel.passes[1] == {"prompt": "stays", "switch_at": 0.5}


def test_what_is_left_empty_shows_what_it_inherits(page: Page, webui: Webui) -> None:
    set_request(page)
    page.locator("#txt2img_neg_prompt textarea").fill("a bus")
    panel = Panel(page, webui).open()
    panel.put({"version": 1, "common": {"prompt": "sunset"}, "passes": [
        {"checkpoint": "ink", "cfg_scale": 3}, {"switch_at": 0.5},
        {"kind": "refine", "steps": 7, "denoising_strength": 0.4}, {"kind": "refine"},
    ]})  # fmt: skip
    expect(panel.pills).to_have_count(4)
    panel.more()
    panel.choose(1)
    expect(panel.by_id("checkpoint").locator("option:checked")).to_have_text("ink (inherited)")
    expect(panel.by_id("prompt")).to_have_attribute("placeholder", "a fox, sunset", timeout=ANSWER_MS)
    expect(panel.by_id("negative_prompt")).to_have_attribute("placeholder", "a bus")
    expect(panel.by_id("cfg_scale")).to_have_attribute("placeholder", "3")
    panel.choose(3)
    expect(panel.by_id("steps")).to_have_attribute("placeholder", "7")
    expect(panel.by_id("denoising_strength")).to_have_attribute("placeholder", "0.4")
    expect(panel.by_id("sampler_name").locator("option:checked")).to_have_text(re.compile(r"\(inherited\)"))
    # and it follows the webui's own fields
    panel.choose(0)
    expect(panel.by_id("checkpoint").locator("option:checked")).to_have_text("ink")
    panel.by_id("checkpoint").select_option("")
    expect(panel.by_id("checkpoint").locator("option:checked")).to_have_text(re.compile(r"^soft.*\(inherited\)$"))
    page.locator("#txt2img_prompt textarea").fill("a cat")
    expect(panel.by_id("prompt")).to_have_attribute("placeholder", "a cat, sunset", timeout=ANSWER_MS)


def test_from_current_settings(page: Page, webui: Webui) -> None:
    set_request(page, 13)
    panel = Panel(page, webui).open()
    panel.by_id("kind").select_option("refine")
    panel.more()
    panel.by_id("from_current").click()
    own = panel.passes[1]
    assert own.pop("checkpoint").startswith("soft")
    sampler = page.locator("#txt2img_sampling input").first.input_value()
    assert (own["sampler_name"], own["steps"], own["cfg_scale"]) == (sampler, 13, 4)
    assert (own["prompt"], own["clip_skip"], own["denoising_strength"]) == ("a fox", 1, 0.35)
    assert "negative_prompt" not in own  # there is none
    panel.by_id("message_undo").click()
    assert panel.passes[1] == {"kind": "refine", "denoising_strength": 0.35}
    # the first pass has in txt2img what a request has not
    panel.choose(0).by_id("from_current").click()
    assert set(panel.passes[0]) == {"checkpoint", "prompt", "cfg_scale", "clip_skip"}
    panel.expect_summary("Pass 1 1-13, Pass 2 1-13")
    # the text is the whole one
    panel.choose(1).by_id("prompt_mode").select_option("append")
    panel.by_id("from_current").click()
    assert panel.passes[1]["prompt"] == "a fox"
    assert "prompt_mode" not in panel.passes[1]


def test_the_checkpoint_at_the_top_is_the_one_that_is_inherited(page: Page, webui: Webui) -> None:
    panel = Panel(page, webui).open()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    expect(panel.by_id("cost")).to_contain_text("soft")
    top = "#setting_sd_model_checkpoint"
    try:
        choose_in(page, top if page.locator(top).count() else "#quicksettings .model_selection", "ink")
        inherited = panel.by_id("checkpoint").locator("option").first
        expect(inherited).to_have_text(re.compile(r"^ink.*\(inherited\)$"), timeout=ANSWER_MS)
        expect(panel.by_id("cost")).to_contain_text("ink", timeout=ANSWER_MS)  # checked anew
        expect(panel.by_id("cost")).not_to_contain_text("soft")
        panel.more()
        panel.by_id("from_current").click()
        assert panel.passes[1]["checkpoint"].startswith("ink")
    finally:
        webui.set_options(sd_model_checkpoint="soft")


def test_prompts_are_replaced_appended_or_prepended_and_counted(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    panel.by_id("prompt").fill("red and blue")
    tokens = panel.by_id("prompt_tokens")
    expect(tokens).to_have_text("3/75", timeout=ANSWER_MS)
    panel.by_id("prompt_mode").select_option("append")
    assert panel.passes[1]["prompt_mode"] == "append"
    expect(tokens).to_have_text("6/75", timeout=ANSWER_MS)
    panel.by_id("prompt_mode").select_option("replace")
    assert "prompt_mode" not in panel.passes[1]
    panel.by_id("whole").locator("summary").click()
    panel.by_id("common_prompt").fill("sunset")
    assert panel.plan["common"] == {"prompt": "sunset"}
    expect(tokens).to_have_text("5/75", timeout=ANSWER_MS)
    panel.by_id("common_prompt").fill("")
    assert "common" not in panel.plan
    # not known while the webui is asked, and then the same as before
    panel.by_id("add").click()
    expect(tokens).to_have_text("3/75")
    expect(panel.by_id("negative_prompt_tokens")).to_have_text("0/75")
    panel.by_id("remove").click()
    panel.choose(1)
    expect(tokens).to_have_text("3/75")
    panel.by_id("prompt_mode").select_option("prepend")
    assert plan_texts(page, webui) == ["a fox", "red and blue, a fox"]


def plan_texts(page: Page, webui: Webui) -> list[str]:
    """The prompts as the webui joins them for the plan in the page."""
    body = {"plan": Panel(page, webui).text, "prompt": "a fox"}
    return [own["prompt"] for own in webui.post("/multipass/v1/texts", body).json()["passes"]]


def test_a_prompt_with_editing_becomes_two_passes(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    expect(panel.by_id("split")).to_be_hidden()
    panel.pick("ink")
    page.locator("#txt2img_prompt textarea").fill("a [fox:cat:0.4], day")
    page.locator("#txt2img_neg_prompt textarea").fill("[bus:owl:0.4]")
    panel.by_id("split").click()
    expect(panel.by_id("message")).to_contain_text("2", timeout=ANSWER_MS)
    first, second = panel.passes
    assert (first["prompt"], first["negative_prompt"]) == ("a fox, day", "bus")
    assert (second["prompt"], second["negative_prompt"]) == ("a cat, day", "owl")
    assert second["checkpoint"].startswith("ink")
    webui.arm()
    generate(page)
    assert webui.state()["evaluations"] == ["soft"] * 9 + ["ink"] * 11  # as the host edits it
    panel.by_id("undo").click()
    assert panel.passes[0] == {}


def test_a_split_knows_the_sampler_and_leaves_a_prompt_without_editing_alone(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open().put(NAMED)
    expect(panel.pills).to_have_count(4)
    page.locator("#txt2img_prompt textarea").fill("a [fox:cat")  # which the host takes as it is
    page.locator("#txt2img_neg_prompt textarea").fill("[bus:owl:30]")  # after the last step
    panel.by_id("split").click()
    expect(panel.by_id("message")).to_contain_text("Nothing in the prompt changes", timeout=ANSWER_MS)
    assert panel.plan == NAMED
    texts = {"prompt": "a [fox:cat:8]", "negative_prompt": ""}
    page.locator("#txt2img_prompt textarea").fill(texts["prompt"])
    page.locator("#txt2img_neg_prompt textarea").fill("")
    choose_in(page, "#txt2img_sampling", "Heun")
    panel.by_id("split").click()
    expect(panel.by_id("message")).to_contain_text("Passes made of the prompt: 2", timeout=ANSWER_MS)
    once, twice = (
        webui.post("/multipass/v1/import/prompt", {**texts, "steps": 20, "sampler_name": name}).json()["passes"][1]
        for name in ("Euler", "Heun")
    )
    assert panel.passes[1]["switch_at"] == twice["switch_at"] != once["switch_at"]


def test_switch_points_keep_their_step_in_another_unit(four: Panel) -> None:
    four.expect_summary("a 1-6, b 7-12, c 13-20, d 1-20")
    four.by_id("whole").locator("summary").click()
    for unit in ("step", "sigma", "timestep", "steps"):
        four.by_id("plan_switch_unit").select_option(unit)
        four.page.wait_for_function(
            "(unit) => JSON.parse(gradioApp().querySelector('#multipass_txt2img_plan textarea').value)"
            ".switch_unit === unit",
            arg=unit,
        )
        if unit == "step":
            assert [own.get("switch_at") for own in four.passes] == [None, 6, 12, None]
        four.expect_summary("a 1-6, b 7-12, c 13-20, d 1-20")
    # and one pass alone
    four.choose(2).more()
    four.by_id("switch_unit").select_option("step")
    expect(four.by_id("switch_at")).to_have_value("12", timeout=ANSWER_MS)
    assert four.passes[2]["switch_unit"] == "step"


def test_a_unit_stays_where_its_switch_points_cannot_go_along(four: Panel) -> None:
    four.choose(1).by_id("switch_at").fill("3")
    expect(four.notes.locator("li")).to_have_count(1, timeout=ANSWER_MS)
    refused = four.plan
    four.by_id("whole").locator("summary").click()
    unit, message = four.by_id("plan_switch_unit"), four.by_id("message")
    unit.select_option("sigma")
    expect(message).to_contain_text("The unit stays: passes[1].switch_at: expected a number from 0 to 1")
    expect(unit).to_have_value("steps")
    assert four.plan == refused
    # one that is off goes along
    four.by_id("switch_at").fill("0.3")
    four.by_id("enabled").uncheck()
    unit.select_option("step")
    expect(four.by_id("switch_at")).to_have_value("6", timeout=ANSWER_MS)
    four.expect_summary("a 1-12, c 13-20, d 1-20")
    assert [own.get("switch_at") for own in four.passes] == [None, 6, 12, None]
    # what is done meanwhile is kept
    held: list[Route] = []
    four.page.route("**/multipass/v1/validate", lambda route: held.append(route))  # noqa: PLW0108 - as above
    unit.select_option("sigma")
    four.page.wait_for_timeout(200)
    four.by_id("switch_at").fill("7")
    for route in held:
        route.continue_()
    four.page.unroute("**/multipass/v1/validate")
    expect(message).to_contain_text("The unit stays: the plan has changed meanwhile", timeout=ANSWER_MS)
    assert four.plan["switch_unit"] == "step"
    assert [own.get("switch_at") for own in four.passes] == [None, 7, 12, None]


def test_what_has_no_field_can_be_taken_out(panel: Panel) -> None:
    panel.put({"version": 1, "passes": [{"steps": 9}, {"switch_at": 0.5}]})
    expect(panel.notes).to_contain_text("Pass 1", timeout=ANSWER_MS)
    panel.notes.get_by_role("button", name="Remove it").click()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    assert panel.passes[0] == {}
    panel.put({"version": 1, "passes": [{}, {"switch_at": 0.5}], "more": 1})
    expect(panel.notes).to_contain_text("more: unknown field", timeout=ANSWER_MS)
    panel.notes.get_by_role("button", name="Remove it").click()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    # a field of the form's is emptied there
    panel.by_id("switch_at").fill("3")
    expect(panel.notes).to_contain_text("from 0 to 1", timeout=ANSWER_MS)
    expect(panel.notes.get_by_role("button", name="Remove it")).to_have_count(0)


def test_only_what_is_new_is_announced_and_nothing_old_is_shown(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    expect(panel.by_id("prompt")).to_have_attribute("placeholder", "a fox", timeout=ANSWER_MS)
    panel.put({"version": 1, "passes": [{"checkpoint": "gone"}, {"switch_at": 0.5}]})
    expect(panel.notes).to_contain_text("gone", timeout=ANSWER_MS)
    panel.notes.locator("li").evaluate("(own) => { own.asBefore = true; }")
    with page.expect_response("**/multipass/v1/validate"):
        type_in(page, "#txt2img_steps", 12)
    page.wait_for_timeout(300)
    assert panel.notes.locator("li").evaluate("(own) => own.asBefore")
    # no text from before a plan that is none
    panel.put('{"version": 1, "passes": [{}, {"switch_at": 0.5}], "more": 1}')
    expect(panel.by_id("prompt")).to_have_attribute("placeholder", "inherited", timeout=ANSWER_MS)
    expect(panel.by_id("prompt_tokens")).to_be_empty()


def test_a_negative_prompt_is_counted_as_one(page: Page, webui: Webui) -> None:
    panel = Panel(page, webui).open()
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if "/tokens" in request.url else None)
    panel.by_id("negative_prompt").fill("a fox AND a bus")
    expect(panel.by_id("negative_prompt_tokens")).to_have_text("5/75", timeout=ANSWER_MS)
    assert {(own["texts"][0], own.get("negative")) for own in asked if own["texts"][0]} == {("a fox AND a bus", True)}


def test_a_checkpoint_that_is_gone_is_marked_and_kept(panel: Panel, copied: Path) -> None:
    panel.by_id("checkpoint_refresh").click()
    copy = panel.by_id("checkpoint").locator("option", has_text="copied")
    expect(copy).to_have_count(1, timeout=ANSWER_MS)
    panel.pick("copied")
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    named = panel.passes[1]["checkpoint"]
    copied.unlink()
    panel.by_id("checkpoint_refresh").click()
    select = panel.by_id("checkpoint")
    expect(select).to_have_class(re.compile("multipass-gone"), timeout=ANSWER_MS)
    expect(select.locator("option:checked")).to_have_text(f"{named} (not found)")
    expect(panel.by_id("pill_1")).to_have_class(re.compile("multipass-wrong"))
    assert panel.passes[1]["checkpoint"] == named
    expect(panel.notes).to_contain_text("Pass 2, Checkpoint: the webui lists no checkpoint")
    # the note leads there
    panel.choose(0)
    panel.notes.get_by_role("button").click()
    expect(select).to_be_focused()
    screenshot(panel.page, panel.webui, "panel-gone", panel.form)
    panel.pick("ink")
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    expect(select).not_to_have_class(re.compile("multipass-gone"))


def test_a_vae_that_comes_is_listed_and_decodes(page: Page, webui: Webui, models: tuple[Path, Path]) -> None:
    """And one that goes is marked."""
    if webui.install.is_forge_family:
        pytest.skip("there the VAE cannot change with the pass")
    set_request(page)
    panel = Panel(page, webui).open()
    panel.pick("ink")
    generate(page)
    plain = finished(webui)
    file = models[0] / "come.vae.safetensors"
    shutil.copy(models[0] / "other.vae.safetensors", file)
    try:
        panel.more()
        select = panel.by_id("vae")
        panel.by_id("vae_refresh").click()
        expect(select.locator("option", has_text="come")).to_have_count(1)
        select.select_option(file.name)
        assert plan_in(generate(page))["passes"][1]["vae"] == file.name
        assert finished(webui) != plain
        select.select_option("")
        generate(page)
        assert finished(webui) == plain
        select.select_option(file.name)
    finally:
        file.unlink()
    panel.by_id("vae_refresh").click()
    expect(select).to_have_class(re.compile("multipass-gone"))
    assert panel.passes[1]["vae"] == file.name
    expect(panel.notes.locator(".multipass-refused")).to_contain_text("Pass 2, VAE: ")


def test_plan_wide_settings(panel: Panel) -> None:
    panel.by_id("whole").locator("summary").click()
    panel.by_id("save_passes").uncheck()
    assert panel.plan["save_passes"] is False
    panel.by_id("save_passes").check()
    assert panel.plan == {"version": 1, "passes": [{}, {"switch_at": 0.5}]}


def test_a_number_that_is_typed_is_left_as_it_is_typed(panel: Panel) -> None:
    field = panel.by_id("switch_at")
    field.fill("")
    field.press_sequentially("0.30")
    expect(field).to_have_value("0.30")
    assert panel.passes[1]["switch_at"] == 0.3
    field.fill("3")
    expect(panel.notes).to_contain_text("Pass 2, Switch at: expected a number from 0 to 1, got 3", timeout=ANSWER_MS)
    expect(field).to_have_attribute("aria-invalid", "true")


def test_a_pasted_plan_that_is_none_is_told(panel: Panel) -> None:
    panel.put('{"version": 1, "passes": [{}, {"switch_at": 0.5}], "more": 1}')
    expect(panel.notes).to_contain_text("more", timeout=ANSWER_MS)
    type_in(panel.page, "#txt2img_steps", 12)
    panel.by_id("prompt").fill("x")
    assert json.loads(panel.text)["more"] == 1  # not ours to drop
