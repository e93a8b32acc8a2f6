"""Checkpoints of the live module's architecture, switched in place: the module stays, its tensors are exchanged.

Where a checkpoint is read for the first time, the host itself reads it, into tensors that are nobody else's: what it
does to them on the way (precision, an external VAE, the noise schedule) is done, and what it notes about them on the
model and in its modules is kept beside them. AUTOMATIC1111's module only: the Forge family keeps its weights elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from modules import devices, script_callbacks, sd_hijack, sd_models, sd_models_config, sd_unet, sd_vae, shared
from modules.timer import Timer

from multipass.cache import weights
from multipass.hosts.webui import networks
from multipass.hosts.webui.vaes import Vae

_VAE = "first_stage_model."
_VAE_NOTES = ("base_vae", "loaded_vae_file", "checkpoint_info")  # what sd_vae remembers of the VAE in place
_HASH_OPTION = "sd_checkpoint_hash"
_WRITTEN = Vae("written by the host")  # in a key: the checkpoint, with a VAE that is in no set
_CPU = torch.device("cpu")
_SDXL_NOT_SSD = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"


class Key(NamedTuple):
    """Which set: a checkpoint file, with its own VAE (by the host's rule) or with another."""

    filename: str
    vae: Vae | None = None


class _Set(NamedTuple):
    tensors: weights.Weights
    notes: dict[str, Any]  # the model's attributes
    vae_notes: dict[str, Any]
    sha256: Any


class _Shape(NamedTuple):
    """What two checkpoints must agree in to be answered for by one module."""

    config: str
    has_ssd_key: bool


_shapes: dict[tuple[str, float], _Shape] = {}  # by file and when it was written: it takes reading the file


class InPlace:
    """The sets of one request, in RAM. The one that the host has loaded is among them and stays the host's own."""

    def __init__(self) -> None:
        self._model: Any = None
        self._sets: dict[Key, _Set] = {}
        self._home: Key | None = None
        self._current: Key | None = None
        self._noted: set[str] = set()  # the attributes in which sets differ

    @property
    def current(self) -> Key | None:
        """What is in place, if that was put there by this and by nobody else since."""
        model = shared.sd_model
        if self._current is None or model is not self._model:
            return None
        return self._current if model.sd_checkpoint_info.filename == self._current.filename else None

    def put(self, info: Any, vae: Vae | None = None) -> bool:
        """Put a checkpoint in place.

        Returns:
            whether it is: ``False`` if it needs another module than the live one. Then nothing has changed.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        model = shared.sd_model
        if not suits(model) or not self._fits(info, model):
            return False
        before = self.current
        if before is None:  # the host has loaded by itself since, into a module that it may have made anew
            self._model, self._sets = model, {}
            self._home = self._current = before = Key(model.sd_checkpoint_info.filename)
        key = Key(info.filename, vae)
        if key == before:
            return True
        self._settle()
        assert self._home is not None
        if self._home not in self._sets:
            self._sets[self._home] = self._taken()  # now, not earlier: a copy, on a GPU
        try:
            new = self._read(info, key)
            if key not in self._sets:
                self._enter(before)
                return False
            self._enter(key)
        except BaseException:
            self._enter(before if before in self._sets else self._home)
            raise
        if new:  # other extensions are told as when the host reads it, once
            script_callbacks.model_loaded_callback(model)
        return True

    def home(self) -> None:
        """Put the host's own tensors back, into which it may load again, and forget the others."""
        here = self._model is not None and self._model is shared.sd_model
        failed = self._current is None  # on the way from one set to another
        if here and self._home in self._sets and (failed or self.current is not None):
            assert self._home is not None
            self._settle()
            self._enter(self._home)
        self._model = self._home = self._current = None
        self._sets = {}

    @contextmanager
    def written_to(self) -> Iterator[None]:
        """While the host writes into the VAE that is in place: it gets one of its own to write into."""
        if self.current is not None and self._sets:
            weights.detach(self._model, under=_VAE)
            self._current = Key(self._model.sd_checkpoint_info.filename, _WRITTEN)
        yield

    # --- inside ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """A set is left as the checkpoint's: networks merge into whatever is in place."""
        networks.unmerge(self._model)

    def _fits(self, info: Any, model: Any) -> bool:
        """Whether the live module can answer for it, as far as that is known without reading."""
        shape = _shapes.get(_version(info))
        return shape is None or _same_module(shape, model)

    def _read(self, info: Any, key: Key) -> bool:
        """See to it that there is such a set, unless it does not fit the module; returns whether a file was read."""
        own = Key(info.filename)
        new = own not in self._sets and self._read_checkpoint(info, own)
        if key.vae is not None and key not in self._sets and own in self._sets:
            self._enter(own)
            weights.detach(self._model, under=_VAE, device=_CPU)
            with self._noting():
                sd_vae.load_vae(self._model, key.vae.file_for(info), "of the pass")
            # what a VAE does not change is there once
            base = self._sets[own]
            taken = self._taken(under=_VAE)
            self._sets[key] = taken._replace(tensors={**base.tensors, **taken.tensors})
        return new

    def _read_checkpoint(self, info: Any, key: Key) -> bool:
        model, timer = self._model, Timer()
        state_dict = sd_models.get_checkpoint_state_dict(info, timer)
        shape = _Shape(sd_models_config.find_checkpoint_config(state_dict, info), _SDXL_NOT_SSD in state_dict)
        _shapes[_version(info)] = shape
        if not _same_module(shape, model):
            return False
        self._current = None
        weights.detach(model, device=_CPU)
        with self._noting(), sd_models.SkipWritingToConfig():
            sd_hijack.model_hijack.undo_hijack(model)
            try:
                sd_models.load_model_weights(model, info, state_dict, timer)
            finally:
                sd_hijack.model_hijack.hijack(model)
        self._sets[key] = self._taken()
        return True

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Remember which of the model's attributes the host changes."""
        before = _notes(self._model)
        yield
        self._noted |= {name for name, value in _notes(self._model).items() if before.get(name) is not value}

    def _taken(self, *, under: str = "") -> _Set:
        """What is in place."""
        vae_notes = {name: getattr(sd_vae, name) for name in _VAE_NOTES}
        tensors = weights.take(self._model, under=under)
        return _Set(tensors, _notes(self._model), vae_notes, shared.opts.data.get(_HASH_OPTION))

    def _enter(self, key: Key) -> None:
        entered, model = self._sets.get(key), self._model
        if entered is None:  # never left
            return
        self._current = None
        weights.point(model, entered.tensors, devices.device)
        for name in self._noted & entered.notes.keys():
            setattr(model, name, entered.notes[name])
        for name, value in entered.vae_notes.items():
            setattr(sd_vae, name, value)
        shared.opts.data[_HASH_OPTION] = entered.sha256
        model.first_stage_model.to(devices.dtype_vae)  # which the host changes when a decoded picture has no numbers
        self._current = key


def suits(model: Any) -> bool:
    """Whether the tensors of the host's module are all there is to a checkpoint, and where they should be."""
    return (
        hasattr(sd_models, "load_model_weights")
        and getattr(model, "sd_checkpoint_info", None) is not None
        and not hasattr(model, "forge_objects")
        and not model.lowvram
        and not devices.fp8
        and sd_unet.current_unet is None
    )


def _notes(model: Any) -> dict[str, Any]:
    """What is noted on the model itself: its attributes, without torch's own."""
    return {name: value for name, value in vars(model).items() if not name.startswith("_")}


def _version(info: Any) -> tuple[str, float]:
    return info.filename, Path(info.filename).stat().st_mtime


def _same_module(shape: _Shape, model: Any) -> bool:
    """Checkpoints with a config file each, of equal content, have one architecture, although the host would build it
    anew. SSD-1B has SDXL's config, and the host takes blocks out of the module for it."""
    if model.is_ssd or (model.is_sdxl and not shape.has_ssd_key):
        return False
    one, other = shape.config, model.used_config
    return one == other or Path(one).read_bytes() == Path(other).read_bytes()
