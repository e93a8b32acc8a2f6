"""A pass's own VAE, by the name a person wrote, as the webui lists it."""

from __future__ import annotations

import difflib
from pathlib import PurePath
from typing import Any, NamedTuple

from modules import sd_vae


class Vae(NamedTuple):
    """Another VAE than the host's rule would choose: a file; without one, the checkpoint's own."""

    file: str | None = None
    automatic: bool = False

    @property
    def option(self) -> str:
        """The same, as the host's setting has it."""
        if self.automatic:
            return "Automatic"
        return "None" if self.file is None else sd_vae.get_filename(self.file)

    def file_for(self, info: Any) -> str | None:
        """The file for a checkpoint; ``automatic`` is what its metadata names or lies beside it, as in the host."""
        if not self.automatic:
            return self.file
        named = sd_vae.resolve_vae_from_user_metadata(info.filename)
        return named.vae if named.resolved else sd_vae.find_vae_near_checkpoint(info.filename)


def resolve(name: str) -> Vae:
    """What a name means: ``None``, ``Automatic``, or a file's name with or without its extension.

    Raises:
        LookupError: with the reason, fit for people.
    """
    if name.lower() in ("none", "automatic"):
        return Vae(automatic=name.lower() == "automatic")
    listed = sd_vae.vae_dict
    found = (
        [listed[name]] if name in listed else [file for known, file in listed.items() if PurePath(known).stem == name]
    )
    if len(found) > 1:
        raise LookupError(f'the VAE "{name}" could be any of {", ".join(found)}')
    if not found:
        close = difflib.get_close_matches(name, listed, n=1)
        raise LookupError(f'the webui lists no VAE "{name}"' + (f'; did you mean "{close[0]}"?' if close else ""))
    return Vae(found[0])
