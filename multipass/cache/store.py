"""The checkpoints that are kept: in two tiers, RAM and VRAM, each within a budget of bytes, and what is read ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch

from multipass.cache import policy, weights
from multipass.cache.weights import Weights

Budget = Callable[[int], int]
"""From the bytes that a tier holds now to the bytes that it may hold."""


class Kept(NamedTuple):
    """A unit: a checkpoint's tensors by component, which leave a tier together, and what belongs to them."""

    parts: Mapping[str, Weights]
    notes: Any = None

    @property
    def tensors(self) -> Weights:
        """All tensors by name."""
        return {name: tensor for part in self.parts.values() for name, tensor in part.items()}


class Entry(NamedTuple):
    """One component of one unit, for people."""

    key: Hashable
    component: str
    nbytes: int
    leased: bool


class _Unit(NamedTuple):
    kept: Kept | None  # not yet, where room is only reserved
    parts: policy.Parts
    alone: bool = False


class Tier:
    """One memory. Thread-safe.

    Args:
        budget: bytes for all that is here, ``outside`` included.

    Attributes:
        outside: bytes of the same memory that count although they are not kept here: the host's own model.
        evicted: how many units had to leave.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lock = threading.RLock()
        self._units: dict[Hashable, _Unit] = {}
        self._used: dict[Hashable, int] = {}
        self._clock = 0
        self._leased: frozenset[Hashable] = frozenset()
        self.outside = 0
        self.evicted = 0

    @property
    def budget(self) -> int:
        """Bytes that may be held now, ``outside`` included."""
        with self._lock:
            return self._budget(self.held)

    @property
    def held(self) -> int:
        """Bytes that are held, ``outside`` included."""
        with self._lock:
            return self.outside + policy.held(self._listed())

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            unit = self._units.get(key)
            return unit is not None and unit.kept is not None

    def get(self, key: Hashable) -> Kept | None:
        """The unit, if it is here; it was used now."""
        with self._lock:
            unit = self._units.get(key)
            if unit is not None:
                self._touch(key)
            return unit.kept if unit is not None else None

    def lease(self, *keys: Hashable) -> None:
        """From now on exactly these are in use and stay, as soon as they are here."""
        with self._lock:
            self._leased = frozenset(keys)

    def reserve(self, key: Hashable, nbytes: int) -> bool:
        """Make room for what is about to come; ``False`` if there is none to be had, and then nothing has left.

        Follow it with ``keep`` or ``discard``.
        """
        with self._lock:
            self.discard(key)
            if not self._make_room({key: nbytes}, here=False):
                return False
            self._units[key] = _Unit(None, {key: nbytes})
            self._touch(key)
            return True

    def keep(self, key: Hashable, parts: Mapping[str, Weights], notes: Any = None, *, alone: bool = False) -> Kept:
        """Keep a unit, if there is room; given back as it is kept.

        A component that is, bit for bit, another unit's is that from now on, and its own tensors are let go of.

        Args:
            alone: not so: somebody else holds these tensors too, and moves them.
        """
        with self._lock:
            self.discard(key)
            shared = {} if alone else {name: self._shared(name, part) for name, part in parts.items()}
            kept = Kept({**parts, **shared}, notes)
            contents = {id(part): weights.nbytes(part) for part in kept.parts.values()}
            if self._make_room(contents, here=True):
                self._units[key] = _Unit(kept, contents, alone)
                self._touch(key)
            return kept

    def count_outside(self, nbytes: int) -> None:
        """What is in memory and not kept here is this much from now on; what does not fit beside it leaves."""
        with self._lock:
            self.outside = nbytes
            if not self._make_room({}, here=True):
                self.clear()

    def discard(self, key: Hashable) -> None:
        """Let go of a unit, or of room that was reserved."""
        with self._lock:
            self._units.pop(key, None)
            self._used.pop(key, None)

    def clear(self) -> None:
        """Let go of everything that is not in use."""
        with self._lock:
            for unit in self._listed():
                if not unit.leased:
                    self.discard(unit.key)

    def entries(self) -> list[Entry]:
        """What is here, the last used first."""
        with self._lock:
            return [
                Entry(key, component, weights.nbytes(part), key in self._leased)
                for key in sorted(self._units, key=self._used.__getitem__, reverse=True)
                if (kept := self._units[key].kept) is not None
                for component, part in kept.parts.items()
            ]

    def _listed(self) -> list[policy.Unit]:
        return [
            policy.Unit(key, self._used[key], unit.kept is None or key in self._leased, unit.parts)
            for key, unit in self._units.items()
        ]

    def _make_room(self, incoming: policy.Parts, *, here: bool) -> bool:
        """``here``: it is in memory already, so that it is not in what is free, which a budget may go by."""
        units = self._listed()
        real = [unit for unit in units if self._units[unit.key].kept is not None]
        budget = self._budget(self.outside + policy.held(real, incoming if here else None))
        gone = policy.evictions(units, incoming, budget - self.outside)
        for key in gone or ():
            self.discard(key)
            self.evicted += 1
        return gone is not None

    def _touch(self, key: Hashable) -> None:
        self._clock += 1
        self._used[key] = self._clock

    def _shared(self, component: str, part: Weights) -> Weights:
        units = [unit.kept for unit in self._units.values() if unit.kept is not None and not unit.alone]
        others = [kept.parts.get(component) for kept in units]
        return next((other for other in others if other is not None and _same(part, other)), part)


class CheckpointCache:
    """Both tiers, and one thread that reads ahead into RAM.

    Attributes:
        loads: how many checkpoints were read from disk, whole or as far as they were needed.
        bytes_read: from disk.
        hits: how often a checkpoint that was needed was there.
    """

    def __init__(self, ram: Budget, vram: Budget) -> None:
        self.ram, self.vram = Tier(ram), Tier(vram)
        self.loads = self.bytes_read = self.hits = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="multipass-reader")
        self._ahead: dict[Hashable, tuple[Future[Kept | None], threading.Event]] = {}

    def note_read(self, nbytes: int) -> None:
        """From whatever thread reads."""
        self.bytes_read += nbytes

    def read_ahead(self, key: Hashable, read: Callable[[threading.Event], Kept]) -> None:
        """Begin to read a unit that will be needed, unless it is here or on its way.

        Args:
            read: called on the reading thread with what it has to look at: once set, the unit is no longer wanted.
        """
        if key in self.ram or (key in self._ahead and not self._ahead[key][0].done()):
            return
        unwanted = threading.Event()

        def read_it() -> Kept | None:
            kept = read(unwanted)
            return None if key in self.ram else kept  # what is kept there must be able to leave

        self._ahead[key] = self._reader.submit(read_it), unwanted

    def arrived(self, key: Hashable) -> Kept | None:
        """A unit that was read ahead, waited for if it is on its way; ``None`` if it is not, or did not get here."""
        if key not in self._ahead:
            return None
        future, _ = self._ahead[key]
        there = not future.cancel() and future.exception() is None  # waits; who interrupts that can still stop it
        del self._ahead[key]
        return future.result() or self.ram.get(key) if there else None

    def stop_reading_ahead(self) -> None:
        """What is on its way is not wanted any more; back when nothing is written into RAM any more."""
        for key, (future, unwanted) in list(self._ahead.items()):
            unwanted.set()
            if not future.cancel():
                future.exception()  # waits
            del self._ahead[key]

    def clear(self) -> None:
        """Let go of everything that is not in use."""
        self.stop_reading_ahead()
        self.ram.clear()
        self.vram.clear()


_T = TypeVar("_T")


def with_room(cache: CheckpointCache, act: Callable[[], _T]) -> _T:
    """``act()``; if memory runs out in it, once more with everything let go of that is not in use.

    Raises:
        MemoryError: if it does again, in one clear sentence.
    """
    try:
        return act()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    cache.clear()
    try:
        return act()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError("the memory does not hold this checkpoint beside the one that is loaded") from error


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it of RAM in a RuntimeError, of a GPU in a kind of its own."""
    said = ("not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(text in str(error) for text in said)


def _same(one: Weights, other: Weights) -> bool:
    """Bit for bit; found out at the first tensor that differs."""
    if one.keys() != other.keys():
        return False
    pairs = [(tensor, other[name]) for name, tensor in one.items()]
    if any(_form(a) != _form(b) for a, b in pairs):
        return False
    return all(_bits_equal(a, b) for a, b in pairs)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device, tensor.stride()


def _bits_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Unlike ``torch.equal``, by which not-a-number differs from itself, and -0.0 does not from 0.0."""
    bits = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)
