"""Comparing the passes of a picture in the webui's page, in a real browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Request, expect

from tests.viewing import Finger, badge, dragged_through, loaded, middle, over, pressed, viewer
from tests.webui import browsing
from tests.webui.asking import LOOPBACK, REQUEST, image_of, plan, settings
from tests.webui.browsing import ANSWER_MS, Panel, generate, screenshot, set_request, type_in
from tests.webui.host import Webui
from tests.webui.test_xyz import SWITCH_AT, pick, type_values

THREE = plan(
    {"checkpoint": "soft", "name": "composition"},
    {"checkpoint": "ink", "switch_at": 0.4, "name": "style"},
    {"checkpoint": "soft", "switch_at": 0.8},
)
UP = ["Pass 1: composition", "Pass 2: style", "Final (Pass 3)"]  # by a drag upwards from the finished one

POINTER = """() => {
    const dot = document.createElement("div");
    dot.style.cssText = "position: fixed; z-index: 10001; width: 14px; height: 14px; translate: -50% -50%;"
        + "border-radius: 50%; background: #fffc; border: 3px solid #000a; pointer-events: none";
    document.body.append(dot);
    const follow = (event) => {
        dot.style.left = `${event.clientX}px`;
        dot.style.top = `${event.clientY}px`;
        dot.style.background = event.buttons ? "#ffb454" : "#fffc";
    };
    ["pointerdown", "pointermove", "pointerup"].forEach((kind) => addEventListener(kind, follow, true));
}"""


def large(page: Page, tab: str = "txt2img") -> Locator:
    return page.locator(f'#{tab}_gallery .preview img[data-testid="detailed-image"]')


def line(page: Page, tab: str = "txt2img") -> Locator:
    return page.locator(f"#multipass_{tab}_compare")


def render(page: Page, panel: Panel, raw: dict[str, Any] = THREE, *, batch_size: int = 1, batch_count: int = 1) -> None:
    panel.put(raw)
    set_request(page, steps=10)
    type_in(page, "#txt2img_batch_size", batch_size)
    type_in(page, "#txt2img_batch_count", batch_count)
    generate(page)


def ready(page: Page, tab: str = "txt2img") -> Locator:
    """The large picture, once the page knows what there is to compare of it."""
    shown = large(page, tab).evaluate("(img) => img.src")
    expect(line(page, tab)).to_have_attribute("data-of", shown, timeout=ANSWER_MS)
    expect(line(page, tab).get_by_role("button", name="Compare passes")).to_be_visible()
    return large(page, tab)


class Recording:
    """What is seen of the gallery, and of the mouse, which no screenshot shows."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.frames: list[tuple[Image.Image, int]] = []  # and for how many milliseconds
        container, below = page.locator("#txt2img_gallery").bounding_box(), line(page).bounding_box()
        assert container
        assert below
        edges = {name: container[name] for name in ("x", "y", "width")}
        self._clip = {**edges, "height": below["y"] + below["height"] - container["y"]}
        page.evaluate(POINTER)

    def point(self, x: float, y: float) -> None:
        self._page.mouse.move(x, y)

    def take(self, milliseconds: int) -> None:
        taken = self._page.screenshot(clip=self._clip)
        self.frames.append((Image.open(io.BytesIO(taken)).convert("RGB"), milliseconds))

    def write(self, name: str, in_docs: str) -> None:
        """Beside the other screenshots and, as those, into the documents."""
        (first, _), *others = self.frames
        target = browsing.ARTIFACTS / name
        target.parent.mkdir(exist_ok=True)
        shown = {"duration": [ms for _, ms in self.frames], "loop": 0, "quality": 75, "method": 6}
        first.save(target, save_all=True, append_images=[frame for frame, _ in others], **shown)
        if os.environ.get("WRITE_SCREENSHOTS"):
            shutil.copyfile(target, browsing.DOCS / in_docs)


