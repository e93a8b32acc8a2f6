"""The record of a run: what was asked, what each pass did to each picture, and how the run ended.

Shapes as in ``docs/plan.md``; on disk it is ``passes.json`` in the run's folder, written aside and renamed.
"""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from multipass.folders import MANIFEST_NAME, whole
from multipass.plan import Plan

MANIFEST_VERSION = 1


class Status(enum.Enum):
    """How a run ended."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class Source(enum.Enum):
    """Where a pass's checkpoint was when the pass began."""

    RESIDENT = "resident"
    RAM = "ram"
    DISK = "disk"


class Through(enum.Enum):
    """As what a picture came to a refine pass."""

    LATENT = "latent"
    PIXELS = "pixels"


class Load(msgspec.Struct, frozen=True):
    """What it took to have the checkpoint in place, in seconds."""

    source: Source
    seconds: float


class PassRecord(msgspec.Struct, frozen=True):
    """What one pass did to one picture.

    Attributes:
        kind: ``first``, ``switch``, ``refine`` or ``hires``.
        first_step, end_step: as in ``Segment``.
        seconds: of its evaluations, without loading and decoding.
        picture: relative to the run's folder.
        through: as what the picture before came to it; ``None`` where it had none to come.
    """

    name: str
    checkpoint: str
    sha256: str
    kind: str
    first_step: int
    end_step: int
    sigma_in: float
    sigma_out: float
    seconds: float
    load: Load
    unet_evaluations: int
    memo_hits: int = 0
    picture: str | None = None
    through: Through | None = None


class ImageRecord(msgspec.Struct, frozen=True):
    """One picture: its seed, its passes in order, and the finished file relative to the run's folder."""

    seed: int
    passes: tuple[PassRecord, ...]
    picture: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """The whole run."""

    run: str
    status: Status
    plan: Plan
    images: tuple[ImageRecord, ...]
    error: str | None = None
    version: int = MANIFEST_VERSION


def write(manifest: Manifest, folder: Path) -> Path:
    """Write ``passes.json`` into an existing folder, whole or not at all, and return its path."""
    target = folder / MANIFEST_NAME
    with whole(target) as aside:
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return target


def read(path: Path) -> Manifest:
    """Read a manifest back. Raises OSError or msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Manifest)
