"""Where runs are on disk, ``<root>/<date>/<run>``, what lies where in a run, and files that are written whole or not at
all."""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST_NAME = "passes.json"
LATEST = "latest"
_MASK_ENDING = "-mask.png"
_HELD_SECONDS = (0.01, 0.05, 0.3)  # how long Windows may hold a file that somebody reads, a virus scanner say
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
        return next(iter(newest(roots, 1)), None)
    if not _RUN.fullmatch(run):
        return None
    found = [path.parent for root in roots for path in root.glob(f"*/{run}/{MANIFEST_NAME}")]
    return max(found, key=_written_at, default=None)


def newest(roots: Iterable[Path], most: int) -> list[Path]:
    """The folders of the runs that were written to last, the newest first. Of old days no more than needed is read."""
    found = (folder for root in roots for folder in itertools.islice(_newest_first(root), most))
    return in_order(found)[::-1][:most]


def inside(folder: Path, place: str) -> Path | None:
    """The file that a manifest tells of, by its place in the run's folder; ``None`` where none is there, or where that
    leads out of the folder: a manifest may come from anywhere."""
    try:
        found = (folder / place).resolve()
    except ValueError:  # a NUL, which no name has
        return None
    return found if found.is_relative_to(folder.resolve()) and found.is_file() else None


def picture_name(image: int, seed: int) -> str:
    """Of a run's image, counted from 0."""
    return f"{image:05}-{seed}.png"


def of_original(number: int) -> str:
    """Where a picture that img2img begins with is in the run's folder."""
    return f"original/{number:05}.png"


def of_pass(index: int, name: str) -> str:
    """The same of a pass's picture, by the image's name."""
    return f"pass_{index}/{name}"


def of_mask(index: int, name: str) -> str:
    """The same of the mask of what the pass repainted."""
    return of_pass(index, name.removesuffix(".png") + _MASK_ENDING)


def of_triptych(name: str) -> str:
    """The same of a picture's triptych."""
    return f"triptych/{name}"


def picture_of(folder: Path, index: int, image: int) -> Path | None:
    """A pass's picture of an image, both counted from 0; ``None`` if the run has none."""
    found = folder.glob(of_pass(index, f"{image:05}-*.png"))  # of any seed
    return next((path for path in found if not path.name.endswith(_MASK_ENDING)), None)


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
        _put(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _put(aside: Path, target: Path) -> None:
    for seconds in _HELD_SECONDS:
        with contextlib.suppress(PermissionError):
            aside.replace(target)
            return
        time.sleep(seconds)
    aside.replace(target)


def _newest_first(root: Path) -> Iterator[Path]:
    for day in sorted(root.glob("*"), reverse=True):
        yield from reversed(in_order(path.parent for path in day.glob(f"*/{MANIFEST_NAME}")))


def _written_at(folder: Path) -> int:
    try:
        return (folder / MANIFEST_NAME).stat().st_mtime_ns
    except FileNotFoundError:  # somebody else has removed it meanwhile
        return 0
