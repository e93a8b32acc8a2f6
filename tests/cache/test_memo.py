"""What is remembered of a denoiser, and by what it is known."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from multipass.cache.memo import Key, Memo, UnknownError

CPU = torch.device("cpu")
LARGE = 1 << 14  # numbers: more than is worth comparing with the last one


def memo(budget: int = 1 << 30) -> Memo:
    return Memo(lambda: budget)


def never() -> Tensor:
    raise AssertionError("it was to be remembered")


# --- by what it is known -------------------------------------------------------------------------------------------


def leaves() -> st.SearchStrategy[Any]:
    numbers = st.integers(-3, 3) | st.booleans() | st.sampled_from([0.0, -0.0, 1.0, float("nan"), "", "1", None])
    tensors = st.builds(
        lambda numbers, dtype, rows: torch.tensor(numbers * rows, dtype=dtype).reshape(rows, -1),
        st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=3),
        st.sampled_from([torch.float32, torch.float16, torch.int64]),
        st.integers(1, 2),
    )
    return numbers | tensors


GIVEN = st.recursive(
    leaves(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("abc"), inside, max_size=3),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    """To the bit, types and all."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride()
        return alike and one.numpy().tobytes() == other.numpy().tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: copied(inside) for name, inside in value.items()}
    return [copied(inside) for inside in value] if isinstance(value, list) else value


@given(GIVEN, GIVEN)
def test_two_that_are_given_the_same_to_the_bit_have_one_key_and_no_others(one: Any, other: Any) -> None:
    known = memo()
    assert known.key("here", one) == known.key("here", copied(one))
    assert (known.key("here", one) == known.key("here", other)) == same(one, other)
    assert known.key("here", one) != known.key("there", one)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=12), st.booleans())
def test_a_large_tensor_is_known_by_what_is_in_it_whatever_was_there_before(
    asked: list[tuple[int, int]], in_place: bool
) -> None:
    known, tensor = memo(), torch.zeros(LARGE)
    keys: dict[tuple[int, int], Key] = {}
    for value, place in asked:
        if in_place:
            tensor.fill_(value)
        else:
            tensor = torch.full((LARGE,), float(value))
        found = known.key("", [None] * place + [tensor])
        assert keys.setdefault((value, place), found) == found
    assert len(set(keys.values())) == len(keys)


