"""What the documentation says of the plan is what the code declares and accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from multipass.plan import Pass, decode
from tests.webui import table

ROOT = Path(__file__).parents[2]
FORMAT = (ROOT / "docs/plan.md").read_text()


def field_table() -> str:
    """The table of a pass's fields, as docs/plan.md must have it."""
    properties: dict[str, Any] = msgspec.json.schema(Pass)["$defs"]["Pass"]["properties"]
    lines = ["| field | range | |", "|---|---|---|"]
    for name, declared in properties.items():
        option = next((o for o in declared.get("anyOf", ()) if o.get("type") != "null"), declared)
        merged = {**option, **declared}
        low, high = merged.get("minimum"), merged.get("maximum")
        span = f"{low} to {high}" if low is not None else ""
        lines.append(f"| `{name}` | {span} | {merged['description']} |")
    return "\n".join(lines)


def test_the_table_of_fields_is_the_declaration() -> None:
    assert field_table() in FORMAT, field_table()


@pytest.mark.parametrize("document", ["README.md", "docs/plan.md"])
def test_every_example_is_a_plan(document: str) -> None:
    examples = re.findall(r"```json\n(\{.*?\n\})\n```", (ROOT / document).read_text(), re.DOTALL)
    assert examples
    for example in examples:
        decode(example)


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_what_a_document_links_to_is_there(document: str) -> None:
    place = ROOT / document
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", place.read_text())
    assert [link for link in links if not (place.parent / link).exists()] == []


def test_the_table_of_hosts_is_what_the_tests_found() -> None:
    """``WRITE_TABLE=1 pytest tests/webui`` writes it."""
    document = table.DOCUMENT.read_text()
    assert document == table.with_table(document)
    assert all(f"| {row.upper()} " in document for row in table.ROWS)
