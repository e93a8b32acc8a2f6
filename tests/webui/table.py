"""The table in ``docs/hosts.md``: what the tests found on each host, by conformance number. Written by the test run.

A run inside a host with ``WRITE_TABLE=1`` puts its outcomes beside the document and draws the table anew from those of
all hosts. A test's number is in its name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.webui.samplers import HOSTS

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "hosts"
DOCUMENT = DOCS / "hosts.md"
BEGIN, END = "<!-- written by tests/webui/table.py -->", "<!-- until here -->"

ROWS = {
    "c1": "Off is as without the extension: picture, options, `config.json`, functions",
    "c2": "One pass without overrides = no plan",
    "c3": "Two passes = the built-in Refiner, for every sampler and schedule type, hires fix included",
    "c4": "A pass's texts = prompt editing `[a:b:k-1]` beside the Refiner",
    "c5": "The same checkpoint in every pass = that checkpoint",
    "c6": "A refine pass = the host's hires fix, for every upscaler, and what a pass can have of its own",
    "c7": "`switch_at` 0 = the second alone, 1 = the first alone",
    "c8": "The steps that ran are those that `validate` announced and the picture tells, for every sampler",
    "c9": "A, B, A, C repeats, with LoRAs too; A afterwards is A",
    "c10": "A pass's LoRAs, texts, CFG, clip skip and VAE act in that pass and no other",
    "c11": "Noise and velocity prediction, zero terminal SNR, SD 1.x, 2.x, SDXL and its refiner",
    "c12": "Each picture of a batch = its seed alone",
    "c13": "The plan in the picture renders the picture again",
    "c14": "A patch of the UNet by another extension acts in every pass",
    "c15": "Whatever ends a picture, the host is as before",
    "c16": "A failure of ours never goes on with the wrong model",
    "c17": "A hundred pictures: the memory is flat, and never over the budget",
    "c19": "A batch reads each checkpoint once, and encodes no text while it samples",
    "c21": "A sweep over switch points computes the first pass's steps once, bit-identically",
    "c24": "Refused with the place and the reason, before anything is loaded or sampled",
}

Outcomes = dict[str, dict[str, Any]]
"""By row: how many tests passed and failed, and how many were left out for which reason."""


class Recorder:
    """A pytest plugin that notes outcomes."""

    def __init__(self) -> None:
        self.passed, self.failed, self.skipped = Counter[str](), Counter[str](), dict[str, Counter[str]]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = re.search(r"tests/webui/.*::test_(c\d+)_", report.nodeid)
        if found is None:
            return
        row = found[1]
        if report.failed:
            self.failed[row] += 1
        elif report.skipped:
            self.skipped.setdefault(row, Counter())[_reason(report)] += 1
        elif report.when == "call":
            self.passed[row] += 1

    def outcomes(self) -> Outcomes:
        rows = [row for row in ROWS if self.passed[row] or self.failed[row] or row in self.skipped]
        return {
            row: {
                "passed": self.passed[row],
                "failed": self.failed[row],
                "left_out": dict(sorted(self.skipped.get(row, {}).items())),
            }
            for row in rows
        }


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"known not to hold: {report.wasxfail.removeprefix('reason: ')}"
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def write(host: str, outcomes: Outcomes) -> None:
    """Keep a run's outcomes, by row, and draw the table anew. A run of some rows leaves the others."""
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{host}.json"
    before: Outcomes = json.loads(file.read_text()) if file.exists() else {}
    found = {**before, **outcomes}
    file.write_text(json.dumps({row: found[row] for row in ROWS if row in found}, indent=1) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))


def with_table(document: str) -> str:
    """The document with the table of what is kept."""
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{draw()}{END}{after}"


def draw() -> str:
    """The table, and below it what was left out and why."""
    kept: dict[str, Outcomes] = {
        host: json.loads((FOLDER / f"{host}.json").read_text()) for host in HOSTS if (FOLDER / f"{host}.json").exists()
    }
    names = " | ".join(HOSTS[host].name for host in kept)
    lines = [f"| | {names} |", "|---" * (len(kept) + 1) + "|"]
    notes: list[str] = []
    for row, text in ROWS.items():
        cells = [_cell(found[row], host, row, notes) if row in found else "-" for host, found in kept.items()]
        lines.append(f"| {row.upper()} {text} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    return "\n".join(lines)


def _cell(found: dict[str, Any], host: str, row: str, notes: list[str]) -> str:
    passed, failed = found["passed"], found["failed"]
    counted = f"{passed} test" + "s" * (passed != 1)
    told = f"{failed} of {passed + failed} fail" if failed else f"yes, {counted}" if passed else "no"
    marks: list[str] = []
    for reason, count in found["left_out"].items():
        note = f"{row.upper()}, {HOSTS[host].name}, {count} left out: {reason}"
        notes.append(note)
        marks.append(f"{len(notes)}")
    return f"{told} <sup>{', '.join(marks)}</sup>" if marks else told
