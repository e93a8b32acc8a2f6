"""Whole models that the host has put down, kept to be taken up again: what cannot be switched in place.

The Forge family builds a model anew from every file that it loads, AUTOMATIC1111 for a checkpoint of another
architecture. Such a model stays as it is, networks merged and all, and the host finds it in its place again. On a GPU
the host's own management of memory moves it there and away.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from modules import shared

from multipass.cache import reader, weights
from multipass.cache.store import CheckpointCache, Kept
from multipass.hosts.webui import compat, keys
from multipass.hosts.webui.keys import Key

_Result = TypeVar("_Result")


class _Whole(NamedTuple):
    """Which model: what it was read from, and what else the host builds it by."""

    checkpoint: Key
    form: Hashable

    @classmethod
    def of(cls, info: Any) -> _Whole:
        """By the host's options as they are now."""
        return cls(Key.of(info, None), compat.form())


class Shelf:
    """The models that are kept in the cache's RAM, beside the live one.

    Attributes:
        had_no_room: the last model that the host put down could not be kept.
    """

    def __init__(self, cache: CheckpointCache) -> None:
        self._cache = cache
        self.had_no_room = False

    def begin(self) -> None:
        """A request begins: it finds the kept models as they were when they were built."""
        for key, kept in self._cache.ram.looked_at().items():
            if isinstance(key, _Whole):
                compat.forget_request(kept.notes)

    def load(self, info: Any, load: Callable[[], _Result]) -> _Result | None:
        """Put a checkpoint's own model in place: one that is kept, or else, by ``load()``, a new one; the one that was
        there is kept, if there is room. ``None`` if ``load`` was not needed."""
        self.had_no_room = False
        key, live, ram = _Whole.of(info), self._live, self._cache.ram
        if key == live or compat.keeps_by_itself(info):
            return load()
        self._cache.arrived(key)
        kept = ram.get(key)
        incoming = weights.nbytes(kept.tensors) if kept is not None else key.checkpoint.checkpoint.size
        ram.discard(key)
        evicted = ram.evicted
        self._put_down(live, incoming)
        if kept is not None:
            compat.take_up(kept.notes, info)
            self._cache.hits += 1
        self._free_what_left(ram.evicted - evicted)
        if kept is not None:
            ram.count_outside(incoming)
            return None
        loaded = load()
        self._cache.loads += 1
        self._cache.note_read(key.checkpoint.checkpoint.size)
        ram.count_outside(_nbytes(shared.sd_model))
        return loaded

    def read_ahead(self, info: Any) -> None:
        """Begin to have the system read the file of a model that is not here."""
        key = _Whole.of(info)

        def read(unwanted: threading.Event) -> Kept:
            reader.warm(info.filename, unwanted)
            return Kept({})

        if key not in self._cache.ram and compat.loaded().filename != info.filename:
            self._cache.read_ahead(key, read)

    @property
    def _live(self) -> _Whole | None:
        """Which one is in place, as it was built."""
        return None if compat.loaded() is None else _Whole(Key.of_live(shared.sd_model), keys.form_of(shared.sd_model))

    def _put_down(self, key: _Whole | None, incoming: int) -> None:
        """The live model is kept from now on, if there is room for it beside what comes."""
        model, ram = shared.sd_model, self._cache.ram
        ram.outside = 0
        if key is None:
            return
        if not ram.reserve(_COMING, incoming):
            self.had_no_room = True
            return
        ram.keep(key, compat.components(model), model, alone=True)
        ram.discard(_COMING)
        self.had_no_room = key not in ram
        if not self.had_no_room:
            compat.put_down(model)

    def _free_what_left(self, count: int) -> None:
        """Models are full of circles, and Forge has lists of its own of what it has moved."""
        if count:
            compat.unload_all()
            gc.collect()


_COMING = "the model that is about to come"


def _nbytes(model: Any) -> int:
    return sum(weights.nbytes(part) for part in compat.components(model).values())
