"""``multipass sweep``: a plan with the values of one or two axes, a run for each, a labelled grid of all pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import msgspec
from PIL import Image

from multipass import folders
from multipass.cache import MEMO_MB
from multipass.drawing import bundled_font, draw_grid
from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.job import Job, prepare, with_seed
from multipass.hosts.standalone.layout import lay_out_plan
from multipass.paths import Axis, Scalar, with_values
from multipass.plan import Plan, PlanError, Problem

MOST_CELLS = 1000
_LONGEST = 40


class Cell(msgspec.Struct, frozen=True):
    """One picture of a sweep."""

    column: int
    row: int
    told: str
    job: Job


class Sweep(msgspec.Struct, frozen=True):
    """What there is to render, and how the grid is labelled."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[Cell, ...]


def prepare_sweep(plan: Plan, axes: Sequence[Axis], folder: CheckpointFolder) -> Sweep:
    """A job for every pair of values, the first axis across and the second, if there is one, down.

    The cells are in an order in which those with the same checkpoints follow each other, so that few are read again
    where there is no room for all.

    Raises:
        InputError: for axes that are no grid.
        PlanError: for a cell that cannot be rendered.
    """
    if not 1 <= len(axes) <= 2 or len({axis.path for axis in axes}) < len(axes):
        raise InputError("--axis: expected one or two places, not the same twice")
    across, down = axes[0], axes[1] if len(axes) > 1 else None
    columns = [(across.path, value) for value in across.values]
    rows = [(down.path, value) for value in down.values] if down is not None else [None]
    if len(columns) * len(rows) > MOST_CELLS:
        raise InputError(f"--axis: {len(columns) * len(rows)} pictures, at most {MOST_CELLS}")
    plan = with_seed(plan)  # the same in every cell
    cells: list[Cell] = []
    refused: list[tuple[str, PlanError]] = []
    for (k, column), (i, row) in product(enumerate(columns), enumerate(rows)):
        values = dict(filter(None, (column, row)))
        told = ", ".join(_label(*one) for one in values.items())
        try:
            changed = with_seed(with_values(plan, values))
            cells.append(Cell(k, i, told, prepare(lay_out_plan(changed), folder)))
        except PlanError as error:
            refused.append((told, error))
    if refused:
        told, error = refused[0]
        others = f", and {len(refused) - 1} more of the pictures" if len(refused) > 1 else ""
        first, *more = error.problems
        raise PlanError(Problem(first.path, f"{first.message} (with {told}{others})"), *more)
    return Sweep(
        tuple(_label(*column) for column in columns),
        tuple("" if row is None else _label(*row) for row in rows),
        tuple(sorted(cells, key=_read)),
    )


def render(
    sweep: Sweep,
    out: Path,
    *,
    ram_gb: float = 0,
    memo_mb: float = MEMO_MB,
    with_report: bool = False,
    say: Callable[[object], None],
) -> Path:
    """Render every cell in a run of its own and draw the grid beside the runs.

    Steps that cells have in common are computed once.

    Args:
        ram_gb: RAM in which checkpoints are kept, those of all cells; 0: what is free.
        memo_mb: RAM for what the UNets answered; 0: each cell is computed whole.
        with_report: write a page beside the grid, too; of a sweep that is stopped, with what there is.
        say: is told every manifest and, last, the grid and the page.

    Raises:
        InputError: where ``out`` cannot be written.
    """
    from multipass.hosts.standalone import report
    from multipass.hosts.standalone.memory import Checkpoints, at_most
    from multipass.hosts.standalone.progress import Bars
    from multipass.hosts.standalone.remembering import new_memo
    from multipass.hosts.standalone.runs import Run

    store, memo = Checkpoints(ram=at_most(ram_gb)), new_memo(memo_mb)
    drawn: dict[tuple[int, int], Image.Image] = {}
    runs: list[tuple[int, int, Path]] = []
    grid = out
    try:
        for number, cell in enumerate(sweep.cells):
            run = Run(cell.job, out, _slug(cell.told))
            runs.append((cell.column, cell.row, run.folder))
            grid = run.folder.with_name(f"{run.name.removesuffix(_slug(cell.told))}sweep.png")  # beside the last one
            bars = Bars(f"Cell {number + 1} of {len(sweep.cells)} ({cell.told}), ")
            try:
                (file,) = run.render(store, [cell.job.seed], bars, memo)
            finally:
                say(run.manifest_path)
            drawn[cell.row, cell.column] = Image.open(file).convert("RGB")
        rows = [[drawn[i, k] for k in range(len(sweep.columns))] for i in range(len(sweep.rows))]
        with folders.whole(grid) as aside:
            draw_grid(rows, sweep.columns, sweep.rows, bundled_font()).save(aside, "PNG")
        say(grid)
    finally:
        if with_report and runs:
            page = report.of_sweep(grid.stem, sweep.columns, sweep.rows, runs)
            say(report.write(page, grid.with_suffix(".html")))
    return grid


def _read(cell: Cell) -> tuple[str, ...]:
    """The checkpoints, in the order in which they are read."""
    return tuple(cell.job.checkpoints[part.pass_index].sha256 for part in cell.job.parts)


def _label(path: str, value: Scalar) -> str:
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"{path}={shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + '...'}"


def _slug(told: str) -> str:
    """Fit for a folder's name."""
    return re.sub(r"[^\w.=]+", "-", told.replace("]", ""), flags=re.ASCII).strip("-.")
