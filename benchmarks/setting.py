"""What the benchmarks run in: a webui, a pair of checkpoints, a machine."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.pairs import PAIRS, Pair
from tests.webui.host import Install, find_install


class Setting(NamedTuple):
    """A webui on this machine and two checkpoints for it in a folder that will be gone.

    Attributes:
        config: of the model, which both share.
    """

    install: Install
    pair: Pair
    place: Path
    checkpoints: Path
    config: Path


def options(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What all of them take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    return parser


@contextmanager
def automatic1111(size: str) -> Iterator[Setting]:
    """AUTOMATIC1111's webui, with the pair of that size. Raises SystemExit where there is none."""
    install, pair = find_install(), PAIRS[size]
    if install is None or install.is_forge_family:
        raise SystemExit("no AUTOMATIC1111 webui: set WEBUI_DIR")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoints = place / "models/checkpoints"
        with ProcessPoolExecutor(1) as apart:  # what it needs of memory goes with it
            config = apart.submit(pair.make, install, checkpoints).result()
        yield Setting(install, pair, place, checkpoints, config)


def machine() -> str:
    """For people."""
    return f"{platform.machine()}, {platform.processor() or platform.system()}, {os.cpu_count()} cores"
