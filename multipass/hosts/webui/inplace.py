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
from pathlib import Path
from typing import Any, NamedTuple

from modules import devices, script_callbacks, sd_hijack, sd_models, sd_models_config, sd_unet, sd_vae, shared
from modules.timer import Timer
from torch import Tensor

from multipass.cache import weights
from multipass.cache.store import CheckpointCache, Kept, with_room
from multipass.cache.weights import Weights
from multipass.hosts.webui import files, hooks, networks
from multipass.hosts.webui.files import UNET, Version
from multipass.hosts.webui.vaes import Vae
from multipass.manifest import Source

_COMPONENTS = {"unet": UNET, "vae": "first_stage_model.", "text_encoder": ("cond_stage_model.", "conditioner.")}
_BASE_VAE = "base_vae"  # the checkpoint's own, which the host keeps aside while another is in place
_VAE_NOTES = ("loaded_vae_file", "checkpoint_info")  # what sd_vae remembers of the VAE in place
_HASH_OPTION = "sd_checkpoint_hash"
_SDXL_NOT_SSD = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"


class NoRoomError(MemoryError):
    """The budget has no room, whatever leaves."""


class Key(NamedTuple):
    """Which set: a checkpoint and the VAE that it has, ``None`` for its own. Its UNet is kept by ``checkpoint``, what
    else belongs to it by this key."""

    checkpoint: Version
    vae: Version | None

    @classmethod
    def of(cls, info: Any, vae: Vae | None) -> Key:
        """By the host's rule where the pass has no VAE of its own."""
        file = sd_vae.resolve_vae(info.filename).vae if vae is None else vae.file_for(info)
        return cls(Version.of(info.filename), Version.of(file) if file else None)

    @classmethod
    def of_live(cls, model: Any) -> Key:
        """What the host has loaded, as it was then."""
        name, file = model.sd_checkpoint_info.filename, sd_vae.loaded_vae_file
        return cls(_loaded.get(name) or Version.of(name), Version.of(file) if file else None)


class Merged(NamedTuple):
    """What networks make of a set, as far as they touch it."""

    checkpoint: Key
    networks: tuple[Any, ...]


class _Notes(NamedTuple):
    """What is kept beside a set's tensors."""

    model: dict[str, Any]  # its attributes
    vae: dict[str, Any]
    sha256: Any
    unet: dict[str, Tensor]  # the UNet without numbers, where these can be read by themselves


class _Set(NamedTuple):
    rest: Kept  # notes: _Notes
    unet: Weights | None  # not yet, where only texts are to be encoded


class _Shape(NamedTuple):
    """What two checkpoints must agree in to be answered for by one module."""

    config: str
    has_ssd_key: bool


_shapes: dict[Version, _Shape] = {}
_loaded: dict[str, Version] = {}  # every file that the host has loaded, as it was the last time


def note_loaded(model: Any) -> None:
    """From ``on_model_loaded``."""
    info = getattr(model, "sd_checkpoint_info", None)
    if info is not None:
        _loaded[info.filename] = Version.of(info.filename)


