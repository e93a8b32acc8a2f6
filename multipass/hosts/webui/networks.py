"""Extra networks (LoRAs and the like) of a pass: active while it holds, and never left behind in its weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from modules import devices, extra_networks, shared
from torch import Tensor, nn
from torch.nn import Parameter

from multipass.cache.weights import Weights
from multipass.hosts.webui import hooks

_HASHES = "Lora hashes"
_TENSORS = ("weight", "bias")
_MERGED = nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm
_UNTOUCHED = nn.MultiheadAttention
_OWN = "multipass_own"  # on a layer: its own tensors, while what networks have made of them is in their place
_MARKS = ("network_current_names", "network_weights_backup", "network_bias_backup")


class _Own(NamedTuple):
    weight: Parameter
    bias: Parameter | None
    networks: tuple[Any, ...]  # what was merged, as the host names it


class Merges(Protocol):
    """Who has the active networks merged into the weights that are in place, and taken out again."""

    def merge(self) -> None: ...

    def unmerge(self) -> None: ...


class Networks:
    """Which extra networks are active for one request; the host's own activation, called when that changes."""

    def __init__(self, p: Any, models: Merges) -> None:
        self._p, self._models = p, models
        self._active: Any = None
        self._hashes: dict[str, None] = {}  # "name: hash", in the order of their appearance

    def are(self, data: Any) -> None:
        """The host has activated ``data``, as ``extra_networks.parse_prompts`` gives it, by itself: a batch begins."""
        self._active, self._hashes = data, {}
        self.note_hashes()
        self._models.unmerge()
        self._models.merge()

    def forget(self) -> None:
        """Another module is in place, on which none is active."""
        self._active = None

    def activate(self, data: Any) -> None:
        """Make exactly ``data`` active, on the weights that are in place now."""
        if self._p.disable_extra_networks:
            return
        if data != self._active:
            self._models.unmerge()
            with devices.autocast():
                extra_networks.activate(self._p, data)
            self._active = data
            self.note_hashes()
        self._models.merge()

    def note_hashes(self) -> None:
        """The picture's text names the LoRAs of all passes, where the host would name the last one's."""
        params = self._p.extra_generation_params
        told = params.get(_HASHES, "")
        self._hashes |= dict.fromkeys(entry for entry in told.split(", ") if entry)
        if self._hashes:
            params[_HASHES] = ", ".join(self._hashes)


def active() -> tuple[Any, ...]:
    """What is active in the host's Lora extension, with what decides what it does to the weights; empty for nothing."""
    return () if getattr(shared.opts, "lora_functional", False) else loaded()  # which leaves the weights alone


def loaded() -> tuple[Any, ...]:
    """The same, whether it is merged into the weights or acts beside them."""
    lora = _extension()
    if lora is None:
        return ()
    return (*_wanted(lora), *(getattr(net, "mtime", None) for net in lora.loaded_networks))


def room_for_merging(model: Any, known: Weights) -> int:
    """Bytes that ``merge`` takes beside what is known."""
    lora = _extension()
    tensors = [
        getattr(layer, tensor)
        for name, layer in _layers(model)
        if not layer.weight.is_meta and f"{name}.weight" not in known and _has_something_for(lora, name)
        for tensor in _TENSORS
    ]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def merge(model: Any, known: Weights) -> Weights:
    """Have the active networks merged into tensors of their own; the weights themselves stay as they are.

    The host would merge into the weights, layer by layer when one is next used, and copy every layer aside before. Here
    what it puts aside is the layer's own tensors, and what it merges into is a copy, of those layers that a network has
    something for. It is only right while ``guarded``.

    Args:
        known: what the same networks have made of the same weights before, by layer and tensor.

    Returns:
        what they made that was not known.
    """
    lora = _extension()
    wanted = _wanted(lora)
    made: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, layer in _layers(model):
            if layer.weight.is_meta or getattr(layer, "network_current_names", ()) != ():
                continue
            own = _Own(layer.weight, layer.bias, wanted)
            setattr(layer, _OWN, own)
            layer.network_weights_backup = own.weight.detach()  # a parameter would become one of the layer's
            layer.network_bias_backup = None if own.bias is None else own.bias.detach()
            if f"{name}.weight" in known:
                layer.weight, layer.bias = known[f"{name}.weight"], known.get(f"{name}.bias")
                layer.network_current_names = wanted
            elif _has_something_for(lora, name):
                layer.weight = _copied(own.weight)
                layer.bias = None if own.bias is None else _copied(own.bias)
                lora.network_apply_weights(layer)
                tensors = {f"{name}.{tensor}": getattr(layer, tensor) for tensor in _TENSORS}
                made |= {path: tensor for path, tensor in tensors.items() if tensor is not None}
            else:
                layer.network_current_names = wanted
    return made


@contextmanager
def guarded() -> Iterator[None]:
    """While this lasts, the host merges other networks than ``merge`` has into the layer's own tensors' stead: first
    these are back in place, and are copied aside, as it always does."""
    lora = _extension()
    if not hasattr(lora, "network_apply_weights"):  # off, or the Forge family's, which merges elsewhere
        yield
        return
    original = lora.network_apply_weights

    def network_apply_weights(layer: Any) -> None:
        own: _Own | None = vars(layer).get(_OWN)
        if own is not None and own.networks != _wanted(lora):
            _restore(layer, lora)
        original(layer)

    with hooks.replaced(lora, network_apply_weights=network_apply_weights):
        yield


def unmerge(model: Any) -> None:
    """Take out of the weights what the host's Lora extension has merged into them, and its marks with it."""
    lora = _extension()
    if lora is None:
        return
    with torch.no_grad():
        for layer in model.modules():
            marks = [vars(layer).get(mark) for mark in _MARKS]  # torch is slow to tell that there is no such attribute
            if _OWN in vars(layer):
                _restore(layer, lora)
            elif not all(mark is None or (isinstance(mark, tuple) and not mark) for mark in marks):
                lora.network_restore_weights_from_backup(layer)
                lora.network_reset_cached_weight(layer)


def _restore(layer: Any, lora: Any) -> None:
    own: _Own = vars(layer).pop(_OWN)
    layer.weight, layer.bias = own.weight, own.bias
    lora.network_reset_cached_weight(layer)


def _copied(tensor: Parameter) -> Parameter:
    return Parameter(tensor.detach().clone(), tensor.requires_grad)


def _has_something_for(lora: Any, layer: str) -> bool:
    return any(layer in net.modules for net in lora.loaded_networks)


def _wanted(lora: Any) -> tuple[Any, ...]:
    """What is active, as the host compares it with what a layer has."""
    return tuple((net.name, net.te_multiplier, net.unet_multiplier, net.dyn_dim) for net in lora.loaded_networks)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Every layer that the host merges networks into, but attention that has its tensors in one (SD 2.x, SDXL's second
    text encoder) and what is inside that: this stays its own way."""
    inside = {
        part for attention in model.modules() if isinstance(attention, _UNTOUCHED) for part in attention.modules()
    }
    for layer in model.modules():
        name = vars(layer).get("network_layer_name")
        if name is not None and isinstance(layer, _MERGED) and layer.weight is not None and layer not in inside:
            yield name, layer


def _extension() -> Any:
    """The module ``networks`` of the host's Lora extension, if that is on."""
    registered = extra_networks.extra_network_registry.get("lora")
    home = sys.modules.get(type(registered).__module__)
    return getattr(home, "networks", None)
