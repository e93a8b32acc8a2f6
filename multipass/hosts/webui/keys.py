"""Which checkpoint it is that something is kept of: a file as it was, and the VAE beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from modules import sd_vae

from multipass.hosts.webui import compat
from multipass.hosts.webui.files import Version
from multipass.hosts.webui.vaes import Vae

_loaded: dict[str, Version] = {}  # every file that the host has loaded, as it was the last time


class Key(NamedTuple):
    """Which set: a checkpoint and the VAE that it has, ``None`` for its own. Its UNet is kept by ``checkpoint``, what
    else belongs to it by this key."""

    checkpoint: Version
    vae: Version | None

    @classmethod
    def of(cls, info: Any, vae: Vae | None) -> Key:
        """By the host's rule where the pass has no VAE of its own."""
        if vae is not None:
            file = vae.file_for(info)
        else:  # Forge takes other files as a part of the model that it builds
            file = None if compat.LOADS_BY_PARAMETERS else sd_vae.resolve_vae(info.filename).vae
        return cls(Version.of(info.filename), Version.of(file) if file else None)

    @classmethod
    def of_live(cls, model: Any) -> Key:
        """What the host has loaded, as it was then."""
        name, file = model.sd_checkpoint_info.filename, sd_vae.loaded_vae_file
        return cls(_loaded.get(name) or Version.of(name), Version.of(file) if file else None)


class Lossy(NamedTuple):
    """A UNet that is kept as fp8."""

    checkpoint: Version


def note_loaded(model: Any) -> None:
    """From ``on_model_loaded``."""
    info = getattr(model, "sd_checkpoint_info", None)
    if info is not None:
        _loaded[info.filename] = Version.of(info.filename)


@contextmanager
def not_by_the_host(info: Any) -> Iterator[None]:
    """While extensions are told that it was loaded, and the host has not done that."""
    before = _loaded.get(info.filename)
    try:
        yield
    finally:
        if before is not None:
            _loaded[info.filename] = before


def version_of(key: Any) -> Version:
    """The checkpoint's file that something is kept of, as it was."""
    while not isinstance(key, Version):
        key = key.checkpoint
    return key
