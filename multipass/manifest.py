"""The record of a run: what was asked, what each pass did to each picture, and how the run ended.

Shapes as in ``docs/plan.md``; on disk it is ``passes.json`` in the run's folder, written aside and renamed.
"""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from multipass.folders import MANIFEST_NAME, whole
from multipass.plan import Plan, decode

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
    """As what a picture came to a refine or subject pass."""

    LATENT = "latent"
    PIXELS = "pixels"


class Load(msgspec.Struct, frozen=True):
    """What it took to have the checkpoint in place, in seconds."""

    source: Source
    seconds: float


class PassRecord(msgspec.Struct, frozen=True):
    """What one pass did to one picture.

    Attributes:
        kind: ``first``, ``switch``, ``refine``, ``subject`` or ``hires``.
        first_step, end_step: as in ``Segment``.
        seconds: of its evaluations, without loading and decoding.
        unet_evaluations: how often the sampler asked and the UNet computed.
        memo_hits: how often it asked and all of the answer was remembered.
        picture: relative to the run's folder.
        through: as what the picture before came to a refine or subject pass; ``None`` of all others.
        subjects: how many times a subject pass, or a switch pass after one, repainted something in this picture. Steps
            are those of one of them, seconds and evaluations of all together. ``None`` of all others.
        mask: of all that was repainted, in the picture's size, white where it was; relative to the run's folder.
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
    subjects: int | None = None
    mask: str | None = None

    def and_another(self, record: PassRecord) -> PassRecord:
        """This, and what the pass did to another subject of the picture."""
        return msgspec.structs.replace(
            self,
            seconds=self.seconds + record.seconds,
            load=Load(self.load.source, self.load.seconds + record.load.seconds),
            unet_evaluations=self.unet_evaluations + record.unet_evaluations,
            memo_hits=self.memo_hits + record.memo_hits,
        )


class ImageRecord(msgspec.Struct, frozen=True):
    """One picture: its seed, its passes in order; files are relative to the run's folder.

    Attributes:
        picture: the finished file.
        original: in img2img, the picture that the first pass began with, as large as that.
        triptych: each checkpoint's picture beside the plan's.
    """

    seed: int
    passes: tuple[PassRecord, ...]
    picture: str | None = None
    original: str | None = None
    triptych: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """The whole run.

    Attributes:
        memo: why some of what the UNet answered could not be remembered; ``None`` if nothing stood in the way.
    """

    run: str
    status: Status
    plan: Plan
    images: tuple[ImageRecord, ...]
    error: str | None = None
    memo: str | None = None
    version: int = MANIFEST_VERSION


def write(manifest: Manifest, folder: Path) -> Path:
    """Write ``passes.json`` into an existing folder, whole or not at all, and return its path."""
    target = folder / MANIFEST_NAME
    with whole(target) as aside:
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return target


def plan_in(content: bytes) -> Plan:
    """The plan of a manifest, of any version, or the plan that the content is. Raises PlanError."""
    try:
        recorded = msgspec.json.decode(content, type=_Recorded).plan
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # else it has to be a plan, and says why not
        return decode(content)
    return decode(bytes(recorded))


class _Recorded(msgspec.Struct, frozen=True):
    plan: msgspec.Raw


def read(path: Path) -> Manifest:
    """Read a manifest back. Raises OSError or msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Manifest)
