"""What leaves a full memory."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from multipass.cache.policy import Unit, evictions, held

CONTENTS = st.dictionaries(st.integers(0, 6), st.just(None), max_size=4)


@st.composite
def memories(draw: st.DrawFn) -> tuple[list[Unit], dict[Hashable, int]]:
    """Units, some with contents in common, and what is to come in."""
    sizes = draw(st.lists(st.integers(0, 50), min_size=8, max_size=8))
    of_each = draw(st.lists(CONTENTS, max_size=6))
    ages = draw(st.permutations(range(len(of_each))))
    leased = draw(st.lists(st.booleans(), min_size=len(of_each), max_size=len(of_each)))
    units = [
        Unit(f"unit {number}", age, lease, {content: sizes[content] for content in contents})
        for number, (contents, age, lease) in enumerate(zip(of_each, ages, leased, strict=True))
    ]
    return units, {content: sizes[content] for content in draw(CONTENTS)} | {"new": sizes[7]}


@given(memories(), st.integers(0, 300))
def test_never_over_the_budget_and_never_what_is_leased(memory: tuple[list[Unit], dict], budget: int) -> None:
    units, incoming = memory
    gone = evictions(units, incoming, budget)
    if gone is None:
        assert held([unit for unit in units if unit.leased], incoming) > budget, "it would have fitted"
        return
    assert held([unit for unit in units if unit.key not in gone], incoming) <= budget
    assert not [unit for unit in units if unit.key in gone and unit.leased]


@given(memories(), st.integers(0, 300))
def test_nothing_leaves_needlessly(memory: tuple[list[Unit], dict], budget: int) -> None:
    units, incoming = memory
    gone = evictions(units, incoming, budget) or ()
    for spared in gone:
        others = [unit for unit in units if unit.key not in gone or unit.key == spared]
        assert held(others, incoming) > budget, f"{spared} could have stayed"


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.data())
def test_of_equal_ones_the_one_used_longest_ago_leaves(ages: list[int], data: st.DataObject) -> None:
    units = [Unit(number, age, False, {number: 10}) for number, age in enumerate(dict.fromkeys(ages))]
    count = data.draw(st.integers(1, len(units)))
    gone = evictions(units, {"new": 10 * count}, 10 * len(units))
    assert gone == tuple(unit.key for unit in sorted(units, key=lambda unit: unit.last_used)[:count])


@given(memories(), st.integers(0, 100))
def test_what_fits_evicts_nothing(memory: tuple[list[Unit], dict], spare: int) -> None:
    """So two sets that fit never push each other out."""
    units, incoming = memory
    assert evictions(units, incoming, held(units, incoming) + spare) == ()


def test_one_unit_of_two_with_the_same_content_frees_nothing() -> None:
    twins = [Unit("a", 1, False, {"vae": 10}), Unit("b", 2, False, {"vae": 10}), Unit("c", 3, False, {"unet": 10})]
    assert evictions(twins, {"new": 10}, 20) in {("c",), ("a", "b")}
    assert evictions([twins[0], twins[1]._replace(leased=True), twins[2]], {"new": 10}, 20) == ("c",)
