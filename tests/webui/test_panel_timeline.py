"""Which steps are whose, and what it costs, told and changed in the panel before the run."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.webui.browsing import ANSWER_MS, Panel, generate, screenshot, set_request, type_in
from tests.webui.host import Webui

REFINED = {"version": 1, "passes": [{}, {"kind": "refine", "sampler_name": "Euler"}]}


def middle_of(panel: Panel, step: int, steps: int = 20) -> tuple[float, float]:
    """Where on the screen a step of the first trajectory begins."""
    box = panel.form.locator(".multipass-track").first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] * step / steps, box["y"] + box["height"] / 2


def test_c8_the_panel_tells_before_which_steps_are_whose(page: Page, webui: Webui) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    panel.pick("ink")
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    type_in(page, "#txt2img_steps", 8)
    panel.expect_summary("Pass 1 1-4, Pass 2 5-8")
    assert re.search(r"Multipass passes: .*1-4; .*5-8", generate(page))
    panel.put({"version": 1, "passes": [{"checkpoint": "gone"}, {"switch_at": 0.5}]})
    expect(panel.notes).to_contain_text('Pass 1, Checkpoint: the webui lists no checkpoint "gone"', timeout=ANSWER_MS)
    expect(panel.notes.locator("li")).to_have_class("multipass-refused")


def test_c8_a_refine_pass_takes_its_strength_from_the_hires_fix_or_the_init_image(page: Page, webui: Webui) -> None:
    panel = Panel(page, webui).open()
    panel.put(REFINED)
    required = "Pass 2, Denoising strength: required: "
    expect(panel.notes).to_contain_text(required, timeout=ANSWER_MS)
    page.locator("#txt2img_hr .label-wrap").click()
    panel.expect_summary("Pass 1 1-20, Pass 2 1-20")
    page.locator("#txt2img_hr .label-wrap").click()
    expect(panel.notes).to_contain_text(required, timeout=ANSWER_MS)

    page.locator("#tabs button", has_text="img2img").first.click()
    panel = Panel(page, webui, "img2img").open()
    panel.put(REFINED)
    type_in(page, "#img2img_denoising_strength", 0.5)
    panel.expect_summary("Pass 1 1-11, Pass 2 1-20")
    type_in(page, "#img2img_denoising_strength", 0)
    panel.expect_summary(re.compile("Pass 2 no step"))


def test_bars_of_other_passes_do_not_stay_where_a_plan_is_refused(panel: Panel) -> None:
    panel.put({"version": 1, "passes": [{"name": "a"}, {"name": "b", "switch_at": 0.5}]})
    panel.expect_summary("a 1-10, b 11-20")
    # of the same passes they do, greyed
    panel.put({"version": 1, "passes": [{"name": "a"}, {"name": "b", "switch_at": 0.5, "checkpoint": "gone"}]})
    expect(panel.notes).to_contain_text('no checkpoint "gone"')
    expect(panel.by_id("timeline")).to_be_visible()
    panel.put({"version": 1, "passes": [{"name": "c", "checkpoint": "gone"}, {"kind": "refine", "name": "d"}]})
    expect(panel.notes).to_contain_text("d, Denoising strength: required")
    expect(panel.by_id("timeline")).to_be_hidden()
    panel.put({"version": 1, "passes": [{"name": "c"}, {"name": "d", "switch_at": 0.5}]})
    expect(panel.by_id("timeline").locator(".multipass-segment")).to_have_text(["c1-10", "d11-20"])


def test_bars_for_each_trajectory_and_its_passes(panel: Panel, webui: Webui) -> None:
    panel.put({"version": 1, "passes": [
        {"name": "a"}, {"name": "b", "switch_at": 0.4},
        {"name": "c", "kind": "refine", "steps": 12, "denoising_strength": 0.4}, {"name": "d", "switch_at": 0.5},
    ]})  # fmt: skip
    panel.expect_summary("a 1-8, b 9-20, c 1-6, d 7-12")
    tracks = panel.form.locator(".multipass-track")
    expect(tracks).to_have_count(2)
    boxes = [tracks.nth(index).bounding_box() for index in range(2)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["width"] / boxes[1]["width"] == pytest.approx(20 / 12, abs=0.05)
    segment = panel.form.locator(".multipass-segment[data-pass='1']").bounding_box()
    assert segment is not None
    assert segment["width"] / boxes[0]["width"] == pytest.approx(12 / 20, abs=0.02)
    expect(panel.by_id("pill_3")).to_contain_text("7-12")
    panel.form.locator(".multipass-segment[data-pass='2']").click()
    expect(panel.by_id("name")).to_have_value("c")
    panel.choose(3).by_id("switch_at").fill("1")  # which leaves it no step
    panel.expect_summary("a 1-8, b 9-20, c 1-12, d no step")
    segment = panel.form.locator(".multipass-segment[data-pass='3']").bounding_box()
    assert segment is not None
    assert segment["width"] < 1
    panel.by_id("switch_at").fill("0.5")
    panel.expect_summary("a 1-8, b 9-20, c 1-6, d 7-12")
    screenshot(panel.page, webui, "panel-timeline", panel.form)


@pytest.mark.parametrize("unit", ["steps", "timestep", "sigma", "step"])
def test_c8_a_boundary_is_dragged_to_the_step_that_runs(page: Page, webui: Webui, unit: str) -> None:
    set_request(page)
    panel = Panel(page, webui).open()
    panel.put(
        {"version": 1, "switch_unit": unit, "passes": [{"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0}]}
    )
    panel.expect_summary(re.compile("no step"))
    boundary = panel.by_id("boundary_1")
    start = boundary.bounding_box()
    assert start is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(*middle_of(panel, 3), steps=3)
    page.mouse.move(*middle_of(panel, 7), steps=3)
    page.mouse.up()
    panel.expect_summary("Pass 1 1-7, Pass 2 8-20")
    webui.arm()
    generate(page)
    assert webui.state()["evaluations"] == ["soft"] * 7 + ["ink"] * 13


def test_a_boundary_moves_by_keys_and_never_past_its_neighbours(panel: Panel) -> None:
    panel.put({"version": 1, "passes": [{}, {"switch_at": 0.3}, {"switch_at": 0.5}]})
    panel.expect_summary("Pass 1 1-6, Pass 2 7-10, Pass 3 11-20")
    boundary = panel.by_id("boundary_1")
    expect(boundary).to_have_attribute("aria-valuemax", "10")
    boundary.focus()
    keyboard = panel.page.keyboard
    keyboard.press("ArrowRight")
    panel.expect_summary("Pass 1 1-7, Pass 2 8-10, Pass 3 11-20")
    keyboard.press("ArrowLeft")
    keyboard.press("ArrowLeft")
    panel.expect_summary("Pass 1 1-5, Pass 2 6-10, Pass 3 11-20")
    expect(boundary).to_be_focused()
    expect(boundary).to_have_attribute("aria-valuetext", "after step 5 / 20")
    for _ in range(4):
        keyboard.press("PageUp")
    panel.expect_summary("Pass 1 1-10, Pass 2 no step, Pass 3 11-20")
    expect(panel.notes).to_contain_text("Pass 2 gets no step", timeout=ANSWER_MS)
    keyboard.press("Home")
    panel.expect_summary("Pass 1 no step, Pass 2 1-10, Pass 3 11-20")
    assert panel.passes[2]["switch_at"] == 0.5
    panel.by_id("undo").click()
    panel.expect_summary("Pass 1 1-6, Pass 2 7-10, Pass 3 11-20")


def test_how_large_the_picture_becomes(panel: Panel) -> None:
    for name, side in (("width", 256), ("height", 128)):
        type_in(panel.page, f"#txt2img_{name}", side)
    panel.by_id("kind").select_option("refine")
    expect(panel.by_id("cost")).to_contain_text("in use")
    expect(panel.by_id("cost")).not_to_contain_text("\u00d7")
    panel.by_id("scale").fill("1.55")
    expect(panel.by_id("cost")).to_contain_text("256\u00d7128 \u2192 392\u00d7192")
    panel.page.locator("#txt2img_hr .label-wrap").click()  # which has fields of its own for that
    expect(panel.by_id("cost")).not_to_contain_text("\u00d7")


def test_what_it_will_cost_and_what_is_worth_knowing(page: Page, webui: Webui) -> None:
    webui.post("/multipass/v1/cache/clear", {}).raise_for_status()
    panel = Panel(page, webui).open()
    panel.pick("ink")
    cost = panel.by_id("cost")
    expect(cost).to_contain_text(
        re.compile(r"soft.* in use · ink.* from disk, \d+ MB.*RAM \d+ MB / "), timeout=ANSWER_MS
    )
    # the Refiner and a plan do not go together
    page.locator("#txt2img_enable .label-wrap").click()
    page.locator("#txt2img_checkpoint input").first.click()
    page.locator("#txt2img_checkpoint").get_by_text("ink").or_(
        page.get_by_role("option", name=re.compile("ink"))
    ).first.click()
    expect(panel.notes).to_contain_text("the built-in Refiner is on too", timeout=ANSWER_MS)
    page.locator("#txt2img_enable .label-wrap").click()
    panel.expect_summary("Pass 1 1-10, Pass 2 11-20")
    # a picture changes what it will cost
    expect(cost).to_contain_text("from disk")
    generate(page)
    expect(cost).not_to_contain_text("from disk", timeout=ANSWER_MS)
    expect(cost).to_contain_text("ink")
    webui.set_options(multipass_ram_budget_gb=0.01)
    try:
        type_in(page, "#txt2img_steps", 12)
        expect(panel.notes.locator(".multipass-warned")).to_contain_text("RAM", timeout=ANSWER_MS)
        expect(cost.locator(".multipass-warned")).to_have_count(1)
    finally:
        webui.set_options(multipass_ram_budget_gb=0.0)