class InPlace:
    """The live module, and which set is in place in it.

    Attributes:
        managed: the host loads nothing into the module by itself. Else what it has loaded is its own and stays as it
            is, out of the cache, until ``home``.
        had_no_room: why the last ``put`` did nothing, if it did nothing.
        source: where the UNet was that the last ``put`` put in place: where it is computed; in RAM, because it was read
            ahead or is computed on a GPU; or it had to be waited for.
    """

    def __init__(self, cache: CheckpointCache) -> None:
        self.cache = cache
        self.managed = self.had_no_room = False
        self.source = Source.RESIDENT
        self._model: Any = None
        self._home_key: Key | None = None
        self._home: _Set | None = None
        self._current: Key | None = None
        self._entered: _Set | None = None  # None: the home, never left
        self._merged: Merged | None = None  # what networks have made of it
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
        whole = entered is None or entered.unet is not None
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
        if not suits(model):
            return False
        before = self.current
        if before is None:  # the host has loaded by itself since, into a module that it may have made anew
            self._forget()
            self._model = model
            self._home_key = self._current = before = Key.of_live(model)
        key, entered = Key.of(info, vae), self._entered
        if key == before and not (unet and entered is not None and entered.unet is None):
            return True
        if not self._fits(info, key):
            return False
        self._settle()
        if entered is None:
            self._home = entered = self._taken()  # now, not earlier: a copy, on a GPU
            own = [*self._home.rest.parts.values(), self._home.unet or {}]
            self.cache.ram.outside = sum(weights.nbytes(part) for part in own)
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
            loaded = _loaded.get(info.filename)
            script_callbacks.model_loaded_callback(model)
            if loaded is not None:  # by the host, and this was not
                _loaded[info.filename] = loaded
        return True

    def read_ahead(self, info: Any, vae: Vae | None = None) -> None:
        """Begin to read what will be put in place later, if that is known and is not here."""
        cache, key = self.cache, Key.of(info, vae)
        kept = cache.ram.get(key)
        if self.current is None or key == self._home_key or kept is None or not kept.notes.unet:
            return
        wanted = kept.notes.unet

        def read(unwanted: threading.Event) -> Kept:
            return _read_unet(cache, key.checkpoint, wanted, unwanted)

        cache.read_ahead(key.checkpoint, read)

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
        weights.detach(self._model, under=_COMPONENTS["vae"])
        yield
        parts = {**entered.rest.parts, "vae": weights.take(self._model, under=_COMPONENTS["vae"])}
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
        key = Merged(self.current, wanted)
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
        self.cache.ram.outside = 0

    def _keep_home(self) -> None:
        """The host's own tensors become a set like any other."""
        if self._home is not None and self._home_key is not None and self._home.unet is not None:
            self.cache.ram.outside = 0
            self.cache.ram.keep(self._home_key, self._home.rest.parts, self._home.rest.notes)
            self.cache.ram.keep(self._home_key.checkpoint, {"unet": self._home.unet})
        self._home = self._home_key = None

    def _settle(self) -> None:
        """A set is left as the checkpoint's: networks are merged into whatever is in place."""
        networks.unmerge(self._model)
        self._merged = None

    def _fits(self, info: Any, key: Key) -> bool:
        """Whether the live module can answer for it, as far as that is known without reading its numbers."""
        if key.checkpoint not in _shapes:
            outline = files.outline(info)
            if outline is None:
                return True
            _shapes[key.checkpoint] = _shape(outline, info)
        return _same_module(_shapes[key.checkpoint], self._model)

    def _found(self, info: Any, key: Key, *, unet: bool) -> _Set | None:
        """The set, read as far as it has to be."""
        copied = devices.device.type != "cpu" and key.checkpoint not in self.cache.vram
        self.source = Source.RAM if copied else Source.RESIDENT
        if key == self._home_key:
            return self._home
        ram, loads = self.cache.ram, self.cache.loads
        rest, own = ram.get(key), ram.get(key.checkpoint)
        if unet:
            ahead = self.cache.arrived(key.checkpoint)
            if own is None:
                own, self.source = ahead, Source.DISK
            elif ahead is not None and self.source is Source.RESIDENT:
                self.source = Source.RAM
        if self._home is not None and self._home_key is not None and key.checkpoint == self._home_key.checkpoint:
            own = Kept({"unet": self._home.unet or {}})  # with another VAE
            self.source = Source.RAM if copied else Source.RESIDENT
        if rest is None or (unet and own is None and not rest.notes.unet):
            rest, own = self._read(info, key)
            self.source = Source.DISK
        if rest is not None and unet and own is None:
            own = self._read_unet(key, rest)
        if rest is None or (unet and own is None):
            return None
        self.cache.hits += self.cache.loads == loads
        return _Set(rest, own.tensors if own is not None else None)

    def _read(self, info: Any, key: Key) -> tuple[Kept | None, Kept | None]:
        """Have the host load it: without the UNet's numbers, if these can be read later. ``None`` where it does not fit
        the module, or there is no room for it."""
        model, ram = self._model, self.cache.ram
        outlined, advanced = files.outline(info), self.cache.note_read
        held = weights.split(weights.held(model), _COMPONENTS)
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
            _shapes[key.checkpoint] = shape = _shape(state_dict, info)
            if not _same_module(shape, model):
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
            return _read_unet(self.cache, key.checkpoint, rest.notes.unet, None)
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
        parts = weights.split(weights.take(self._model), _COMPONENTS)
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
        ready = self._exchanged_on_device(key) if entered.unet is not None else {}
        self._current = None
        weights.point(model, {**notes.unet, **tensors, **(entered.unet or {}), **ready}, devices.device)
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
        keys = (self._current, self._current.checkpoint) if self._current is not None else ()
        self.cache.ram.lease(*keys, *([self._merged] if self._merged is not None else []))

    def _exchanged_on_device(self, key: Key) -> Weights:
        """On a GPU, the UNet if a copy is there; the one that leaves stays there if the budget has room for it."""
        vram, left = self.cache.vram, self._current
        entered = self._entered or self._home
        if devices.device.type == "cpu":
            return {}
        if left is not None and left.checkpoint != key.checkpoint and entered is not None and entered.unet is not None:
            vram.keep(left.checkpoint, {"unet": weights.held(self._model, under=UNET)})
        ready = vram.get(key.checkpoint)
        vram.discard(key.checkpoint)  # in place it is the host's model, which counts as that
        return ready.tensors if ready is not None else {}


