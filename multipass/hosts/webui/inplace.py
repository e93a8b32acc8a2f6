"""Checkpoints of the live module's architecture, switched in place: the module stays, its tensors are exchanged.

What its tensors are to the host (names, precision, an external VAE, the noise schedule) is the host's own knowledge:
it loads each for the first time itself, into tensors that are nobody else's, and what it notes about them on the model
and in its modules is kept beside them. Only the UNet's numbers, most of the file, are read by us, when they are needed:
the host sees them without numbers. AUTOMATIC1111's module only: the Forge family keeps its weights elsewhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from modules import devices, script_callbacks, sd_hijack, sd_models, sd_vae, shared
from modules.timer import Timer
from torch import Tensor

from multipass.cache import weights
from multipass.cache.store import CheckpointCache, Kept, with_room
from multipass.cache.weights import Weights
from multipass.hosts.webui import architecture, files, hooks, keys, networks
from multipass.hosts.webui.files import COMPONENTS, UNET, Version
from multipass.hosts.webui.keys import Key, Lossy
from multipass.hosts.webui.vaes import Vae
from multipass.manifest import Source

_BASE_VAE = "base_vae"  # the checkpoint's own, which the host keeps aside while another is in place
_VAE_NOTES = ("loaded_vae_file", "checkpoint_info")  # what sd_vae remembers of the VAE in place
_HASH_OPTION = "sd_checkpoint_hash"


class NoRoomError(MemoryError):
    """The budget has no room, whatever leaves."""


class Merged(NamedTuple):
    """What networks make of a set, as far as they touch it."""

    checkpoint: Key
    networks: tuple[Any, ...]
    of_fp8: bool


class _Notes(NamedTuple):
    """What is kept beside a set's tensors."""

    model: dict[str, Any]  # its attributes
    vae: dict[str, Any]
    sha256: Any
    unet: dict[str, Tensor]  # the UNet without numbers, where these can be read by themselves


class _Set(NamedTuple):
    rest: Kept  # notes: _Notes
    unet: Weights | None  # not yet, where only texts are to be encoded


