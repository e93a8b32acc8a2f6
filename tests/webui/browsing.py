"""The panel in a real browser, used as a person would use it: what the tests of the panel share."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, WebSocket, expect

from tests.webui.host import ROOT, Webui

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DOCS = ROOT / "docs"
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
ANSWER_MS = 30_000  # the host may be busy
expect.set_options(timeout=ANSWER_MS)
THREE: dict[str, Any] = {
    "version": 1,
    "switch_unit": "step",
    "passes": [
        {"checkpoint": "soft", "name": "one"},
        {"checkpoint": "ink", "switch_at": 2, "prompt": 'b, "quoted": c', "prompt_mode": "append"},
        {"checkpoint": "soft", "switch_at": 6, "name": "back"},
    ],
}
REQUEST: dict[str, Any] = {
    "prompt": "a red apple",
    "seed": 7,
    "steps": 10,
    "width": 64,
    "height": 64,
    "sampler_name": "Euler",
}


class Panel:
    """The panel of one tab of a page."""

    def __init__(self, page: Page, webui: Webui, tab: str = "txt2img") -> None:
        self.page, self.webui, self.tab = page, webui, tab
        self.form = page.locator(f"#multipass_{tab}_form")
        self.pills = self.form.get_by_role("tab")
        self.summary = self.by_id("summary")
        self.notes = self.by_id("notes")

    def by_id(self, name: str) -> Locator:
        return self.page.locator(f"#multipass_{self.tab}_{name}")

    def open(self) -> Panel:
        """Which turns multipass on."""
        self.page.locator(f"#multipass_{self.tab} .label-wrap").click()
        expect(self.form).to_be_visible()
        expect(self.by_id("checkpoint").locator("option")).not_to_have_count(1, timeout=ANSWER_MS)
        return self

    @property
    def text(self) -> str:
        """What is in the hidden field."""
        return self.page.locator(f"#multipass_{self.tab}_plan textarea, #multipass_{self.tab}_plan input").input_value()

    @property
    def plan(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def chosen(self) -> int:
        """Which pass the form shows."""
        selected = self.pills.evaluate_all("(pills) => pills.map((own) => own.getAttribute('aria-selected'))")
        return selected.index("true")

    @property
    def passes(self) -> list[dict[str, Any]]:
        return self.plan["passes"]

    def put(self, plan: dict[str, Any] | str) -> Panel:
        """As a pasted picture does it."""
        self.page.evaluate(
            """([tab, text]) => {
                const field = gradioApp().querySelector(`#multipass_${tab}_plan textarea`);
                field.value = text;
                field.dispatchEvent(new Event("input", {bubbles: true}));
            }""",
            [self.tab, plan if isinstance(plan, str) else json.dumps(plan)],
        )
        return self

    def choose(self, index: int) -> Panel:
        """Which pass the form shows."""
        self.by_id(f"pill_{index}").click()
        expect(self.by_id(f"pill_{index}")).to_have_attribute("aria-selected", "true")
        return self

    def pick(self, checkpoint: str) -> None:
        """Choose the chosen pass's checkpoint by the first word of its title."""
        select = self.by_id("checkpoint")
        listed = select.locator("option").evaluate_all("(options) => options.map((own) => own.value)")
        select.select_option(next(name for name in listed if name.split(" [")[0] == checkpoint))

    def more(self) -> None:
        """Open what is not seen at once."""
        self.by_id("more").locator("summary").click()

    def expect_summary(self, text: str | re.Pattern[str]) -> None:
        expect(self.summary).to_have_text(text, timeout=ANSWER_MS)


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280, before: str = "") -> Iterator[Page]:
    """The webui's page in a browser that was never there before.

    Args:
        before: a script that the page runs first.
    """
    page = browser.new_page(viewport={"width": width, "height": 1300})
    if before:
        page.add_init_script(before)
    questions: list[WebSocket] = []
    page.on("websocket", lambda own: questions.append(own))  # noqa: PLW0108 - playwright marks its handlers
    load(page, url)
    yield page
    # gradio 3 never restarts if a page is gone in the middle of a question
    deadline = time.monotonic() + 10
    while not all(own.is_closed() for own in questions) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.close()


def load(page: Page, url: str) -> None:
    page.goto(url)
    wait(page)


def wait(page: Page) -> None:
    """Until the page is there, panel included."""
    expect(page.locator("#txt2img_generate")).to_be_visible(timeout=60_000)
    expect(page.locator("#multipass_txt2img_form [role=tab]")).not_to_have_count(0, timeout=ANSWER_MS)
    page.wait_for_function("Object.keys(opts).length > 0", timeout=ANSWER_MS)  # which come a little later


def type_in(page: Page, field: str, value: object) -> None:
    """A number of the host's own."""
    target = page.locator(f"{field} input[type=number]")
    target.fill(str(value))
    target.press("Tab")


def choose_in(page: Page, field: str, name: str) -> None:
    """One of a list of the host's own, by the beginning of its name."""
    page.locator(f"{field} input").first.click()
    page.locator(f"{field} [role=option], {field} li").or_(page.get_by_role("option")).filter(
        has_text=re.compile(rf"^\s*(✓\s*)?{re.escape(name)}")
    ).first.click()


def set_request(page: Page, steps: int = 20) -> None:
    page.locator("#txt2img_prompt textarea").fill("a fox")
    for name, value in (("width", 128), ("height", 128), ("steps", steps), ("cfg_scale", 4)):
        type_in(page, f"#txt2img_{name}", value)
    page.locator("#txt2img_seed input").fill("20")


def generate(page: Page, tab: str = "txt2img") -> str:
    """Press Generate and return the infotext under the picture."""
    page.locator(f"#{tab}_generate").click()
    expect(page.locator(f"#{tab}_gallery img").first).to_be_visible(timeout=60_000)
    told = page.locator(f"#html_info_{tab} .infotext, #html_info_{tab} p").first
    expect(told).to_be_visible(timeout=ANSWER_MS)
    expect(page.locator(f"#{tab}_interrupt")).to_be_hidden(timeout=ANSWER_MS)
    return told.inner_text()


def screenshot(page: Page, webui: Webui, name: str, of: Locator | None = None) -> None:
    """As ``keep`` keeps it."""
    keep(Image.open(io.BytesIO((of or page).screenshot())), webui, name)


def keep(picture: Image.Image, webui: Webui, name: str) -> None:
    """Beside the tests, by host. With ``WRITE_SCREENSHOTS=1`` those that the documents show are renewed."""
    ARTIFACTS.mkdir(exist_ok=True)
    picture.save(ARTIFACTS / f"{name}-{webui.install.host}.png", optimize=True)
    shown = DOCS / f"{name}.png"
    if os.environ.get("WRITE_SCREENSHOTS") and shown.exists():
        picture.convert("RGB").quantize(256).save(shown, optimize=True)
