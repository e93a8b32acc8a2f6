"""A plan's picture beside those of its checkpoints alone: which are made, and what they are called. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence


def alone(sampled: Iterable[int], checkpoints: Mapping[int, str]) -> tuple[int, ...]:
    """The passes that the first trajectory is rendered with alone: for each checkpoint the first that has it.

    One for each pass would repeat itself (A, B, A) and cost more than it tells.

    Args:
        sampled: the passes that get a step, in order, by their index in ``Plan.passes``.
        checkpoints: of each, by what tells them apart.
    """
    first: dict[str, int] = {}
    for index in sampled:
        first.setdefault(checkpoints[index], index)
    return tuple(first.values())


def labels(sampled: Sequence[int], checkpoints: Mapping[int, str]) -> tuple[str, ...]:
    """What the pictures are called, the plan's last: ``A alone``, ``B alone``, ``A then B``.

    Args:
        sampled, checkpoints: as ``alone`` takes them; ``name [hash]`` is told as its name.
    """
    names = {index: checkpoints[index].partition(" [")[0] for index in sampled}
    in_order = [name for name, _ in itertools.groupby(names[index] for index in sampled)]
    return (*(f"{names[index]} alone" for index in alone(sampled, checkpoints)), " then ".join(in_order))