def _read_unet(cache: CheckpointCache, key: Version, wanted: Weights, unwanted: threading.Event | None) -> Kept:
    """Into RAM. Raises NoRoomError, and what ``files.unet`` raises."""
    if not cache.ram.reserve(key, max(weights.nbytes(wanted), files.nbytes(key, wanted))):
        raise NoRoomError
    try:
        read = files.unet(key, wanted, cache.note_read, unwanted)
    except BaseException:
        cache.ram.discard(key)
        raise
    return cache.ram.keep(key, {"unet": read})


def file_of(key: Any) -> str:
    """The checkpoint's file that something is kept of."""
    while not isinstance(key, Version):
        key = key.checkpoint
    return key.file


def suits(model: Any) -> bool:
    """Whether the tensors of the host's module are all there is to a checkpoint, and where they should be."""
    return (
        hasattr(sd_models, "load_model_weights")
        and getattr(model, "sd_checkpoint_info", None) is not None
        and not hasattr(model, "forge_objects")
        and not model.lowvram
        and not model.is_sd3  # which loads its text encoders from files of their own
        and not devices.fp8
        and sd_unet.current_unet is None
    )


def _with_base_vae(parts: Mapping[str, Weights], notes: _Notes) -> Kept:
    """What is in place, with what ``sd_vae`` notes of it; the VAE that it keeps aside is a component like others."""
    aside = {} if sd_vae.base_vae is None else {_BASE_VAE: sd_vae.base_vae}
    vae = {name: getattr(sd_vae, name) for name in _VAE_NOTES}
    return Kept({**parts, **aside}, notes._replace(vae=vae))


def _notes(model: Any) -> dict[str, Any]:
    """What is noted on the model itself: its attributes, without torch's own."""
    return {name: value for name, value in vars(model).items() if not name.startswith("_")}


def _shape(tensors: Weights, info: Any) -> _Shape:
    return _Shape(sd_models_config.find_checkpoint_config(tensors, info), _SDXL_NOT_SSD in tensors)


def _same_module(shape: _Shape, model: Any) -> bool:
    """Checkpoints with a config file each, of equal content, have one architecture, although the host would build it
    anew. SSD-1B has SDXL's config, and the host takes blocks out of the module for it."""
    if model.is_ssd or (model.is_sdxl and not shape.has_ssd_key):
        return False
    one, other = shape.config, model.used_config
    return one == other or Path(one).read_bytes() == Path(other).read_bytes()
