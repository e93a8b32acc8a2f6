"""The tiers of the cache, and what is read ahead."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from torch import Tensor

from multipass.cache.store import CheckpointCache, Kept, Tier, with_room

KIB = 1024


def tensor(kib: int, value: float) -> Tensor:
    return torch.full((kib * KIB // 4,), float(value))


def unit(kib: int, value: float) -> dict[str, dict[str, Tensor]]:
    return {"unet": {"weight": tensor(kib, value)}}


def tier(kib: int) -> Tier:
    return Tier(lambda _held: kib * KIB)


def test_the_one_used_longest_ago_leaves_and_one_in_use_does_not() -> None:
    ram = tier(30)
    for value, key in enumerate("abc"):
        ram.keep(key, unit(10, value))
    assert ram.get("a") is not None
    ram.lease("b")
    ram.keep("d", unit(10, 4))
    assert [key in ram for key in "abcd"] == [True, True, False, True]
    assert ram.evicted == 1
    assert {entry.key for entry in ram.entries() if entry.leased} == {"b"}


def test_what_does_not_fit_pushes_nothing_out_and_can_be_used_all_the_same() -> None:
    ram = tier(30)
    ram.keep("a", unit(10, 1))
    ram.lease("a")
    kept = ram.keep("b", unit(25, 2))
    assert torch.equal(kept.tensors["weight"], tensor(25, 2))
    assert ("a" in ram, "b" in ram) == (True, False)
    assert not ram.reserve("c", 25 * KIB)


def test_two_that_fit_never_push_each_other_out() -> None:
    ram = tier(20)
    for key in "abababab":
        if ram.get(key) is None:
            ram.keep(key, unit(10, ord(key)))
    assert ram.evicted == 0


def test_room_that_is_reserved_is_nobody_elses_and_is_given_back() -> None:
    ram = tier(20)
    assert ram.reserve("a", 15 * KIB)
    assert ("a" in ram, ram.get("a")) == (False, None)
    assert not ram.reserve("b", 10 * KIB)
    ram.discard("a")
    assert ram.reserve("b", 10 * KIB)


def test_the_hosts_own_model_counts() -> None:
    ram = tier(20)
    ram.outside = 15 * KIB
    assert not ram.reserve("a", 10 * KIB)
    assert ram.held == 15 * KIB


def test_what_comes_in_beside_pushes_out_what_has_no_room_any_more() -> None:
    ram = tier(30)
    ram.keep("a", unit(10, 1))
    ram.keep("b", unit(10, 2))
    ram.count_outside(15 * KIB)
    assert (ram.held, "a" in ram, "b" in ram) == (25 * KIB, False, True)
    ram.count_outside(40 * KIB)
    assert (ram.held, "b" in ram) == (40 * KIB, False)


def test_what_is_kept_alone_shares_nothing_either_way() -> None:
    ram = tier(1000)
    one, two, three = (unit(10, 7) for _ in range(3))
    for key, parts in (("a", one), ("c", three)):
        assert ram.keep(key, parts, alone=key == "a").parts["unet"] is parts["unet"]
    assert ram.keep("b", two, alone=True).parts["unet"] is two["unet"]
    assert ram.held == 30 * KIB


def test_what_two_checkpoints_share_is_there_once() -> None:
    ram = tier(1000)
    first = ram.keep("a", {"unet": {"weight": tensor(10, 1)}, "vae": {"weight": tensor(10, 7)}})
    second = ram.keep("b", {"unet": {"weight": tensor(10, 2)}, "vae": {"weight": tensor(10, 7)}})
    assert first.parts["vae"] is second.parts["vae"]
    assert first.parts["unet"] is not second.parts["unet"]
    assert ram.held == 30 * KIB


@pytest.mark.parametrize(
    "other",
    [
        {"weight": torch.tensor([1.0, -0.0])},
        {"weight": torch.tensor([1.0, 0.0]).half()},
        {"weight": torch.tensor([[1.0, 0.0]])},
        {"bias": torch.tensor([1.0, 0.0])},
        {"weight": torch.tensor([1.0, 0.0]), "bias": torch.tensor(1)},
    ],
)
def test_only_the_same_to_the_bit_is_the_same(other: dict[str, Tensor]) -> None:
    ram = tier(1000)
    one = {"weight": torch.tensor([1.0, 0.0])}
    assert ram.keep("a", {"vae": one}).parts["vae"] is one
    assert ram.keep("b", {"vae": other}).parts["vae"] is other


def test_not_a_number_is_the_same_as_itself() -> None:
    ram = tier(1000)
    one, two = ({"weight": torch.tensor([float("nan"), 1.0])} for _ in range(2))
    assert ram.keep("a", {"vae": one}).parts["vae"] is ram.keep("b", {"vae": two}).parts["vae"]


class Memory(RuleBasedStateMachine):
    """Any order of calls: never over the budget, and what is in use stays."""

    def __init__(self) -> None:
        super().__init__()
        self.ram = tier(60)
        self.leased: str | None = None

    @rule(key=st.sampled_from("abcde"), kib=st.integers(1, 40), value=st.integers(0, 3))
    def keep(self, key: str, kib: int, value: int) -> None:
        if key != self.leased:
            assert torch.equal(self.ram.keep(key, unit(kib, value)).tensors["weight"], tensor(kib, value))

    @rule(key=st.sampled_from("abcde"))
    def use(self, key: str) -> None:
        if self.ram.get(key) is not None:
            self.ram.lease(key)
            self.leased = key

    @rule(key=st.sampled_from("abcde"), kib=st.integers(1, 70))
    def reserve(self, key: str, kib: int) -> None:
        if key == self.leased:
            return
        if self.ram.reserve(key, kib * KIB):
            self.ram.discard(key)

    @rule(kib=st.integers(0, 10))
    def host(self, kib: int) -> None:
        if self.ram.held - self.ram.outside + kib * KIB <= 60 * KIB:
            self.ram.outside = kib * KIB

    @rule()
    def clear(self) -> None:
        self.ram.clear()

    @invariant()
    def within_the_budget(self) -> None:
        assert self.ram.held <= 60 * KIB

    @invariant()
    def in_use_is_there(self) -> None:
        assert self.leased is None or self.leased in self.ram


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=25)


# --- ahead ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache() -> CheckpointCache:
    return CheckpointCache(lambda _: 100 * KIB, lambda _: 0)


def reading(cache: CheckpointCache, key: str, go: threading.Event) -> Callable[[threading.Event], Kept]:
    def read(unwanted: threading.Event) -> Kept:
        while not go.wait(0.01):
            if unwanted.is_set():
                raise InterruptedError
        return cache.ram.keep(key, unit(10, 1))

    return read


def test_what_was_read_ahead_is_waited_for(cache: CheckpointCache) -> None:
    go = threading.Event()
    cache.read_ahead("a", reading(cache, "a", go))
    threading.Timer(0.05, go.set).start()
    kept = cache.arrived("a")
    assert kept is not None
    assert torch.equal(kept.tensors["weight"], tensor(10, 1))
    assert "a" in cache.ram
    assert cache.arrived("a") is None, "it has arrived once"


def test_what_is_not_wanted_any_more_is_not_read(cache: CheckpointCache) -> None:
    never = threading.Event()
    cache.read_ahead("a", reading(cache, "a", never))
    cache.read_ahead("b", reading(cache, "b", never))
    cache.stop_reading_ahead()
    assert cache.arrived("a") is cache.arrived("b") is None
    assert cache.ram.entries() == []


def test_what_fails_ahead_did_not_get_here(cache: CheckpointCache) -> None:
    def fail(_: threading.Event) -> Kept:
        raise OSError("injected")

    cache.read_ahead("a", fail)
    assert cache.arrived("a") is None


def test_out_of_memory_once_is_not_the_end(cache: CheckpointCache) -> None:
    cache.ram.keep("a", unit(10, 1))
    cache.ram.keep("b", unit(10, 2))
    cache.ram.lease("b")
    tries: list[int] = []

    def act() -> str:
        tries.append(len(cache.ram.entries()))
        if len(tries) == 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 7 bytes")
        return "done"

    assert with_room(cache, act) == "done"
    assert tries == [2, 1]


def test_out_of_memory_twice_is_told_clearly(cache: CheckpointCache) -> None:
    def act() -> None:
        raise torch.cuda.OutOfMemoryError("injected")

    with pytest.raises(MemoryError, match="does not hold this checkpoint"):
        with_room(cache, act)


def test_another_error_is_not_tried_again(cache: CheckpointCache) -> None:
    tries: list[int] = []

    def act() -> None:
        tries.append(1)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        with_room(cache, act)
    assert tries == [1]


def test_who_is_interrupted_while_waiting_can_still_stop_it(
    cache: CheckpointCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Future[Kept]) -> None:
        raise KeyboardInterrupt

    begun, stopped = threading.Event(), threading.Event()

    def read(unwanted: threading.Event) -> Kept:
        begun.set()
        if unwanted.wait(10):
            stopped.set()
        raise InterruptedError

    cache.read_ahead("a", read)
    assert begun.wait(10)
    with monkeypatch.context() as patch:
        patch.setattr(Future, "exception", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.arrived("a")
    cache.stop_reading_ahead()
    assert stopped.is_set()


def test_what_is_read_is_in_memory_already_when_it_is_kept() -> None:
    """A budget that goes by what is free has shrunk by then."""
    there = 10 * KIB
    free = [there]
    ram = Tier(lambda held: held + free[0])
    assert ram.reserve("a", 6 * KIB)
    read = unit(6, 1)
    free[0] -= 6 * KIB
    ram.keep("a", read)
    assert "a" in ram
    ram.lease("a")
    assert not ram.reserve("b", 5 * KIB)
    assert ram.reserve("b", 4 * KIB)


def test_what_was_read_ahead_and_had_to_leave_is_not_held(cache: CheckpointCache) -> None:
    go = threading.Event()
    go.set()
    cache.read_ahead("a", reading(cache, "a", go))
    while "a" not in cache.ram:
        pass
    weight = weakref.ref(cache.ram.get("a").tensors["weight"])  # type: ignore[union-attr]
    cache.ram.keep("b", unit(95, 2))
    assert "a" not in cache.ram
    gc.collect()
    assert weight() is None
