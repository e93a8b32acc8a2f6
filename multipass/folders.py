"""Where runs are on disk, ``<root>/<date>/<run>``, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

MANIFEST_NAME = "passes.json"
LATEST = "latest"
_RUN = re.compile(r"[0-9A-Za-z][\w.-]{0,127}", re.ASCII)  # the name of a folder, never a way out of one


def begin(root: Path, label: str = "") -> Path:
    """Make the folder of a new run.

    Args:
        label: a word for people, becomes the end of the folder's name.

    Raises:
        OSError: where it cannot be made.
    """
    name = "-".join(filter(None, (time.strftime("%H%M%S"), secrets.token_hex(2), label)))
    folder = root / time.strftime("%Y-%m-%d") / name
    folder.mkdir(parents=True)
    return folder


def find(roots: Iterable[Path], run: str) -> Path | None:
    """The folder of a run that has a manifest, by its name or as ``latest``; ``None`` if there is none, or if that is
    no run's name."""
    if run == LATEST:
        newest = [found[-1] for root in roots if (found := _of_last_day(root))]
        return max(newest, key=_written_at, default=None)
    if not _RUN.fullmatch(run):
        return None
    found = [path.parent for root in roots for path in root.glob(f"*/{run}/{MANIFEST_NAME}")]
    return max(found, key=_written_at, default=None)


def prune(root: Path, keep: int) -> None:
    """Remove all runs but those written to last. One that somebody reads just now may stay until the next time."""
    for folder in in_order(path.parent for path in root.glob(f"*/*/{MANIFEST_NAME}"))[: -keep or None]:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run is in it, or somebody else has removed it
            folder.parent.rmdir()


def in_order(folders: Iterable[Path]) -> list[Path]:
    """Runs by when their manifest was written, the last one last."""
    return sorted(folders, key=_written_at)


@contextmanager
def whole(target: Path) -> Generator[Path]:
    """A file to write beside ``target``, which takes its place when the block is left; if it fails, nothing has
    changed."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _of_last_day(root: Path) -> list[Path]:
    for day in sorted(root.glob("*"), reverse=True):
        found = in_order(path.parent for path in day.glob(f"*/{MANIFEST_NAME}"))
        if found:
            return found
    return []


def _written_at(folder: Path) -> int:
    try:
        return (folder / MANIFEST_NAME).stat().st_mtime_ns
    except FileNotFoundError:  # somebody else has removed it meanwhile
        return 0
