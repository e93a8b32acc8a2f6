"""The viewer: plain JavaScript and CSS that compare the looks of a picture, in the webui's page and in reports."""

from __future__ import annotations

from pathlib import Path

SCRIPT, STYLE = "viewer.js", "viewer.css"


def read(name: str) -> str:
    """The content of ``SCRIPT`` or ``STYLE``."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
