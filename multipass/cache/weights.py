"""A module's tensors as a value: taken out, pointed at again, made its own. Switching weights moves no byte.

A module that answers for one checkpoint answers for another of the same architecture as soon as its parameters and
buffers are the other's tensors. Whoever holds the module (patches of other extensions, an attention optimisation, token
merging) notices nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
"""Every parameter and buffer of a module, by name."""

_WRAPPED = ".wrapped"


def held(module: nn.Module, *, under: str = "") -> Weights:
    """The module's tensors themselves, not copies, wherever they are.

    Args:
        under: only names that begin with this.
    """
    return {name: owner[key] for name, owner, key in _slots(module) if name.startswith(under)}


def take(module: nn.Module, *, under: str = "") -> Weights:
    """As ``held``, but copies in RAM of what is on another device."""
    return {name: _in_ram(tensor) for name, tensor in held(module, under=under).items()}


def split(weights: Weights, prefixes: Mapping[str, str | tuple[str, ...]]) -> dict[str, Weights]:
    """By component: those that begin with its prefix, or one of them; what begins with none is ``other``."""
    found: dict[str, dict[str, Tensor]] = {component: {} for component in (*prefixes, "other")}
    for name, tensor in weights.items():
        own = next((component for component, prefix in prefixes.items() if name.startswith(prefix)), "other")
        found[own][name] = tensor
    return {**found}


def nbytes(weights: Weights) -> int:
    """What they take; on the ``meta`` device, what they would take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


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
            if not weights[name].is_meta:
                owner[key] = _on(weights[name], device)
            placed.add(name)
    lost = sorted(weights.keys() - placed)
    if lost:
        raise RuntimeError(f"{len(lost)} tensors of the checkpoint have no place in the model, {lost[0]} first")


def detach(module: nn.Module, *, under: str = "", but: Collection[str] = ()) -> None:
    """Give the module copies of its tensors, of its own: what is written into them reaches nobody else's.

    Args:
        under: only names that begin with this.
        but: not these.
    """
    for name, owner, key in _slots(module):
        if name.startswith(under) and name not in but:
            tensor: Tensor = owner[key]
            owner[key] = _like(tensor, tensor.detach().clone())


@contextmanager
def taking_in(module: nn.Module) -> Generator[None]:
    """While this lasts, ``module.load_state_dict`` takes the tensors it is given, cast to what is there, and copies
    none into what is there, which may be somebody else's. What it is not given is a copy of its own afterwards.
    """
    original = module.load_state_dict

    def load_state_dict(state_dict: Weights, strict: bool = True, **_: Any) -> Any:
        there = held(module)
        detach(module, but=state_dict.keys())
        cast_to = {
            name: tensor.to(there[name].dtype) if name in there else tensor for name, tensor in state_dict.items()
        }
        return original(cast_to, strict=strict, assign=True)

    vars(module)["load_state_dict"] = load_state_dict
    try:
        yield
    finally:
        del vars(module)["load_state_dict"]


def as_in(wanted: Tensor, content: Tensor) -> Tensor:
    """``content`` with the type and the strides of ``wanted``, and a parameter where that is one."""
    if (content.dtype, content.stride()) != (wanted.dtype, wanted.stride()):
        content = _fresh(wanted).copy_(content)
    return _like(wanted, content)


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


def _fresh(like: Tensor) -> Tensor:
    """Memory in RAM for such a tensor. NumPy's comes in larger pages than torch's, see ``reader``."""
    reach = 1 + sum((extent - 1) * step for extent, step in zip(like.shape, like.stride(), strict=True))
    if not like.numel():
        return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
    buffer = torch.frombuffer(np.empty(reach * like.element_size(), np.uint8), dtype=torch.uint8)
    return buffer.view(like.dtype).as_strided(like.shape, like.stride())


def _in_ram(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type in ("cpu", "meta") else _like(tensor, tensor.detach().cpu())


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.device.type == device.type else _like(tensor, tensor.detach().to(device))


def _like(original: Tensor, content: Tensor) -> Tensor:
    """``content`` as a parameter where the original is one."""
    if isinstance(original, nn.Parameter):
        return nn.Parameter(content, requires_grad=original.requires_grad)
    return content
