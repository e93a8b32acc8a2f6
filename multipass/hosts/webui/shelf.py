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
from multipass.cache.store import CheckpointCache, Kept, with_room
from multipass.hosts.webui import compat, whole
from multipass.hosts.webui.keys import Key

_Result = TypeVar("_Result")
_COMING = "the model that is about to come"


class ModelKey(NamedTuple):
    """Which model: what it was read from, and what else the host builds it by."""

    checkpoint: Key
    form: Hashable

    @classmethod
    def of(cls, info: Any) -> ModelKey:
        """By the host's options as they are now."""
        return cls(Key.of(info, None), whole.form())

    @classmethod
    def of_live(cls) -> ModelKey | None:
        """Of the model in place, as it was built; ``None`` where there is none that could be kept."""
        if compat.loaded() is None or not whole.is_whole(shared.sd_model):
            return None
        return cls(Key.of_live(shared.sd_model), whole.form_of(shared.sd_model))


class Shelf:
    """The models that are kept in the cache's RAM, beside the live one.

    Attributes:
        had_no_room: the last model that the host put down could not be kept.
    """

    def __init__(self, cache: CheckpointCache) -> None:
        self._cache = cache
        self._put_here: set[ModelKey] = set()
        self.had_no_room = False

    def bring(self, info: Any, build: Callable[[], _Result]) -> _Result | None:
        """Put a checkpoint's own model in place: one that is kept, or else, by ``build()``, a new one; the one that was
        there is kept, if there is room.

        Returns:
            what ``build`` gave; ``None`` if it was not needed.

        Raises:
            what ``build`` raises; then the host has no model, or the one that it had.
        """
        self.had_no_room = False
        key, live, ram = ModelKey.of(info), ModelKey.of_live(), self._cache.ram
        if key == live or whole.keeps_by_itself(info):
            return build()
        self._cache.stop_reading_ahead()  # what is not read by now is read no sooner by two
        self._cache.vram.clear()
        kept = ram.get(key)
        ram.discard(key)
        family = whole.family(shared.sd_model)
        if kept is not None:
            ram.outside = weights.nbytes(kept.tensors)
            self._put_down(live)
            self.free()
            whole.take_up(kept.notes, info, of_another_family=whole.family(kept.notes) != family)
            self._cache.hits += 1
            return None
        ram.outside = 0
        self.had_no_room = live is not None and not ram.reserve(_COMING, key.checkpoint.checkpoint.size)
        try:
            if not self.had_no_room:
                self._put_down(live)
        finally:
            ram.discard(_COMING)
        built = with_room(self._cache, lambda: self._built(build))
        self._cache.loads += 1
        self._cache.note_read(key.checkpoint.checkpoint.size)
        ram.count_outside(whole.nbytes_in_ram(shared.sd_model))
        return built

    def read_ahead(self, info: Any) -> None:
        """Begin to have the system read the file of a model that is not here."""
        key = ModelKey.of(info)

        def read(unwanted: threading.Event) -> Kept:
            reader.warm(info.filename, unwanted)
            return Kept({})

        if key not in self._cache.ram and not whole.keeps_by_itself(info) and compat.loaded().filename != info.filename:
            self._cache.read_ahead(key, read)

    def free(self) -> None:
        """Free what has left the cache: models are full of circles, and Forge has lists of its own of what it has
        moved. Not while a picture is being sampled."""
        gone = {key for key in self._put_here if key not in self._cache.ram}
        if gone:
            self._put_here -= gone
            whole.unload_all()
            gc.collect()

    def _built(self, build: Callable[[], _Result]) -> _Result:
        self.free()
        return build()

    def _put_down(self, key: ModelKey | None) -> None:
        """The live model is kept from now on, if there is room for it."""
        model, ram = shared.sd_model, self._cache.ram
        if key is None:
            return
        sizes = whole.sizes(model)
        nbytes = sum(weights.nbytes(part) for part in sizes.values())
        # what is on a GPU now takes new memory here
        if whole.nbytes_in_ram(model) >= nbytes or ram.reserve(key, nbytes):
            ram.keep(key, sizes, model, alone=True)
        self.had_no_room = key not in ram
        whole.put_down(model, kept=not self.had_no_room)
        self._put_here.add(key)