def choose_picture(page: Page, number: int) -> Locator:
    """Show another picture of the gallery, large."""
    before = large(page).get_attribute("src")
    assert before
    page.locator("#txt2img_gallery .thumbnails button").nth(number).click()
    expect(large(page)).not_to_have_attribute("src", before)
    page.wait_for_timeout(500)  # the host calls a fifth of a second after the page has changed
    return large(page)


def latest(webui: Webui) -> dict[str, Any]:
    return webui.get("/multipass/v1/runs/latest")


def folder(webui: Webui, run: str) -> Path:
    return next(webui.data.rglob(f"{run}/passes.json")).parent


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


# --- the gesture in the gallery --------------------------------------------------------------------------------------


def test_a_drag_upwards_goes_through_the_passes_and_release_is_the_finished_picture(
    page: Page, panel: Panel, webui: Webui
) -> None:
    render(page, panel)
    picture = ready(page)
    with pressed(page, picture) as drag:
        expect(over(page)).to_have_count(0)  # a press alone is nothing
        drag(1)
        expect(badge(over(page))).to_have_text("Pass 1: composition")
        loaded(over(page).locator("img"))
        screenshot(page, webui, "compare-drag")
        box, shown = picture.bounding_box(), over(page).bounding_box()
        assert box
        assert shown
        assert shown["x"] >= box["x"] - 1
        assert shown["height"] <= box["height"] + 1
        drag(-1)
        expect(badge(over(page))).to_have_text("Pass 2: style")
    expect(over(page)).to_have_count(0)
    expect(page.locator("#lightboxModal")).to_be_hidden()  # a drag is no click
    assert dragged_through(page, picture, 6, over(page)) == UP * 2


def test_a_click_without_a_drag_is_the_host_s(page: Page, panel: Panel, webui: Webui) -> None:
    render(page, panel)
    ready(page).click()
    expect(page.locator("#lightboxModal")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#lightboxModal")).to_be_hidden()
    dragged_through(page, large(page), 1, over(page))
    large(page).click()  # of the drag before nothing is left
    expect(page.locator("#lightboxModal")).to_be_visible()


def test_escape_and_a_drag_to_the_side_end_it(page: Page, panel: Panel, webui: Webui) -> None:
    render(page, panel)
    picture = ready(page)
    with pressed(page, picture) as drag:
        drag(1)
        expect(over(page)).to_be_visible()
        page.keyboard.press("Escape")
        expect(over(page)).to_have_count(0)
        drag(2)
        expect(over(page)).to_have_count(0)
    page.keyboard.press("Escape")  # the lightbox, which the click has opened
    x, y = middle(picture)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 10, steps=6)
    expect(over(page)).to_have_count(0)
    page.mouse.up()


def test_each_picture_of_a_batch_has_its_own_passes(page: Page, panel: Panel, webui: Webui) -> None:
    with settings(webui, samples_save=True, grid_save=True, return_grid=True, multipass_passes_in_gallery=True):
        render(page, panel, batch_size=2, batch_count=2)
        told = latest(webui)
        thumbnails = page.locator("#txt2img_gallery .thumbnails button")
        expect(thumbnails).to_have_count(1 + 4 + 8)  # the grid, the pictures, their first and second passes
        if webui.install.host != "reforge":  # which writes a picture's text into its grid
            expect(line(page).get_by_role("button")).to_have_count(0)  # a grid is no picture of a run
        for number in range(4):
            choose_picture(page, 1 + number)
            expect(large(page)).to_have_attribute("src", re.compile(f"-{20 + number}\\.png"))
            picture = ready(page)
            shown = []
            with pressed(page, picture) as drag:
                for steps in (1, 2):
                    drag(steps)
                    img = over(page).locator("img")
                    loaded(img)
                    shown.append(img.get_attribute("src"))
            assert shown == [f"{webui.url}/multipass/v1/runs/{told['run']}/{index}/{number}" for index in (0, 1)]
            expect(over(page)).to_have_count(0)
        screenshot(page, webui, "compare-batch")
        thumbnails.nth(4).press("ArrowLeft")  # which is the host's, after a drag too
        expect(large(page)).to_have_attribute("src", re.compile(r"-22\.png"))
        choose_picture(page, 5 + 2)  # the first pass of the second picture, as the setting shows it
        with pressed(page, ready(page)) as drag:
            drag(1)
            expect(over(page).locator("img")).to_have_attribute("src", re.compile(f"{told['run']}/0/1$"))


