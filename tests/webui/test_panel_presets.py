"""Plans by name and as files, in the panel."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from multipass.presets import SHIPPED
from tests.webui.asking import plan_in
from tests.webui.browsing import ANSWER_MS, REQUEST, THREE, Panel, screenshot
from tests.webui.host import Webui

PLAN: dict[str, Any] = {"version": 1, "passes": [{"name": "own"}, {"switch_at": 0.3, "prompt": "a"}]}


@pytest.fixture
def opened(panel: Panel, webui: Webui) -> Panel:
    """With the presets shown, none of them somebody's own."""
    for own in webui.get("/multipass/v1/presets")["presets"]:
        if not own["shipped"]:
            (webui.data / "multipass/presets" / f"{own['name']}.json").unlink()
    panel.put(PLAN)
    panel.by_id("presets_open").click()
    expect(rows(panel)).to_have_count(len(SHIPPED), timeout=ANSWER_MS)
    return panel


def rows(panel: Panel) -> Any:
    return panel.by_id("presets").locator("li")


def row(panel: Panel, name: str) -> Any:
    return panel.by_id("presets").locator(f'li[data-preset="{name}"]')


def save(panel: Panel, name: str) -> None:
    panel.by_id("preset_name").fill(name)
    panel.by_id("preset_save").click()
    expect(row(panel, name)).to_have_count(1, timeout=ANSWER_MS)


@pytest.mark.parametrize("name", SHIPPED)
def test_those_that_ship_fill_the_panel(opened: Panel, webui: Webui, name: str) -> None:
    row(opened, name).get_by_role("button", name=name).click()
    expect(opened.by_id("message")).to_contain_text(name, timeout=ANSWER_MS)
    assert opened.plan == webui.get(f"/multipass/v1/presets/{name}")
    expect(opened.pills).to_have_count(len(opened.passes))
    expect(row(opened, name).get_by_role("button")).to_have_count(1)  # neither renamed nor deleted
    opened.by_id("message_undo").click()
    assert opened.plan == PLAN


def test_save_load_replace_rename_delete(opened: Panel, webui: Webui) -> None:
    screenshot(opened.page, webui, "panel-presets", opened.form)
    expect(opened.by_id("preset_save")).to_be_disabled()
    save(opened, "mine, 1")
    assert webui.get("/multipass/v1/presets/mine, 1") == PLAN
    opened.by_id("prompt").fill("b")
    changed = opened.plan
    expect(opened.by_id("preset_save")).to_have_text("Replace")
    row(opened, "mine, 1").get_by_role("button", name="mine, 1").click()
    expect(opened.by_id("message")).to_contain_text("mine, 1", timeout=ANSWER_MS)
    assert opened.plan == PLAN
    opened.by_id("undo").click()
    assert opened.plan == changed
    opened.by_id("preset_save").click()
    expect(opened.by_id("message")).to_contain_text("Saved", timeout=ANSWER_MS)
    assert webui.get("/multipass/v1/presets/mine, 1") == changed

    opened.page.once("dialog", lambda dialog: dialog.accept("renamed"))
    row(opened, "mine, 1").get_by_role("button", name="Rename this preset").click()
    expect(row(opened, "renamed")).to_have_count(1, timeout=ANSWER_MS)
    expect(row(opened, "mine, 1")).to_have_count(0)
    assert webui.get("/multipass/v1/presets/renamed") == changed
    # never over another one
    opened.page.once("dialog", lambda dialog: dialog.accept("Toon to photo"))
    row(opened, "renamed").get_by_role("button", name="Rename this preset").click()
    expect(opened.by_id("message")).to_contain_text("There is already: Toon to photo")

    opened.page.once("dialog", lambda dialog: dialog.dismiss())
    row(opened, "renamed").get_by_role("button", name="Delete this preset").click()
    expect(row(opened, "renamed")).to_have_count(1)
    opened.page.once("dialog", lambda dialog: dialog.accept())
    row(opened, "renamed").get_by_role("button", name="Delete this preset").click()
    expect(row(opened, "renamed")).to_have_count(0, timeout=ANSWER_MS)


