"""What has to leave a memory so that something fits into it: what was used longest ago goes first. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

Parts = Mapping[Any, int]
"""Contents and their bytes. A content that several units have is in memory once."""


class Unit(NamedTuple):
    """What is kept or leaves as a whole.

    Attributes:
        last_used: a counter; of two, the lower leaves first.
        leased: in use now: it stays, whatever happens.
    """

    key: Hashable
    last_used: int
    leased: bool
    parts: Parts


def held(units: Iterable[Unit], incoming: Parts | None = None) -> int:
    """Bytes that these take together."""
    contents = dict(incoming or {})
    for unit in units:
        contents.update(unit.parts)
    return sum(contents.values())


def evictions(units: Collection[Unit], incoming: Parts, budget: int) -> tuple[Hashable, ...] | None:
    """The keys of what has to go so that ``incoming`` fits beside the rest, no more than needed.

    ``None`` where it cannot fit, whatever goes: then nothing should.
    """
    stay = list(units)
    gone: list[Unit] = []
    for unit in sorted((unit for unit in units if not unit.leased), key=lambda unit: unit.last_used):
        if held(stay, incoming) <= budget:
            break
        stay.remove(unit)
        gone.append(unit)
    if held(stay, incoming) > budget:
        return None
    for unit in reversed(gone[:]):  # a large one that had to go later may have made room for a small one to stay
        if held([*stay, unit], incoming) <= budget:
            stay.append(unit)
            gone.remove(unit)
    return tuple(unit.key for unit in gone)
