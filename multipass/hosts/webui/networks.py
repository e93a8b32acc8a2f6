"""Extra networks (LoRAs and the like) of a pass: active while it holds, and never left behind in its weights."""

from __future__ import annotations

import sys
from typing import Any

import torch
from modules import devices, extra_networks

_HASHES = "Lora hashes"
_MARKS = ("network_current_names", "network_weights_backup", "network_bias_backup")


class Networks:
    """Which extra networks are active for one request; the host's own activation, called when that changes."""

    def __init__(self, p: Any) -> None:
        self._p = p
        self._active: Any = None
        self._hashes: dict[str, None] = {}  # "name: hash", in the order of their appearance

    def are(self, data: Any) -> None:
        """The host has activated ``data``, as ``extra_networks.parse_prompts`` gives it, by itself: a batch begins."""
        self._active, self._hashes = data, {}
        self.note_hashes()

    def forget(self) -> None:
        """Another module is in place, on which none is active."""
        self._active = None

    def activate(self, data: Any) -> None:
        """Make exactly ``data`` active."""
        if self._p.disable_extra_networks or data == self._active:
            return
        with devices.autocast():
            extra_networks.activate(self._p, data)
        self._active = data
        self.note_hashes()

    def note_hashes(self) -> None:
        """The picture's text names the LoRAs of all passes, where the host would name the last one's."""
        params = self._p.extra_generation_params
        told = params.get(_HASHES, "")
        self._hashes |= dict.fromkeys(entry for entry in told.split(", ") if entry)
        if self._hashes:
            params[_HASHES] = ", ".join(self._hashes)


def unmerge(model: Any) -> None:
    """Take out of the weights what the host's Lora extension has merged into them, and its marks and backups with it.

    It merges layer by layer, when a layer is next used, and keeps the layer's own weights aside.
    """
    lora = _extension()
    if lora is None:
        return
    with torch.no_grad():
        for layer in model.modules():
            marks = [vars(layer).get(mark) for mark in _MARKS]  # torch is slow to tell that there is no such attribute
            if any(mark is not None and not (isinstance(mark, tuple) and not mark) for mark in marks):
                lora.network_restore_weights_from_backup(layer)
                lora.network_reset_cached_weight(layer)


def _extension() -> Any:
    """The module ``networks`` of the host's Lora extension, if that is on."""
    registered = extra_networks.extra_network_registry.get("lora")
    home = sys.modules.get(type(registered).__module__)
    return getattr(home, "networks", None)