def test_names_that_differ_in_case_alone_are_one_presets(opened: Panel, webui: Webui) -> None:
    save(opened, "Mine")
    opened.by_id("preset_name").fill("mine")
    expect(opened.by_id("preset_save")).to_have_text("Replace")
    opened.page.once("dialog", lambda dialog: dialog.accept("mine"))
    row(opened, "Mine").get_by_role("button", name="Rename this preset").click()
    expect(row(opened, "mine")).to_have_count(1, timeout=ANSWER_MS)
    expect(row(opened, "Mine")).to_have_count(0)
    assert webui.get("/multipass/v1/presets/mine") == PLAN
    save(opened, "other")
    opened.page.once("dialog", lambda dialog: dialog.accept("MINE"))
    row(opened, "other").get_by_role("button", name="Rename this preset").click()
    expect(opened.by_id("message")).to_contain_text("There is already: MINE")


@pytest.mark.parametrize("name", ["Toon to photo", "../up", "a/b"])
def test_a_name_that_will_not_do_is_told(opened: Panel, name: str) -> None:
    opened.by_id("preset_name").fill(name)
    opened.by_id("preset_save").click()
    expect(opened.by_id("message")).not_to_be_empty(timeout=ANSWER_MS)
    expect(opened.by_id("message")).not_to_contain_text("Saved")
    expect(rows(opened)).to_have_count(len(SHIPPED))


def test_export_and_import(opened: Panel, tmp_path: Path) -> None:
    with opened.page.expect_download() as download:
        opened.by_id("export").click()
    file = tmp_path / "plan.json"
    download.value.save_as(file)
    assert json.loads(file.read_text()) == PLAN
    opened.by_id("prompt").fill("something else")
    opened.by_id("import_file").set_input_files(file)
    expect(opened.by_id("message")).to_contain_text("plan.json", timeout=ANSWER_MS)
    assert opened.plan == PLAN
    file.write_text('{"version": 1, "passes": [{"switch_at": 1}]}')
    opened.by_id("import_file").set_input_files(file)
    expect(opened.by_id("message")).to_contain_text(
        "passes[0].switch_at: the first pass does not have it", timeout=ANSWER_MS
    )
    assert opened.plan == PLAN


def drop(page: Page, target: str, file: Path) -> None:
    """A file let go over an element."""
    transfer = page.evaluate_handle(
        """([name, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (own) => own.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [file.name, base64.b64encode(file.read_bytes()).decode()],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event(target, event, {"dataTransfer": transfer})


@pytest.mark.parametrize("what", ["picture", "passes.json"])
def test_a_drop_fills_the_panel(panel: Panel, webui: Webui, tmp_path: Path, what: str) -> None:
    answer = webui.try_generate(plan=THREE, **REQUEST)
    rendered = webui.read(answer)
    file = tmp_path / {"picture": "picture.png"}.get(what, what)
    if what == "picture":
        file.write_bytes(base64.b64decode(answer.json()["images"][0]))
    else:
        file.write_text(json.dumps(webui.get("/multipass/v1/runs/latest")))
    drop(panel.page, "#multipass_txt2img_prompt", file)
    expect(panel.by_id("message")).to_contain_text(file.name, timeout=ANSWER_MS)
    taken = panel.plan
    taken.pop("request", None)  # which the manifest tells too
    assert taken == plan_in(rendered.infotexts[0])
    expect(panel.pills).to_have_count(3)
    file.write_bytes(b"no picture")
    drop(panel.page, "#multipass_txt2img_form", file)
    expect(panel.by_id("message")).not_to_contain_text("Taken from", timeout=ANSWER_MS)
    assert panel.passes == taken["passes"]