def test_other_pictures_are_left_alone(page: Page, webui: Webui) -> None:
    asked: list[Request] = []
    page.reload()
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - playwright marks its handlers
    browsing.wait(page)
    set_request(page, steps=4)
    generate(page)
    expect(large(page)).to_be_visible()
    dragged = middle(large(page))
    page.mouse.move(*dragged)
    page.mouse.down()
    page.mouse.move(dragged[0], dragged[1] - 60, steps=4)
    page.mouse.up()
    expect(over(page)).to_have_count(0)
    expect(line(page)).to_have_count(0)
    shown = large(page).get_attribute("src")
    ours = [
        own.url for own in asked if "/multipass/v1/" in own.url or (own.url == shown and own.resource_type == "fetch")
    ]
    assert ours == []


def test_img2img_begins_with_the_original(page: Page, webui: Webui, picture: str, tmp_path: Path) -> None:
    given = tmp_path / "given.png"
    given.write_bytes(base64.b64decode(picture))
    panel = Panel(page, webui, "img2img")
    page.locator("#tabs button", has_text="img2img").first.click()
    page.locator("#img2img_image input[type=file]").first.set_input_files(given)
    panel.open().put(THREE)
    for name, value in (("width", 128), ("height", 64), ("steps", 10)):
        type_in(page, f"#img2img_{name}", value)
    generate(page, "img2img")
    told = latest(webui)
    assert told["images"][0]["original"] == "original/00000.png"
    with pressed(page, ready(page, "img2img")) as drag:
        drag(1)
        expect(badge(over(page))).to_have_text("Original")
        loaded(over(page).locator("img"))
        screenshot(page, webui, "compare-original")
        drag(2)
        expect(badge(over(page))).to_have_text("Pass 1: composition")


