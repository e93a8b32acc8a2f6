"""What there is to compare of a run: each picture from what it began with to its last pass. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from multipass.manifest import Manifest, PassRecord

ORIGINAL = "Original"


class Stage(msgspec.Struct, frozen=True):
    """One look of a picture, as the viewer takes it.

    Attributes:
        label: what the viewer's badge says: ``Original``, ``Pass 2: style``.
        told: what made it, and where there is no picture, why, in a line.
        src: where a browser gets the picture; ``None`` where there is none.
    """

    label: str
    told: str
    src: str | None


def stages(manifest: Manifest, image: int, find: Callable[[str], str | None]) -> tuple[Stage, ...]:
    """In the order in which they were made; a run that was stopped has those that it came to.

    Args:
        image: the picture's place in ``manifest.images``.
        find: from a file, relative to the run's folder, to where a browser gets it; ``None`` where it is not there.

    Raises:
        IndexError: where the run has no such picture.
    """
    if image < 0:
        raise IndexError(image)
    record = manifest.images[image]

    def stage(label: str, made: str, picture: str | None) -> Stage:
        src = find(picture) if picture else None
        if src:
            return Stage(label, made, src)
        kept = "its picture was moved or deleted" if picture else "no picture of it was kept"
        return Stage(label, f"{made}: {kept}", None)

    begun = (stage(ORIGINAL, "what the first pass began with", record.original),) if record.original else ()
    passes = (stage(_label(number, own), _made(own), own.picture) for number, own in enumerate(record.passes))
    return (*begun, *passes)


def _label(number: int, own: PassRecord) -> str:
    numbered = f"Pass {number + 1}"
    return numbered if own.name in ("", numbered) else f"{numbered}: {own.name}"


def _made(own: PassRecord) -> str:
    first, last = own.first_step + 1, own.end_step
    steps = f"steps {first}-{last}" if first < last else f"step {first}" if first == last else "no step"
    return f"{own.checkpoint}, {steps}"
