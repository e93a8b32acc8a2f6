"""A module's tensors as a value: taken out, pointed at again, made its own. Switching weights moves no byte.

A module that answers for one checkpoint answers for another of the same architecture as soon as its parameters and
buffers are the other's tensors. Whoever holds the module (patches of other extensions, an attention optimisation, token
merging) notices nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
"""Every parameter and buffer of a module, by name."""

_WRAPPED = ".wrapped"


def take(module: nn.Module, *, under: str = "") -> Weights:
    """The module's tensors themselves, not copies; on a device other than the CPU, copies in RAM.

    Args:
        under: only names that begin with this.
    """
    return {name: _in_ram(owner[key]) for name, owner, key in _slots(module) if name.startswith(under)}


def point(module: nn.Module, weights: Weights, device: torch.device) -> None:
    """Make the module's tensors those of ``weights``: themselves where they are on ``device``, else copies there.

    What ``weights`` does not name stays: it is not the checkpoint's. One tensor at a time, so that a device never holds
    two sets; if its memory runs out on the way, what is not there yet is in RAM, and nothing is lost.

    Raises:
        RuntimeError: if a tensor has no place in the module; the others are in theirs.
    """
    placed: set[str] = set()
    for name, owner, key in _slots(module):
        if name in weights:
            owner[key] = weights[name]  # lets go of the old one before the new one takes room
            owner[key] = _on(weights[name], device)
            placed.add(name)
    lost = sorted(weights.keys() - placed)
    if lost:
        raise RuntimeError(f"{len(lost)} tensors of the checkpoint have no place in the model, {lost[0]} first")


def detach(module: nn.Module, *, under: str = "", device: torch.device | None = None) -> None:
    """Give the module copies of its tensors, of its own: what is written into them reaches nobody else's.

    Args:
        under: only names that begin with this.
        device: where the copies are; ``None``: where the tensors are.
    """
    for name, owner, key in _slots(module):
        if name.startswith(under):
            tensor: Tensor = owner[key]
            owner[key] = _like(tensor, tensor.detach().to(device or tensor.device, copy=True))


def _slots(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Where every tensor is held: its name, the dict, the key. Found anew each time, since hosts rebuild what wraps.

    A host patches a part by putting a wrapper around it, which calls it ``wrapped``: a tensor's name is the same with
    and without that.
    """
    parts = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    for path, part in parts:
        # torch has no public way to exchange a parameter; these two dicts are where it looks them up
        for held in (vars(part)["_parameters"], vars(part)["_buffers"]):
            for key, tensor in list(held.items()):
                if tensor is not None:
                    yield f"{path}.{key}".replace(_WRAPPED, ""), held, key


def _in_ram(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "cpu" else _like(tensor, tensor.detach().cpu())


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.device.type == device.type else _like(tensor, tensor.detach().to(device))


def _like(original: Tensor, content: Tensor) -> Tensor:
    """``content`` as a parameter where the original is one."""
    if isinstance(original, nn.Parameter):
        return nn.Parameter(content, requires_grad=original.requires_grad)
    return content
