"""Which of a plan's passes are rendered alone, and what a triptych's pictures are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.triptych import alone, labels

sampled = st.lists(st.integers(0, 15), unique=True, max_size=16).map(sorted)


@given(sampled, st.data())
def test_each_checkpoint_is_alone_once_by_its_first_pass(indexes: list[int], data: st.DataObject) -> None:
    checkpoints = {index: data.draw(st.sampled_from("abc")) for index in indexes}
    found = alone(indexes, checkpoints)
    assert len({checkpoints[index] for index in found}) == len(found) == len(set(checkpoints.values()))
    before = {index: {checkpoints[one] for one in indexes if one < index} for index in found}
    assert all(checkpoints[index] not in before[index] for index in found)
    assert len(labels(indexes, checkpoints)) == len(found) + 1


@pytest.mark.parametrize(
    ("checkpoints", "told"),
    [
        ("ab", ("a alone", "b alone", "a then b")),
        ("aba", ("a alone", "b alone", "a then b then a")),
        ("aab", ("a alone", "b alone", "a then b")),
        ("a", ("a alone", "a")),
    ],
)
def test_labels(checkpoints: str, told: tuple[str, ...]) -> None:
    assert labels(range(len(checkpoints)), {n: f"{name} [0123abcd]" for n, name in enumerate(checkpoints)}) == told
