"""``--report``: one page for render and sweep, used in a real browser from a file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from multipass.hosts.standalone import engine, report
from multipass.hosts.standalone.cli import FAILED, INTERRUPTED, main
from multipass.plan import decode
from tests.standalone.helpers import plan
from tests.viewing import Finger, badge, dragged_through, loaded, over, pressed, viewer
from tests.webui.browsing import ARGS, ARTIFACTS, BROWSERS

NASTY = '</script><img src=x onerror="document.title=1"> "&amp;'
A_TO_B = plan(
    {"checkpoint": "a", "name": NASTY}, {"switch_at": 0.5, "checkpoint": "b", "name": "style", "prompt": NASTY}, seed=7
)

Command = Callable[..., tuple[int, Path]]


@pytest.fixture
def command(checkpoints: Path, tmp_path: Path) -> Command:
    def command(name: str, raw: Any, *options: str) -> tuple[int, Path]:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(raw), encoding="utf-8")
        out = ["--checkpoints", str(checkpoints), "--out", str(tmp_path / "out")]
        code = main([name, str(path), *out, *options, "--report"])
        (page,) = (tmp_path / "out").rglob("*.html")
        return code, page

    return command


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Opens a page, and asserts in the end that it asked nobody for anything and nothing went wrong in it."""
    pages: list[Page] = []
    asked: list[str] = []
    wrong: list[str] = []

    def show(path: Path, **how: Any) -> Page:
        page = browser.new_context(**({"viewport": {"width": 1100, "height": 800}} | how)).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield show
    assert wrong == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    for page in pages:
        page.context.close()


def keep(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"report-{name}.png")


def test_the_pictures_of_a_render_are_compared_by_the_gesture(command: Command, show: Any) -> None:
    code, path = command("render", A_TO_B, "--count", "2")
    assert code == 0
    assert path.name == "report.html"
    page = show(path)
    assert page.title() == path.parent.name  # what the plan says stays text
    pictures = page.locator("figure > img")
    expect(pictures).to_have_count(2)
    loaded(pictures.first)
    expect(page.locator("th")).to_have_text(["seed 7", "seed 8"])
    assert dragged_through(page, pictures.nth(1), 3, over(page)) == [
        f"Pass 1: {NASTY}",
        "Final (Pass 2: style)",
        f"Pass 1: {NASTY}",
    ]
    expect(over(page)).to_have_count(0)
    expect(viewer(page)).to_have_count(0)
    pictures.first.click()
    expect(badge(viewer(page))).to_have_text("Final (Pass 2: style)")
    page.keyboard.press("s")
    expect(viewer(page).get_by_role("slider")).to_be_focused()
    loaded(viewer(page).locator(".multipass-other"))
    keep(page, "slider")
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    expect(badge(viewer(page))).to_have_text(f"Pass 1: {NASTY}")
    page.keyboard.press("Escape")
    expect(viewer(page)).to_have_count(0)


def test_the_cells_of_a_sweep_are_compared_too(command: Command, show: Any) -> None:
    axes = ["--axis", "passes[1].switch_at=0:1:0.5", "--axis", "request.seed=7,8"]
    code, path = command("sweep", A_TO_B, *axes)
    assert code == 0
    page = show(path)
    pictures = page.locator("figure > img")
    expect(pictures).to_have_count(6)
    expect(page.locator("th[scope=col]")).to_have_text([f"passes[1].switch_at={at:.1f}" for at in (0, 0.5, 1)])
    expect(page.locator("th[scope=row]")).to_have_text(["request.seed=7", "request.seed=8"])
    loaded(pictures.first)
    keep(page, "sweep")
    page.get_by_role("radio", name="the columns").check()
    at = "passes[1].switch_at"
    rows = [f"{at}={value}, request.seed=8" for value in ("1.0", "0.0", "0.5")]
    assert dragged_through(page, pictures.nth(4), 3, over(page)) == rows
    page.get_by_role("radio", name="the rows").check()
    assert dragged_through(page, pictures.nth(4), 1, over(page)) == [f"{at}=0.5, request.seed=7"]
    pictures.nth(4).focus()
    page.keyboard.press("Enter")
    window = viewer(page)
    expect(window.get_by_role("combobox", name="Picture").locator("option")).to_have_text(
        ["Through the passes", "Through the columns", "Through the rows"]
    )
    expect(badge(window)).to_have_text(f"{at}=0.5, request.seed=8")
    page.keyboard.press("s")
    expect(window.locator(".multipass-right")).to_have_text(f"{at}=0.5, request.seed=8")


