"""``--report``: one HTML page, without a server and without a network, in which passes and cells are compared."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from PIL import Image

from multipass import viewer
from multipass.folders import MANIFEST_NAME, inside, whole
from multipass.hosts.standalone.errors import InputError
from multipass.manifest import ImageRecord, Manifest, Status, read
from multipass.plan import Plan, Request, encode
from multipass.stages import Stage, stages

LARGEST_SIDE = 1024
_QUALITY = 88  # of 100: some 60 KB for 512 x 512 pixels
_TEMPLATE = Path(__file__).with_name("report.html")


class Cell(msgspec.Struct, frozen=True):
    """One picture of the page.

    Attributes:
        looks: as the viewer takes them.
        recipe: the plan that renders it again, as JSON.
        note: how its run ended, where it was stopped.
    """

    column: int
    row: int
    looks: tuple[Stage, ...]
    recipe: str
    note: str = ""
    triptych: str | None = None


class Page(msgspec.Struct, frozen=True):
    """What the page shows; columns and rows by their labels, ``""`` where there is but one."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[Cell, ...]


def of_run(folder: Path) -> Page:
    """A page of a run, a column for each of its pictures. Raises OSError."""
    told = read(folder / MANIFEST_NAME)
    cells = tuple(_cell(folder, told, number, column=number, row=0) for number in range(len(told.images)))
    return Page(told.run, tuple(f"seed {image.seed}" for image in told.images), ("",), cells)


def of_sweep(title: str, columns: Sequence[str], rows: Sequence[str], runs: Sequence[tuple[int, int, Path]]) -> Page:
    """A page of runs with one picture each, by column and row; those of a sweep that was stopped may lack.

    Raises OSError.
    """

    def cells() -> Iterator[Cell]:
        for column, row, folder in runs:
            told = read(folder / MANIFEST_NAME)
            if told.images:
                yield _cell(folder, told, 0, column=column, row=row)

    return Page(title, tuple(columns), tuple(rows), tuple(cells()))


def write(page: Page, target: Path) -> Path:
    """Write the page, whole or not at all. Raises InputError where it cannot be written."""
    # in a script element nothing but a tag ends it
    data = msgspec.json.encode(page).decode().replace("<", "\\u003c")
    parts = {"VIEWER_CSS": viewer.read(viewer.STYLE), "VIEWER_JS": viewer.read(viewer.SCRIPT), "DATA": data}
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        before, after = text.split(f"/*{name}*/")
        text = before + part + after
    try:
        with whole(target) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
    return target


def _cell(folder: Path, told: Manifest, number: int, *, column: int, row: int) -> Cell:
    record = told.images[number]
    looks = list(stages(told, number, lambda picture: _data_uri(folder, picture)))
    if record.picture:  # what the last pass gave
        last = looks.pop()
        looks.append(Stage(f"Final ({last.label})", _made(last), _data_uri(folder, record.picture)))
    ended = "" if told.status is Status.DONE or record.picture else f"{told.status.value}: {told.error or ''}"
    triptych = record.triptych and _data_uri(folder, record.triptych)
    return Cell(column, row, tuple(looks), _recipe(told.plan, record), ended, triptych)


def _made(last: Stage) -> str:
    return last.told if last.src else last.told.rpartition(": ")[0]


def _recipe(plan: Plan, record: ImageRecord) -> str:
    request = msgspec.structs.replace(plan.request or Request(), seed=record.seed)
    return msgspec.json.format(encode(msgspec.structs.replace(plan, request=request)), indent=2)


def _data_uri(folder: Path, place: str) -> str | None:
    """The picture of a run within the page; ``None`` where it is not there."""
    path = inside(folder, place)
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:
        return None
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
