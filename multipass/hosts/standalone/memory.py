"""The checkpoints in memory: what is kept within the budgets, what is put in place, what is read ahead.

Every checkpoint has modules of its own, which stay; only their tensors come and go. A module holds tensors while it is
used and none otherwise. So the cache alone decides what memory is taken, and what two checkpoints have in common is
there once: the modules of both are pointed at it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from multipass.cache import budgets, weights
from multipass.cache.store import Budget, CheckpointCache, Kept, with_room
from multipass.cache.weights import Weights
from multipass.hosts.standalone.checkpoints import CheckpointFile
from multipass.hosts.standalone.models import Checkpoint, Component, Place, best_place
from multipass.manifest import Load, Source

_File = tuple[str, Path | None]  # copies of one file may be described differently
_Key = tuple[str, Path | None, Component]


class NoRoomError(Exception):
    """The budget has no room for what was to be read ahead."""


def _say(text: str) -> None:
    tqdm.write(f"multipass: {text}", file=sys.stderr)  # above a bar, not into it


class Checkpoints:
    """The checkpoints of a process.

    Args:
        ram: what they may take there. What does not fit is used all the same, and read again when it is needed again.
        say: is told, once, that this has happened.
    """

    def __init__(
        self, place: Place | None = None, ram: Budget = budgets.free_ram, say: Callable[[str], None] = _say
    ) -> None:
        self.place = place or best_place()
        self.cache = CheckpointCache(ram, budgets.free_vram)
        self._say: Callable[[str], None] | None = say
        self._known: dict[_File, Checkpoint] = {}
        self._in_use: list[_Key] = []
        self._expected: list[_Key] = []
        self._read: set[_Key] = set()

    def get(self, file: CheckpointFile) -> Checkpoint:
        """The checkpoint, of which nothing is read yet."""
        return self._known.setdefault((file.sha256, file.config_path), Checkpoint(file, self.place))

    @contextmanager
    def using(self, checkpoint: Checkpoint, component: Component) -> Generator[Load]:
        """While this lasts the component can be used; told is where it was, and the seconds until it was in place.

        ``resident``: where it is computed; ``ram``: read ahead, or, with a GPU, in RAM alone; ``disk``: it, or its
        rest, had to be waited for.

        Raises:
            InputError: where the file cannot be read, or any of its parts does not fit its config.
        """
        key, module = _key(checkpoint, component), checkpoint.module(component)
        assert key not in self._in_use, key
        started = time.perf_counter()
        self._in_use.append(key)
        self._lease()
        try:
            tensors, source = self._found(checkpoint, component)
            weights.point(module, tensors, torch.device(self.place.device))
            seconds = 0.0 if source is Source.RESIDENT else time.perf_counter() - started
            yield Load(source, seconds)
        finally:
            checkpoint.empty(component)
            self._in_use.remove(key)
            self._lease()

    def expect(self, *needed: tuple[Checkpoint, Component]) -> None:
        """Say what will be used next: what is there of it stays; what is not is read meanwhile, if there is room."""
        self._expected = [_key(*one) for one in needed]
        self._lease()
        for (checkpoint, component), key in zip(needed, self._expected, strict=True):
            if key in self.cache.vram:
                continue

            def read(
                unwanted: threading.Event, checkpoint: Checkpoint = checkpoint, component: Component = component
            ) -> Kept:
                return self._from_file(checkpoint, component, unwanted)

            self.cache.read_ahead(key, read)

    def expect_nothing(self) -> None:
        """Stop what is read ahead, wait until it has stopped, and let what was expected leave."""
        self._expected = []
        self._lease()
        self.cache.stop_reading_ahead()

    def _lease(self) -> None:
        for tier in (self.cache.ram, self.cache.vram):
            tier.lease(*self._in_use, *self._expected)

    def _found(self, checkpoint: Checkpoint, component: Component) -> tuple[Weights, Source]:
        """The tensors where they are computed with, and where they were."""
        key, on_gpu = _key(checkpoint, component), self.place.device != "cpu"
        copied = self.cache.vram.get(key) if on_gpu else None
        if copied is not None:
            self.cache.hits += 1
            return copied.tensors, Source.RESIDENT
        kept, source = with_room(self.cache, lambda: self._in_ram(checkpoint, component))
        if not on_gpu:
            return kept.tensors, source
        tensors = with_room(self.cache, lambda: self._copied(key, kept))
        return tensors, Source.DISK if source is Source.DISK else Source.RAM

    def _in_ram(self, checkpoint: Checkpoint, component: Component) -> tuple[Kept, Source]:
        key = _key(checkpoint, component)
        there = self.cache.ram.get(key)
        ahead = self.cache.arrived(key)  # waits, if it is on its way; what went wrong there goes wrong again below
        if there is None and ahead is None:
            return self._from_file(checkpoint, component), Source.DISK
        self.cache.hits += 1
        if there is None:
            assert ahead is not None
            return ahead, Source.DISK
        return there, Source.RESIDENT if ahead is None else Source.RAM

    def _from_file(self, checkpoint: Checkpoint, component: Component, unwanted: threading.Event | None = None) -> Kept:
        """Read it, on whatever thread. With ``unwanted`` only if there is room for it; else whether there is or not."""
        key, ram = _key(checkpoint, component), self.cache.ram
        if not ram.reserve(key, checkpoint.nbytes(component)) and unwanted is not None:
            raise NoRoomError
        try:
            tensors = checkpoint.read(component, unwanted, self.cache.note_read)
        except BaseException:
            ram.discard(key)
            raise
        self.cache.loads += 1
        if key in self._read:
            self._say_once()
        self._read.add(key)
        return ram.keep(key, {component.value: tensors})

    def _say_once(self) -> None:
        say, self._say = self._say, None
        if say is not None:
            has = f"{self.cache.ram.budget / budgets.GB:.3g} GB of RAM for checkpoints"
            say(f"{has}: not enough for all that are used, so they are read again and again (--ram GB changes it)")

    def _copied(self, key: _Key, kept: Kept) -> Weights:
        vram, device = self.cache.vram, self.place.device
        vram.reserve(key, weights.nbytes(kept.tensors))
        try:
            parts = {
                name: {key: weights.as_in(tensor, tensor.to(device)) for key, tensor in part.items()}
                for name, part in kept.parts.items()
            }
        except BaseException:
            vram.discard(key)
            raise
        return vram.keep(key, parts).tensors


def _key(checkpoint: Checkpoint, component: Component) -> _Key:
    return checkpoint.file.sha256, checkpoint.file.config_path, component


def at_most(gigabytes: float) -> Budget:
    """A budget of that size; for 0, of what is free."""
    return (lambda _held: int(gigabytes * budgets.GB)) if gigabytes else budgets.free_ram