def test_a_last_bit_a_sign_of_zero_and_the_order_in_memory_make_another() -> None:
    known = memo()
    tensor = torch.zeros(2, LARGE)
    keys = [known.key("", tensor)]
    for place, value in ((7, -0.0), (LARGE, torch.finfo(torch.float32).smallest_normal), (3, float("nan"))):
        tensor.view(-1)[place] = value
        keys.append(known.key("", tensor))
    keys.append(known.key("", tensor.T.contiguous().T))
    keys.append(known.key("", tensor.double()))
    assert len(set(keys)) == len(keys)
    assert known.key("", tensor) == keys[3], "not-a-number is itself"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "cond.*object"),
        (lambda x: x, "cond.*function"),
        ({1, 2}, "cond.*set"),
        (torch.zeros(2).to_sparse(), "unusual.*cond"),
        (torch.zeros(2, device="meta"), "unusual.*cond"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(UnknownError, match=reason):
        memo().key("", {"cond": [1, value]})


# --- what is remembered --------------------------------------------------------------------------------------------


class Remembered(RuleBasedStateMachine):
    """Beside a plain list of what was asked, the last used last."""

    @initialize(budget=st.integers(0, 400))
    def begin(self, budget: int) -> None:
        self.budget = budget
        self.memo = Memo(lambda: self.budget)
        self.model: OrderedDict[tuple[str, int], Tensor] = OrderedDict()
        self.hits = 0

    def fit(self, budget: int) -> None:
        while sum(tensor.nbytes for tensor in self.model.values()) > budget:
            self.model.popitem(last=False)

    @rule(circumstances=st.sampled_from("abc"), number=st.integers(0, 9), numbers=st.integers(1, 60))
    def ask(self, circumstances: str, number: int, numbers: int) -> None:
        asked = circumstances, number
        answer = torch.full((numbers,), float(number))
        found = self.memo.ask(self.memo.key(circumstances, number), CPU, answer.clone)
        known = self.model.get(asked)
        assert found.remembered == (known is not None)
        assert torch.equal(found.tensor, answer if known is None else known)
        found.tensor.fill_(-1)  # it is the caller's own
        if known is not None:
            self.model.move_to_end(asked)
            self.hits += 1
        elif answer.nbytes <= self.budget:
            self.fit(self.budget - answer.nbytes)
            self.model[asked] = answer
        self.memo.rest()

    @rule(budget=st.integers(0, 400))
    def choose(self, budget: int) -> None:
        self.budget = budget
        self.fit(budget)
        self.memo.rest()

    @rule()
    def clear(self) -> None:
        self.memo.clear()
        self.model.clear()

    @invariant()
    def holds(self) -> None:
        assert self.memo.held == sum(tensor.nbytes for tensor in self.model.values()) <= self.budget
        assert (len(self.memo), self.memo.hits) == (len(self.model), self.hits)


TestRemembered = Remembered.TestCase


def test_what_is_too_large_leaves_the_others_alone() -> None:
    known = memo(100)
    small, large = known.key("", "small"), known.key("", "large")
    known.ask(small, CPU, lambda: torch.zeros(20))
    assert not known.ask(large, CPU, lambda: torch.zeros(30)).remembered
    assert known.ask(small, CPU, never).remembered


class Weights:
    """One is no other, as with functions and tensors."""


def test_circumstances_are_held_as_long_as_an_answer_is_known_by_them() -> None:
    known = memo(100)
    one, other = Weights(), Weights()
    of_one, of_other = weakref.ref(one), weakref.ref(other)
    for number in range(2):
        known.ask(known.key(one, number), CPU, lambda: torch.zeros(10))
    known.rest()
    del one
    gc.collect()
    assert of_one() is not None, "the next one must not get its identity"
    key = known.key(other, 1)
    known.ask(key, CPU, lambda: torch.zeros(20))
    known.rest()
    gc.collect()
    assert of_one() is None
    known.rest()
    assert known.key(other, 1) == key
    assert known.ask(key, CPU, never).remembered
    known.clear()
    del other
    gc.collect()
    assert of_other() is None


def test_circumstances_of_an_answer_that_was_not_kept_are_not_held() -> None:
    known, one = memo(0), Weights()
    of_one = weakref.ref(one)
    known.ask(known.key(one, 1), CPU, lambda: torch.zeros(10))
    known.rest()
    del one
    gc.collect()
    assert of_one() is None


def test_no_two_circumstances_get_one_number() -> None:
    known = memo(40)
    keys: list[Key] = []
    for number in range(6):
        keys.append(known.key(number, 1))
        assert not known.ask(keys[-1], CPU, lambda: torch.zeros(10)).remembered
        known.rest()
        if number == 3:
            known.clear()
    assert len(set(keys)) == 6


def test_an_answer_keeps_the_order_in_which_its_numbers_lie() -> None:
    known = memo()
    key = known.key("", 1)
    image = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
    known.ask(key, CPU, lambda: image)
    found = known.ask(key, CPU, never).tensor
    assert found.stride() == image.stride()
    assert torch.equal(found, image)


def test_an_evaluation_that_fails_is_not_remembered() -> None:
    known = memo()
    key = known.key("", 1)

    def fail() -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        known.ask(key, CPU, fail)
    assert not known.ask(key, CPU, lambda: torch.zeros(1)).remembered


def test_an_evaluation_that_draws_random_numbers_is_made_again_each_time() -> None:
    known = memo()
    key = known.key("", 1)
    torch.manual_seed(1)
    found = [known.ask(key, CPU, lambda: torch.randn(3)) for _ in range(2)]
    torch.manual_seed(1)
    assert [(answer.drew, answer.remembered) for answer in found] == [(True, False)] * 2
    assert all(torch.equal(answer.tensor, torch.randn(3)) for answer in found)


def test_a_generator_of_its_own_is_nobody_elses_matter() -> None:
    known, own = memo(), torch.Generator().manual_seed(1)
    key = known.key("", 1)
    assert not known.ask(key, CPU, lambda: torch.randn(3, generator=own)).drew
    assert known.ask(key, CPU, never).remembered


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_answers_are_in_ram_and_given_there() -> None:
    known, there = memo(), torch.device("cuda:0")
    answer = torch.randn(2, 4, 8, 8, device=there)
    key = known.key("", answer)
    known.ask(key, there, lambda: answer)
    known.rest()
    used = torch.cuda.memory_allocated()
    found = known.ask(key, there, never).tensor
    assert found.device == there
    assert torch.equal(found, answer)
    del found
    assert torch.cuda.memory_allocated() == used
    assert known.ask(known.key("", 2), there, lambda: torch.randn(3, device=there)).drew
