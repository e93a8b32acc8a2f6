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

from modules import devices, script_callbacks, sd_hijack, sd_models, sd_models_config, sd_unet, sd_vae, shared
from modules.timer import Timer

from multipass.cache import weights
from multipass.hosts.webui import networks
from multipass.hosts.webui.vaes import Vae

_VAE = "first_stage_model."
_VAE_NOTES = ("base_vae", "loaded_vae_file", "checkpoint_info")  # what sd_vae remembers of the VAE in place
_HASH_OPTION = "sd_checkpoint_hash"


class Key(NamedTuple):
    """Which set: a checkpoint file, with its own VAE (by the host's rule) or with another."""

    filename: str
    vae: Vae | None = None


class _Set(NamedTuple):
    tensors: weights.Weights
    notes: dict[str, Any]  # the model's attributes
    vae_notes: dict[str, Any]
    sha256: Any


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
        """What is in place, as far as this put it there."""
        return self._current if self._model is shared.sd_model else None

    def put(self, info: Any, vae: Vae | None = None) -> bool:
        """Put a checkpoint in place.

        Returns:
            whether it is: ``False`` if it needs another module than the live one. Then nothing has changed.

        Raises:
            what the host raises while it reads; then what was in place before is in place again.
        """
        model = shared.sd_model
        if not _suits(model):
            return False
        if model is not self._model:
            self._begin(model)
        key = Key(info.filename, vae)
        if key == self._current:
            return True
        self._settle()
        if self._home not in self._sets:
            assert self._home is not None
            self._sets[self._home] = self._taken(model)  # now, not earlier: a copy, on a GPU
        if key not in self._sets and not self._read(info, key):
            return False
        self._enter(key)
        return True

    def home(self) -> None:
        """Put the host's own tensors back, into which it may load again, and forget the others."""
        if self._model is not None and self._model is shared.sd_model and self._home in self._sets:
            self._settle()
            self._enter(self._home)
        self._model = self._home = self._current = None
        self._sets = {}

    @contextmanager
    def written_to(self) -> Iterator[None]:
        """While the host writes into the VAE that is in place: it gets one of its own to write into."""
        if self._model is not None and self._model is shared.sd_model and self._sets:
            weights.detach(self._model, under=_VAE)
            self._current = None
        yield

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, model: Any) -> None:
        """The host has another module than at the last time: with whatever is in it, which is its own."""
        self._model, self._sets = model, {}
        self._home = self._current = Key(model.sd_checkpoint_info.filename)

    def _settle(self) -> None:
        """A set is left as the checkpoint's: networks merge into whatever is in place."""
        networks.unmerge(self._model)

    def _read(self, info: Any, key: Key) -> bool:
        """Read a set through the host. ``False``, with nothing changed, if it does not fit the module."""
        before = self._current
        try:
            if key.vae is None:
                return self._read_checkpoint(info, key)
            if not self.put(info):
                return False
            weights.detach(self._model, under=_VAE)
            with self._noting(key):
                sd_vae.load_vae(self._model, key.vae.file_for(info), "of the pass")
        except BaseException:
            if before is not None:
                self._enter(before)
            raise
        return True

    def _read_checkpoint(self, info: Any, key: Key) -> bool:
        model, timer = self._model, Timer()
        state_dict = sd_models.get_checkpoint_state_dict(info, timer)
        if not _same_config(sd_models_config.find_checkpoint_config(state_dict, info), model.used_config):
            return False
        weights.detach(model)
        with self._noting(key), sd_models.SkipWritingToConfig():
            sd_hijack.model_hijack.undo_hijack(model)
            try:
                sd_models.load_model_weights(model, info, state_dict, timer)
            finally:
                sd_hijack.model_hijack.hijack(model)
        script_callbacks.model_loaded_callback(model)
        return True

    @contextmanager
    def _noting(self, key: Key) -> Iterator[None]:
        """Keep what is in place afterwards, and which of the model's attributes the host changed for it."""
        before = _notes(self._model)
        yield
        taken = self._taken(self._model)
        self._noted |= {name for name, value in taken.notes.items() if before.get(name) is not value}
        self._sets[key] = taken

    def _taken(self, model: Any) -> _Set:
        vae_notes = {name: getattr(sd_vae, name) for name in _VAE_NOTES}
        return _Set(weights.take(model), _notes(model), vae_notes, shared.opts.data.get(_HASH_OPTION))

    def _enter(self, key: Key | None) -> None:
        assert key is not None
        entered, model = self._sets[key], self._model
        weights.point(model, entered.tensors, devices.device)
        for name in self._noted & entered.notes.keys():
            setattr(model, name, entered.notes[name])
        for name, value in entered.vae_notes.items():
            setattr(sd_vae, name, value)
        shared.opts.data[_HASH_OPTION] = entered.sha256
        self._current = key


def _notes(model: Any) -> dict[str, Any]:
    """What is noted on the model itself: its attributes, without torch's own."""
    return {name: value for name, value in vars(model).items() if not name.startswith("_")}


def _suits(model: Any) -> bool:
    """Whether the tensors of the host's module are all there is to a checkpoint, and where they should be."""
    return (
        hasattr(sd_models, "load_model_weights")
        and getattr(model, "sd_checkpoint_info", None) is not None
        and not hasattr(model, "forge_objects")
        and not model.lowvram
        and not devices.fp8
        and sd_unet.current_unet is None
    )


def _same_config(one: str, other: str) -> bool:
    """Checkpoints with a file each, of equal content, have one architecture; the host would build it anew."""
    return one == other or Path(one).read_bytes() == Path(other).read_bytes()