def test_each_cell_s_recipe_is_copied_and_renders_it_again(
    command: Command, show: Any, tmp_path: Path, checkpoints: Path
) -> None:
    _, path = command("sweep", A_TO_B, "--axis", "passes[1].switch_at=0,0.5")
    page = show(path, permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy recipe").nth(1)
    button.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    recipe = page.evaluate("navigator.clipboard.readText()")
    assert decode(recipe).passes[1].switch_at == 0.5
    again = tmp_path / "again.json"
    again.write_text(recipe, encoding="utf-8")
    out = tmp_path / "again"
    assert main(["render", str(again), "--checkpoints", str(checkpoints), "--out", str(out)]) == 0
    (picture,) = out.glob("multipass/*/*/*.png")
    (before,) = (tmp_path / "out").glob("multipass/*/*0.5/*.png")
    assert picture.read_bytes() == before.read_bytes()


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("out of luck"), FAILED), (KeyboardInterrupt(), INTERRUPTED)])
def test_a_render_that_is_stopped_has_a_page_of_how_far_it_came(
    command: Command, show: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    denoise, made = engine._denoise, [0]

    def failing(*given: Any) -> Any:
        made[0] += 1
        if made[0] > 10:  # in the second pass of the second picture
            raise error
        return denoise(*given)

    monkeypatch.setattr(engine, "_denoise", failing)
    ended, path = command("render", A_TO_B, "--count", "2")
    assert ended == code
    page = show(path)
    expect(page.locator("figure > img")).to_have_count(2)
    expect(page.locator("figcaption").nth(1)).to_contain_text("failed" if code == FAILED else "interrupted")
    keep(page, f"stopped-{code}")


def test_a_triptych_is_one_of_the_window_s_pictures(command: Command, show: Any) -> None:
    _, path = command("render", A_TO_B | {"triptych": True})
    (drawn,) = path.parent.glob("triptych/*.png")
    page = show(path)
    page.locator("figure > img").click()
    choice = viewer(page).get_by_role("combobox", name="Picture")
    expect(choice.locator("option")).to_have_text(["Through the passes", "Triptych"])
    choice.select_option("Triptych")
    shown = viewer(page).get_by_role("img").first
    loaded(shown)
    size = shown.evaluate("(img) => [img.naturalWidth, img.naturalHeight]")
    assert tuple(size) == Image.open(drawn).size
    keep(page, "triptych")


def test_pictures_that_were_not_kept_are_said_to_lack(command: Command, show: Any) -> None:
    _, path = command("render", A_TO_B | {"save_passes": False})
    page = show(path)
    with pressed(page, page.locator("figure > img")) as drag:
        drag(1)
        expect(over(page)).to_contain_text("no picture of it was kept")


def test_a_manifest_s_picture_outside_of_the_run_is_not_put_into_the_page(command: Command) -> None:
    _, path = command("render", A_TO_B)
    (manifest,) = path.parent.rglob("passes.json")
    told = json.loads(manifest.read_text())
    told["images"][0]["passes"][0]["picture"] = "../outside.png"
    Image.new("RGB", (8, 8)).save(manifest.parent.parent / "outside.png")
    manifest.write_text(json.dumps(told))
    (cell,) = report.of_run(manifest.parent).cells
    assert [look.src is None for look in cell.looks] == [True, False]


def test_a_phone(command: Command, show: Any) -> None:
    _, path = command("sweep", A_TO_B, "--axis", "passes[1].switch_at=0:1:0.25")
    page = show(path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    picture = page.locator("figure > img").nth(1)
    loaded(picture)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # the grid scrolls by itself
    box = picture.bounding_box()
    assert box
    finger, x, y = Finger(page), box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger.down(x, y)
    page.wait_for_timeout(350)
    finger.move(x, y - 50)
    expect(badge(over(page))).to_have_text(re.compile("^Pass 1"))
    keep(page, "phone")
    finger.up()
    expect(over(page)).to_have_count(0)


def test_the_page_is_as_large_as_its_pictures(command: Command) -> None:
    _, path = command("render", plan({"checkpoint": "a"}, seed=7, width=128, height=128), "--count", "2")
    assert path.stat().st_size < 60_000
