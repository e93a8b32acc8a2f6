"""Using the viewer in a browser as a person would: what its tests share, in the webui's page and in reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import CDPSession, Locator, Page, expect

STEP = 44  # pixels of a drag from one look to the next


def over(page: Page) -> Locator:
    """What is laid over a picture of the page while it is dragged."""
    return page.locator(".multipass-over")


def badge(within: Locator) -> Locator:
    return within.locator("output.multipass-badge")


def middle(picture: Locator) -> tuple[float, float]:
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@contextmanager
def pressed(page: Page, picture: Locator) -> Iterator[Any]:
    """While this lasts the mouse holds the picture; gives ``drag(steps)``, counted from where it was pressed."""
    x, y = middle(picture)
    page.mouse.move(x, y)
    page.mouse.down()

    def drag(steps: float) -> None:
        page.mouse.move(x, y - steps * STEP, steps=4)

    try:
        yield drag
    finally:
        page.mouse.up()


def dragged_through(page: Page, picture: Locator, looks: int, shown: Locator) -> list[str]:
    """The badges of a drag upwards through that many looks."""
    found: list[str] = []
    with pressed(page, picture) as drag:
        for steps in range(1, looks + 1):
            drag(steps)
            expect(shown).to_be_visible()
            found.append(badge(shown).inner_text())
    return found


class Finger:
    """One on a touch screen."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session: CDPSession = page.context.new_cdp_session(page)

    def _send(self, kind: str, *points: tuple[float, float]) -> None:
        touch = {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
        self._session.send("Input.dispatchTouchEvent", touch)

    def down(self, x: float, y: float) -> None:
        self._send("touchStart", (x, y))

    def move(self, x: float, y: float) -> None:
        self._send("touchMove", (x, y))

    def up(self) -> None:
        self._send("touchEnd")


def viewer(page: Page) -> Locator:
    """The window."""
    return page.locator("dialog.multipass-viewer")


def loaded(picture: Locator) -> None:
    """It shows a picture, and not the sign of one that is broken."""
    expect(picture).to_be_visible()
    picture.page.wait_for_function("(img) => img.complete && img.naturalWidth > 0", arg=picture.element_handle())