class InPlace:
    """The live module, and which set is in place in it.

    Attributes:
        managed: the host loads nothing into the module by itself. Else what it has loaded is its own and stays as it
            is, out of the cache, until ``home``.
        had_no_room: why the last ``put`` did nothing, if it did nothing.
        stores_fp8: UNets are kept as fp8, and used so. Only a plan asks for that.
        was_lossy: one of them was in place since this was set to ``False``.
        source: where the UNet was that the last ``put`` put in place: where it is computed; in RAM, because it was read
            ahead or is computed on a GPU; or it had to be waited for.
    """

    def __init__(self, cache: CheckpointCache) -> None:
        self.cache = cache
        self.managed = self.had_no_room = self.stores_fp8 = self.was_lossy = False
        self.source = Source.RESIDENT
        self._model: Any = None
        self._home_key: Key | None = None
        self._home: _Set | None = None
        self._current: Key | None = None
        self._entered: _Set | None = None  # None: the home, never left
        self._merged: Merged | None = None  # what networks have made of it
        self._own = 0  # bytes of the host's own set, in no tier
        self._noted: set[str] = set()  # the attributes in which sets differ
        self._untold: set[Version] = set()  # read, but no extension knows yet

    @property
    def current(self) -> Key | None:
        """What is in place, if that was put there by this and by nobody else since."""
        model = shared.sd_model
        if self._current is None or model is not self._model:
            return None
        return self._current if model.sd_checkpoint_info.filename == self._current.checkpoint.file else None

    def holds(self, info: Any) -> bool:
        """Whether this put that checkpoint in place, with whichever VAE."""
        current, entered = self.current, self._entered
        whole = entered is None or (entered.unet is not None and not self._is_lossier_than_asked)
        return current is not None and whole and current.checkpoint.file == info.filename

    def put(self, info: Any, vae: Vae | None = None, *, unet: bool = True) -> bool:
        """Put a checkpoint in place.

        Args:
            unet: ``False``: only to encode texts; its UNet is not read for that, and may be without numbers.

        Returns:
            whether it is: ``False`` if it needs another module than the live one, or more memory than the budget has.
            Then nothing has changed.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        self.had_no_room, self.source = False, Source.RESIDENT
        model = shared.sd_model
        if not architecture.suits(model):
            return False
        before = self.current
        if before is None:  # the host has loaded by itself since, into a module that it may have made anew
            self._forget()
            self._model = model
            self._home_key = self._current = before = Key.of_live(model)
        key, entered = Key.of(info, vae), self._entered
        whole = not unet or entered is None or (entered.unet is not None and not self._is_lossier_than_asked)
        if key == before and whole:
            return True
        if not architecture.fits(info, model):
            return False
        self._settle()
        if entered is None:
            self._home = entered = self._taken()  # now, not earlier: a copy, on a GPU
            own = [*self._home.rest.parts.values(), self._home.unet or {}]
            self._own = self.cache.ram.outside = sum(weights.nbytes(part) for part in own)
            self.cache.vram.outside = 0 if devices.device.type == "cpu" else weights.nbytes(weights.held(model))
        try:
            found = with_room(self.cache, lambda: self._found(info, key, unet=unet))
            if found is None:
                self._enter(before, entered)
                return False
            with_room(self.cache, lambda: self._enter(key, found))
        except BaseException:
            self._enter(before, entered)
            raise
        if self.managed and key != self._home_key:
            self._keep_home()
        if found.unet is not None and key.checkpoint in self._untold:  # as when the host reads it
            self._untold.discard(key.checkpoint)
            with keys.not_by_the_host(info):
                script_callbacks.model_loaded_callback(model)
        return True

    @property
    def is_lossy(self) -> bool:
        """Whether the UNet in place was kept as fp8."""
        unet = self._entered.unet if self._entered is not None else None
        return unet is not None and weights.has_fp8(unet)

    @property
    def _is_lossier_than_asked(self) -> bool:
        return self.is_lossy and not self.stores_fp8

    def read_ahead(self, info: Any, vae: Vae | None = None) -> None:
        """Begin to read what will be put in place later, if that is known and is not here; on a GPU, to copy it there
        too, if there is room."""
        cache, key = self.cache, Key.of(info, vae)
        kept = cache.ram.get(key)
        if self.current is None or key == self._home_key or kept is None or not kept.notes.unet:
            return
        wanted, unet = kept.notes.unet, self._unet_key(key, kept)

        def read(unwanted: threading.Event) -> Kept:
            return _read_unet(cache, unet, wanted, unwanted)

        def copy(_: threading.Event) -> Kept:
            there = cache.ram.get(unet)
            if there is None or not cache.vram.reserve(unet, weights.nbytes(there.tensors)):
                return Kept({})
            try:
                copied = weights.copied_beside(there.tensors, devices.device)
            except BaseException:
                cache.vram.discard(unet)
                raise
            cache.vram.keep(unet, {"unet": copied})
            return Kept({})  # which is not to hold it

        cache.read_ahead(unet, read)
        if devices.device.type == "cuda" and unet not in cache.vram:
            cache.read_ahead(_OnDevice(unet), copy)

    def home(self) -> None:
        """Put the host's own tensors back, into which it may load again."""
        here = self._model is not None and self._model is shared.sd_model
        failed = self._current is None  # on the way from one set to another
        if here and (failed or self.current is not None):
            self._settle()
            if self._home is not None and self._home_key is not None:
                self._enter(self._home_key, self._home)
            elif self._entered is not None:  # it has none of its own, and gets one
                weights.detach(shared.sd_model)
        self._forget()

    @contextmanager
    def written_to(self) -> Iterator[None]:
        """While the host writes into the VAE that is in place: it gets one of its own to write into."""
        entered, before = self._entered, self.current
        if before is None:
            yield
            return
        self._current = None  # should it fail, it is neither the one nor the other
        if entered is None:  # never left: the host writes into what is its own
            yield
            self._home_key = self._current = Key.of_live(self._model)
            return
        weights.detach(self._model, under=COMPONENTS["vae"])
        yield
        parts = {**entered.rest.parts, "vae": weights.take(self._model, under=COMPONENTS["vae"])}
        parts.pop(_BASE_VAE, None)
        self._current = Key.of_live(self._model)._replace(checkpoint=before.checkpoint)  # in no set, whatever it is now
        self._entered = entered._replace(rest=_with_base_vae(parts, entered.rest.notes))

    def abandon(self) -> None:
        """What is in place becomes the host's own, to be loaded into, whatever state it is in."""
        if self._model is not None and self._model is shared.sd_model:
            weights.detach(shared.sd_model)
        self._forget()

    def merge(self) -> None:
        """Have the networks that are active merged into what is in place, if that was put there by this and there is
        room for what they make of it, which is kept like a set of its own.

        On a GPU that would be more than the host takes there, and is left to it.
        """
        wanted, ram = networks.active(), self.cache.ram
        if self.current is None or not wanted or self._merged is not None or devices.device.type != "cpu":
            return
        key = Merged(self.current, wanted, self.is_lossy)
        kept = ram.get(key)
        known = kept.tensors if kept is not None else {}
        more = networks.room_for_merging(self._model, known)
        if more and not ram.reserve(key, weights.nbytes(known) + more):
            return
        self._merged = key
        try:
            made = networks.merge(self._model, known)
        except BaseException:
            ram.discard(key)
            raise
        if more:
            ram.keep(key, {"networks": {**known, **made}})
        self._lease()

    def unmerge(self) -> None:
        """Take them out again."""
        if self.current is not None:
            self._settle()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._model = self._home_key = self._home = self._current = self._entered = self._merged = None
        self._lease()
        self._own = self.cache.ram.outside = self.cache.vram.outside = 0

    def _keep_home(self) -> None:
        """The host's own tensors become a set like any other."""
        if self._home is not None and self._home_key is not None and self._home.unet is not None:
            self._own = self.cache.ram.outside = 0
            self.cache.ram.keep(self._home_key, self._home.rest.parts, self._home.rest.notes)
            self.cache.ram.keep(self._home_key.checkpoint, {"unet": self._home.unet})
        self._home = self._home_key = None

    def _settle(self) -> None:
        """A set is left as the checkpoint's: networks are merged into whatever is in place."""
        networks.unmerge(self._model)
        self._merged = None

    def _found(self, info: Any, key: Key, *, unet: bool) -> _Set | None:
        """The set, read as far as it has to be."""
        vram = self.cache.vram
        copied = devices.device.type != "cpu" and key.checkpoint not in vram and Lossy(key.checkpoint) not in vram
        self.source = Source.RAM if copied else Source.RESIDENT
        if key == self._home_key:
            return self._home
        rest, loads = self.cache.ram.get(key), self.cache.loads
        own = self._kept_unet(key, rest) if rest is not None else None
        if unet and rest is not None and own is not None and self.cache.arrived(self._unet_key(key, rest)) is not None:
            self.source = Source.RAM
        if rest is None or (unet and own is None and not rest.notes.unet):
            rest, own = self._read(info, key)
            own = self._kept_unet(key, rest) if rest is not None and own is None else own
            self.source = Source.DISK
        if rest is not None and unet and own is None:
            own = self.cache.arrived(self._unet_key(key, rest)) or self._read_unet(key, rest)
            self.source = Source.DISK
        if rest is None or (unet and own is None):
            return None
        self.cache.hits += self.cache.loads == loads
        return _Set(rest, own.tensors if own is not None else None)

    def _kept_unet(self, key: Key, rest: Kept) -> Kept | None:
        if self._home is not None and self._home_key is not None and key.checkpoint == self._home_key.checkpoint:
            return Kept({"unet": self._home.unet or {}})  # with another VAE
        return self.cache.ram.get(self._unet_key(key, rest))

    def _unet_key(self, key: Key, rest: Kept) -> Version | Lossy:
        """What its UNet is kept by. One that cannot be read by itself is kept as it is."""
        return Lossy(key.checkpoint) if self.stores_fp8 and rest.notes.unet else key.checkpoint

    def _read(self, info: Any, key: Key) -> tuple[Kept | None, Kept | None]:
        """Have the host load it: without the UNet's numbers, if these can be read later. ``None`` where it does not fit
        the module, or there is no room for it."""
        model, ram = self._model, self.cache.ram
        outlined, advanced = files.outline(info), self.cache.note_read
        held = weights.split(weights.held(model), COMPONENTS)
        if outlined is not None:
            del held["unet"]
        if not ram.reserve(key, sum(weights.nbytes(part) for part in held.values())):
            self.had_no_room = True
            return None, None
        try:
            if outlined is not None:
                state_dict = files.without_unet(info, outlined, advanced)
            else:
                state_dict = files.whole(info, advanced)
            if not architecture.is_of(state_dict, info, model):
                return None, None
            self._current = None
            with self._noting(), self._loading(key), weights.taking_in(model):
                sd_hijack.model_hijack.undo_hijack(model)
                try:
                    sd_models.load_model_weights(model, info, state_dict, Timer())
                finally:
                    sd_hijack.model_hijack.hijack(model)
            taken = self._taken()
        finally:
            ram.discard(key)
        self._untold.add(key.checkpoint)
        self.cache.loads += 1
        rest = ram.keep(key, taken.rest.parts, taken.rest.notes)
        return rest, None if taken.unet is None else ram.keep(key.checkpoint, {"unet": taken.unet})

    @contextmanager
    def _loading(self, key: Key) -> Iterator[None]:
        """While the host loads: nothing of it is written down, and the VAE is the key's."""
        vae = sd_vae.VaeResolution(key.vae.file if key.vae is not None else None, "for the pass")
        with (
            sd_models.SkipWritingToConfig(),
            hooks.replaced(sd_models, checkpoints_loaded=OrderedDict()),  # where a setting keeps all that is loaded
            hooks.replaced(sd_vae, resolve_vae=lambda _: vae),
        ):
            yield

    def _read_unet(self, key: Key, rest: Kept) -> Kept | None:
        try:
            return _read_unet(self.cache, self._unet_key(key, rest), rest.notes.unet, None)
        except NoRoomError:
            self.had_no_room = True
            return None

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Remember which of the model's attributes the host changes."""
        before = _notes(self._model)
        try:
            yield
        finally:
            self._noted |= {name for name, value in _notes(self._model).items() if before.get(name) is not value}

    def _taken(self) -> _Set:
        """What is in place."""
        parts = weights.split(weights.take(self._model), COMPONENTS)
        found = parts.pop("unet")
        later = {name: tensor for name, tensor in found.items() if tensor.is_meta}
        if later:  # what the file does not name of the UNet is there
            parts["other"] = {**parts["other"], **{name: found[name] for name in found.keys() - later.keys()}}
        notes = _Notes(_notes(self._model), {}, shared.opts.data.get(_HASH_OPTION), later)
        return _Set(_with_base_vae(parts, notes), None if later else found)

    def _enter(self, key: Key, entered: _Set) -> None:
        model, notes = self._model, entered.rest.notes
        tensors = {
            name: tensor
            for part, own in entered.rest.parts.items()
            if part != _BASE_VAE
            for name, tensor in own.items()
        }
        ready = self._exchanged_on_device(key, entered.unet) if entered.unet is not None else {}
        self._current = None
        unet = {**(entered.unet or {}), **ready}
        lossy = weights.has_fp8(unet)
        self.was_lossy |= lossy
        # what fp8 is computed with is in no set, and on a GPU it is not in RAM
        more = weights.nbytes(notes.unet) if lossy and devices.device.type == "cpu" else 0
        if self.cache.ram.outside != self._own + more:
            self.cache.ram.count_outside(self._own + more)
        weights.point(model, {**notes.unet, **tensors, **unet}, devices.device, forms=notes.unet)
        for name in self._noted & notes.model.keys():
            setattr(model, name, notes.model[name])
        for name, value in notes.vae.items():
            setattr(sd_vae, name, value)
        sd_vae.base_vae = entered.rest.parts.get(_BASE_VAE)
        shared.opts.data[_HASH_OPTION] = notes.sha256
        vae = entered.rest.parts["vae"].values()
        # which the host changes when a decoded picture has no numbers
        if any(tensor.is_floating_point() and tensor.dtype != devices.dtype_vae for tensor in vae):
            model.first_stage_model.to(devices.dtype_vae)
        sd_models.apply_alpha_schedule_override(model)  # as at the end of the host's own loading
        self._current, self._entered = key, entered
        self._lease()

    def _lease(self) -> None:
        """What is in place stays."""
        current = self._current
        used = (current, current.checkpoint, Lossy(current.checkpoint)) if current is not None else ()
        self.cache.ram.lease(*used, *([self._merged] if self._merged is not None else []))

    def _exchanged_on_device(self, key: Key, entering: Weights) -> Weights:
        """On a GPU, the UNet if a copy is there; the one that leaves stays there if the budget has room for it."""
        vram, left = self.cache.vram, self._current
        entered = self._entered or self._home
        if devices.device.type == "cpu":
            return {}
        unet = Lossy(key.checkpoint) if weights.has_fp8(entering) else key.checkpoint
        self.cache.arrived(_OnDevice(unet))
        ready = vram.get(unet)
        vram.discard(unet)  # in place it is the host's model, which counts as that
        if left is not None and left.checkpoint != key.checkpoint and entered is not None and entered.unet is not None:
            leaving = weights.held(self._model, under=UNET)
            name = Lossy(left.checkpoint) if self.is_lossy else left.checkpoint
            # without a copy that is there, the one that comes takes new memory
            if ready is not None or vram.reserve(name, weights.nbytes(leaving)):
                vram.keep(name, {"unet": leaving})
        return ready.tensors if ready is not None else {}