def test_a_phone_drags_after_a_rest_and_scrolls_without(browser: Browser, webui: Webui) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    browsing.load(page, webui.url)
    panel = Panel(page, webui).open()
    render(page, panel)
    picture, finger = ready(page), Finger(page)
    x, y = middle(picture)
    finger.down(x, y)
    page.wait_for_timeout(350)
    finger.move(x, y - 50)
    expect(badge(over(page))).to_have_text("Pass 1: composition")
    loaded(over(page).locator("img"))
    screenshot(page, webui, "compare-phone-drag")
    finger.up()
    expect(over(page)).to_have_count(0)
    before = page.evaluate("window.scrollY")
    finger.down(x, y)
    for moved in range(10, 120, 10):
        finger.move(x, y - moved)
    finger.up()
    expect(over(page)).to_have_count(0)
    page.wait_for_function("(before) => window.scrollY > before", arg=before)
    line(page).get_by_role("button").click()
    expect(viewer(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the phone"
    page.wait_for_timeout(300)
    screenshot(page, webui, "compare-phone")
    x, y = middle(viewer(page).locator(".multipass-frame"))
    finger.down(x, y)
    finger.move(x, y - 50)
    expect(badge(viewer(page))).to_have_text("Pass 1: composition")
    finger.up()
    expect(badge(viewer(page))).to_have_text("Final (Pass 3)")
    context.close()


def test_each_cell_of_a_plot_has_its_own_passes(page: Page, panel: Panel, webui: Webui) -> None:
    panel.put(plan({"checkpoint": "soft", "name": "composition"}, {"checkpoint": "ink", "switch_at": 0.5}))
    set_request(page, steps=10)
    page.locator("#txt2img_script_container").scroll_into_view_if_needed()
    pick(page, "#script_list", "X/Y/Z plot")
    pick(page, "#script_txt2img_xyz_plot_x_type", SWITCH_AT)
    type_values(page, "x", "0.2, 0.8")
    page.locator("#script_txt2img_xyz_plot_include_lone_images input").check()
    generate(page)
    runs = [own["run"] for own in webui.get("/multipass/v1/runs?most=2")["runs"]][::-1]
    thumbnails = page.locator("#txt2img_gallery .thumbnails button")
    expect(thumbnails).to_have_count(3)
    for number, run in enumerate(runs):
        choose_picture(page, 1 + number)
        with pressed(page, ready(page)) as drag:
            drag(1)
            expect(over(page).locator("img")).to_have_attribute("src", re.compile(f"{run}/0/0$"))
    choose_picture(page, 0)
    expect(line(page).get_by_role("button")).to_have_count(0)  # the grid is of both
    with pressed(page, large(page)) as drag:
        drag(1)
        expect(over(page)).to_have_count(0)


def test_the_recording_that_the_readme_shows(page: Page, panel: Panel, webui: Webui) -> None:
    finish = {"kind": "refine", "checkpoint": "soft", "name": "finish", "denoising_strength": 0.45, "steps": 12}
    render(page, panel, plan(*THREE["passes"][:2], finish))
    picture = ready(page)
    (x, y), recording = middle(picture), Recording(page)
    recording.point(x + 60, y + 60)
    recording.take(1200)
    with pressed(page, picture) as drag:
        for steps, shown in ((1, "Pass 1: composition"), (2, "Pass 2: style")):
            for part in (-0.75, -0.5, -0.25):
                drag(steps + part)
                recording.take(60)
            drag(steps)
            expect(badge(over(page))).to_have_text(shown)
            loaded(over(page).locator("img"))
            recording.take(1400)
    expect(over(page)).to_have_count(0)
    recording.take(1600)
    at_rest, first, second, again = (frame for frame, ms in recording.frames if ms > 1000)
    assert at_rest.size == first.size == second.size == again.size
    assert len({frame.tobytes() for frame in (at_rest, first, second)}) == 3
    recording.write(f"compare-{webui.install.host}.webp", "compare.webp")


# --- the window ------------------------------------------------------------------------------------------------------


def test_keys_go_through_the_looks_and_a_slider_stands_between_two(page: Page, panel: Panel, webui: Webui) -> None:
    render(page, panel)
    ready(page)
    line(page).get_by_role("button", name="Compare passes").click()
    window = viewer(page)
    expect(badge(window)).to_have_text("Final (Pass 3)")
    loaded(window.locator("img").first)
    screenshot(page, webui, "compare-window")
    for key, expected in (
        ("ArrowUp", "Pass 1: composition"),
        ("ArrowRight", "Pass 2: style"),
        ("ArrowDown", "Pass 1: composition"),
        ("ArrowLeft", "Final (Pass 3)"),
        ("Home", "Pass 1: composition"),
        ("End", "Final (Pass 3)"),
    ):
        page.keyboard.press(key)
        expect(badge(window)).to_have_text(expected)
    expect(window.get_by_role("status").last).to_contain_text(re.compile(r"soft \[\w+\], steps 9-10"))
    page.keyboard.press("s")
    divider = window.get_by_role("slider", name="Divider between the two pictures")
    expect(divider).to_be_focused()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert float(divider.input_value()) == 40
    box = divider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.55, box["y"] + box["height"] / 2)
    assert abs(float(divider.input_value()) - 55) < 1
    window.get_by_role("combobox", name="Right of the divider").select_option(label="Pass 2: style")
    expect(window.locator(".multipass-right")).to_have_text("Pass 2: style")
    expect(badge(window)).to_have_text("Pass 1: composition")
    loaded(window.locator(".multipass-other"))
    screenshot(page, webui, "compare-slider")
    divider.focus()
    page.keyboard.press("Escape")
    expect(divider).to_be_hidden()
    page.keyboard.press("Home")
    expect(badge(window)).to_have_text("Pass 1: composition")
    page.keyboard.press("Escape")
    expect(window).to_have_count(0)
    expect(page.locator("#lightboxModal")).to_be_hidden()


# --- runs opened later -----------------------------------------------------------------------------------------------


def open_runs(page: Page) -> Locator:
    box = page.locator(".multipass-runs").first
    box.locator("summary").click()
    expect(box.locator("option").first).to_be_attached(timeout=ANSWER_MS)
    return box


def choose(box: Locator, run: str) -> Locator:
    box.get_by_role("combobox", name="Run").select_option(run)
    box.get_by_role("button", name="Open").click()
    return viewer(box.page)


def test_a_run_is_opened_later_with_all_its_pictures(page: Page, panel: Panel, webui: Webui) -> None:
    webui.generate(plan=THREE, **REQUEST, batch_size=2, n_iter=2)
    run = latest(webui)["run"]
    webui.generate(plan=THREE, **REQUEST)
    listed = webui.get("/multipass/v1/runs?most=2")["runs"]
    assert [own["images"] for own in listed] == [1, 4]
    assert listed[1] | {"when": ""} == {
        "run": run, "status": "done", "images": 4, "when": "", "passes": ["composition", "style", "Pass 3"]
    }  # fmt: skip
    box = open_runs(page)
    expect(box.locator("option").nth(1)).to_contain_text("composition → style → Pass 3 · 4 pictures")
    screenshot(page, webui, "compare-runs")
    window = choose(box, run)
    expect(badge(window)).to_have_text("Pass 3")
    chosen = window.get_by_role("combobox", name="Picture")
    assert chosen.locator("option").all_inner_texts() == [f"Picture {n + 1}, seed {7 + n}" for n in range(4)]
    page.keyboard.press("PageDown")
    page.keyboard.press("Home")
    expect(window.locator("img").first).to_have_attribute("src", re.compile(f"{run}/0/1$"))
    loaded(window.locator("img").first)
    assert dragged_through(page, window.locator(".multipass-frame"), 3, window) == [
        "Pass 1: composition",
        "Pass 2: style",
        "Pass 3",
    ]


@pytest.mark.parametrize("format_", ["png", "jpg", "webp"])
def test_a_picture_opens_the_run_it_is_of(page: Page, panel: Panel, webui: Webui, tmp_path: Path, format_: str) -> None:
    own = {"samples_format": format_, "samples_save": True, "grid_save": False}
    answer = webui.try_generate(plan=THREE, **REQUEST, batch_size=2, override_settings=own, save_images=True)
    assert answer.status_code == 200
    told = latest(webui)
    saved = max(webui.data.rglob(f"*-8.{format_}"), key=lambda path: path.stat().st_mtime)
    assert "multipass" not in saved.parts
    kept = shutil.copyfile(saved, tmp_path / f"kept.{format_}")
    box = open_runs(page)
    box.locator("input[type=file]").set_input_files(kept)
    window = viewer(page)
    expect(badge(window)).to_have_text("Final")
    expect(window.get_by_role("combobox", name="Picture")).to_have_value("1")
    page.keyboard.press("Home")
    expect(window.locator("img").first).to_have_attribute("src", re.compile(f"{told['run']}/0/1$"))
    page.evaluate(
        """() => {
            const revoke = URL.revokeObjectURL;
            window.revoked = [];
            URL.revokeObjectURL = (url) => revoked.push(url) && revoke.call(URL, url);
        }"""
    )
    page.keyboard.press("Escape")
    expect(window).to_have_count(0)
    page.wait_for_function("() => revoked.length === 1")
    shutil.rmtree(folder(webui, told["run"]))
    box.locator("input[type=file]").set_input_files(kept)
    expect(box.get_by_role("status")).to_have_text(f'there is no run "{told["run"]}"')
    page.wait_for_function("() => revoked.length === 2")


def test_of_the_pictures_seen_the_last_are_kept(page: Page, panel: Panel, webui: Webui) -> None:
    """At least those of one plan with the most passes, and not every one that there ever was."""
    page.evaluate("() => multipass.compare.ready()")
    made = page.evaluate(
        """async() => {
            const ones = [...Array(200).keys()].map((number) => {
                const canvas = document.createElement("canvas");
                canvas.width = number + 1;
                canvas.height = 1;
                return {src: canvas.toDataURL()};
            });
            let count = 0;
            const Plain = Image;
            window.Image = function() {
                count += 1;
                return new Plain();
            };
            const counts = [];
            for (const looks of [ones.slice(0, 20), ones.slice(0, 20), ones, ones.slice(0, 1), ones.slice(-20)]) {
                for (const look of looks) {
                    await MultipassViewer.same(look, look);
                }
                counts.push(count);
            }
            window.Image = Plain;
            return counts;
        }"""
    )
    assert made == [20, 20, 200, 201, 201]


def test_a_picture_of_no_run_is_said_to_be_none(page: Page, panel: Panel, webui: Webui, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    box = open_runs(page)
    box.locator("input[type=file]").set_input_files(plain)
    expect(box.get_by_role("status")).to_have_text("plain.png does not say of which run it is")


def test_what_is_gone_from_the_disk_is_said_and_the_rest_is_shown(page: Page, panel: Panel, webui: Webui) -> None:
    render(page, panel)
    picture = ready(page)
    run = latest(webui)["run"]
    here = folder(webui, run)
    next(here.glob("pass_1/*")).unlink()
    with pressed(page, picture) as drag:  # the page does not know of it yet
        drag(2)
        expect(over(page)).to_contain_text("Pass 2: style: its picture was moved or deleted")
        screenshot(page, webui, "compare-gone")
        drag(1)
        loaded(over(page).locator("img"))
    window = choose(open_runs(page), run)
    expect(window.get_by_role("button", name="Pass 2: style")).to_have_class(re.compile("multipass-lost"))
    page.keyboard.press("ArrowDown")
    expect(window.locator(".multipass-missing")).to_contain_text("its picture was moved or deleted")
    page.keyboard.press("s")
    option = window.get_by_role("combobox", name="Left of the divider").locator("option", has_text="Pass 2")
    expect(option).to_be_disabled()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    shutil.rmtree(here)
    page.reload()
    assert requests.get(f"{webui.url}/multipass/v1/runs/{run}/stages", timeout=60).status_code == 404


def test_runs_that_were_stopped_say_so_and_show_how_far_they_came(page: Page, panel: Panel, webui: Webui) -> None:
    webui.generate_with({"kind": "interrupt", "at": 6}, THREE, **REQUEST)
    interrupted = latest(webui)["run"]
    webui.arm(kind="raise", at=6)
    assert webui.try_generate(plan=THREE, **REQUEST).status_code == 500
    failed = latest(webui)
    assert failed["status"] == "failed"
    box = open_runs(page)
    expect(box.locator("option").first).to_contain_text("· failed")
    window = choose(box, interrupted)
    expect(window.locator(".multipass-note")).to_have_text("This run was stopped: interrupted in style after step 6")
    expect(badge(window)).to_have_text("Pass 2: style")
    loaded(window.locator("img").first)
    screenshot(page, webui, "compare-interrupted")
    page.keyboard.press("Home")
    loaded(window.locator("img").first)
    page.keyboard.press("Escape")
    window = choose(box, failed["run"])
    expect(window.locator(".multipass-note")).to_contain_text("This run failed: ")
    page.keyboard.press("Home")
    expect(badge(window)).to_have_text("Pass 1: composition")
    loaded(window.locator("img").first)
    screenshot(page, webui, "compare-failed")


# --- what the endpoints answer ---------------------------------------------------------------------------------------


def test_the_text_of_each_picture_says_where_it_is_in_the_run(webui: Webui) -> None:
    answer = webui.generate(plan=THREE, **REQUEST, batch_size=2, n_iter=2)
    run = latest(webui)["run"]
    told = [re.findall(r"Multipass run: ([^,]+),", text) for text in answer.infotexts]
    assert [own for own in told if own] == [[f"{run}/{number}"] for number in range(4)]
    of_passes = [
        Image.open(folder(webui, run) / image["passes"][0]["picture"]).info["parameters"]
        for image in latest(webui)["images"]
    ]
    assert [re.findall(r"Multipass run: ([^,]+),", text)[0] for text in of_passes] == [f"{run}/{n}" for n in range(4)]


def test_each_picture_that_a_script_has_put_together_says_its_own_run(webui: Webui, picture: str) -> None:
    with settings(webui, samples_save=True, grid_save=True):
        webui.arm()
        script = webui.script("Loopback", LOOPBACK)
        answer = webui.try_generate("img2img", plan=THREE, **REQUEST, init_images=[picture], **script, save_images=True)
        assert answer.status_code == 200
    runs = [own["run"] for own in webui.get("/multipass/v1/runs?most=2")["runs"]]
    saved = sorted(webui.data.rglob("*.png"), key=lambda path: path.stat().st_mtime_ns)
    texts = [Image.open(path).info.get("parameters", "") for path in saved if "multipass" not in path.parts]
    told = [run for text in texts for run in re.findall(r"Multipass run: ([^,/]+)/0,", text)]
    assert told[-2:] == runs[::-1]


def test_stages_and_pictures_of_a_run(webui: Webui, picture: str) -> None:
    webui.generate("img2img", plan=THREE, **REQUEST, init_images=[picture], denoising_strength=0.9)
    run = latest(webui)["run"]
    told = webui.get(f"/multipass/v1/runs/{run}/stages")
    (image,) = told["images"]
    assert [stage["label"] for stage in image["stages"]] == [
        "Original",
        "Pass 1: composition",
        "Pass 2: style",
        "Pass 3",
    ]
    for stage in image["stages"]:
        answer = requests.get(f"{webui.url}/multipass/v1/{stage['src']}", timeout=60)
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).size == (REQUEST["width"], REQUEST["height"])
    given = image_of(picture).convert("RGB")
    original = requests.get(f"{webui.url}/multipass/v1/{image['stages'][0]['src']}", timeout=60).content
    if given.size == (REQUEST["width"], REQUEST["height"]):
        assert pixels(original) == given.tobytes()
    for wrong in ("original/1", "triptych/0", "nothing/0", "original/x"):
        assert requests.get(f"{webui.url}/multipass/v1/runs/{run}/{wrong}", timeout=60).status_code == 404


def test_a_bar_for_each_pass_while_it_renders(page: Page, panel: Panel, webui: Webui) -> None:
    assert webui.get("/multipass/v1/progress") == {"passes": []}
    panel.put(THREE)
    set_request(page, steps=60)
    type_in(page, "#txt2img_batch_count", 4)
    page.locator("#txt2img_generate").click()
    bars = page.locator(".multipass-bars")
    expect(bars.locator("progress")).to_have_count(3, timeout=ANSWER_MS)
    expect(bars.get_by_role("progressbar", name="style")).to_have_attribute("max", "24")
    expect(bars.locator(".multipass-now span").first).to_have_text("style", timeout=ANSWER_MS)
    screenshot(page, webui, "compare-bars")
    expect(page.locator("#txt2img_interrupt")).to_be_hidden(timeout=4 * ANSWER_MS)
    expect(bars).to_have_count(0)
    assert webui.get("/multipass/v1/progress") == {"passes": []}