class _OnDevice(NamedTuple):
    """A copy of a UNet that is on its way to the GPU."""

    checkpoint: Version | Lossy


def _read_unet(cache: CheckpointCache, key: Version | Lossy, wanted: Weights, unwanted: threading.Event | None) -> Kept:
    """Into RAM. Raises NoRoomError, and what ``files.unet`` raises."""
    version = key.checkpoint if isinstance(key, Lossy) else key
    if not cache.ram.reserve(key, max(weights.nbytes(wanted), files.nbytes(version, wanted))):
        raise NoRoomError
    try:
        read = files.unet(version, wanted, cache.note_read, unwanted)
        if isinstance(key, Lossy):
            read = weights.as_fp8({**read})
    except BaseException:
        cache.ram.discard(key)
        raise
    return cache.ram.keep(key, {"unet": read})


def _with_base_vae(parts: Mapping[str, Weights], notes: _Notes) -> Kept:
    """What is in place, with what ``sd_vae`` notes of it; the VAE that it keeps aside is a component like others."""
    aside = {} if sd_vae.base_vae is None else {_BASE_VAE: sd_vae.base_vae}
    vae = {name: getattr(sd_vae, name) for name in _VAE_NOTES}
    return Kept({**parts, **aside}, notes._replace(vae=vae))


def _notes(model: Any) -> dict[str, Any]:
    """What is noted on the model itself: its attributes, without torch's own."""
    return {name: value for name, value in vars(model).items() if not name.startswith("_")}
