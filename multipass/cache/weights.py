"""A module's tensors as a value: taken out, pointed at again, made its own. Switching weights moves no byte.

A module that answers for one checkpoint answers for another of the same architecture as soon as its parameters and
buffers are the other's tensors. Whoever holds the module (patches of other extensions, an attention optimisation, token
merging) notices nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from multipass.cache import memory

Weights = Mapping[str, Tensor]
"""Every parameter and buffer of a module, by name."""

_WRAPPED = ".wrapped"
_FP8 = torch.float8_e4m3fn
_PIECE, _ALIGNED = 256 << 20, 64  # bytes


def held(module: nn.Module, *, under: str = "") -> Weights:
    """The module's tensors themselves, not copies, wherever they are.

    Args:
        under: only names that begin with this.
    """
    return {name: owner[key] for name, owner, key in _slots(module) if name.startswith(under)}


def take(module: nn.Module, *, under: str = "") -> Weights:
    """As ``held``, but copies in RAM of what is on another device."""
    there = held(module, under=under)
    elsewhere = {name: tensor for name, tensor in there.items() if tensor.device.type not in ("cpu", "meta")}
    place = _Place(nbytes(elsewhere))
    copies = {name: _like(tensor, place.of(tensor).copy_(tensor.detach())) for name, tensor in elsewhere.items()}
    place.register()
    return {**there, **copies}


def copied_beside(weights: Weights, device: torch.device) -> Weights:
    """Copies on a GPU, made beside what is computed there; back when they are complete.

    What is computed may still read memory that was let go of a moment ago, and the copies may get just that: so they
    begin after all that was asked of the GPU before.
    """
    beside = torch.cuda.Stream(device)
    with torch.cuda.stream(beside):
        there = {name: torch.empty_like(tensor, device=device) for name, tensor in weights.items()}
        beside.wait_stream(torch.cuda.default_stream(device))
        for name, tensor in weights.items():
            there[name].copy_(tensor.detach(), non_blocking=True)
    beside.synchronize()
    return {name: _like(weights[name], tensor) for name, tensor in there.items()}


def as_fp8(contents: dict[str, Tensor]) -> Weights:
    """Every matrix and every kernel in a byte a number, nearest to what it was: three bits of it stay.

    Args:
        contents: is empty afterwards: each is let go of when its copy is there.
    """
    place = _Place(sum(tensor.numel() for tensor in contents.values() if _is_matrix(tensor)))
    found: dict[str, Tensor] = {}
    for name in list(contents):
        content = contents.pop(name)
        found[name] = content
        if _is_matrix(content):
            form = torch.empty_strided(content.shape, content.stride(), dtype=_FP8, device="meta")
            most = torch.finfo(_FP8).max  # what is beyond would become not-a-number
            found[name] = _like(content, place.of(form).copy_(content.detach().clamp(-most, most)))
    place.register()
    return found


def has_fp8(weights: Weights) -> bool:
    """Whether ``as_fp8`` has made some of it."""
    return any(tensor.dtype == _FP8 for tensor in weights.values())


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


def point(module: nn.Module, weights: Weights, device: torch.device, forms: Weights = MappingProxyType({})) -> None:
    """Make the module's tensors those of ``weights``: themselves where they are on ``device``, else copies there.

    What ``weights`` does not name stays: it is not the checkpoint's. One tensor at a time, so that a device never holds
    two sets; if its memory runs out on the way, what is not there yet is in RAM, and nothing is lost.

    Args:
        forms: by name the type that a tensor gets on the way, where it is stored in another one.

    Raises:
        RuntimeError: if a tensor has no place in the module; the others are in theirs.
    """
    placed: set[str] = set()
    for name, owner, key in _slots(module):
        if name in weights:
            owner[key] = weights[name]  # lets go of the old one before the new one takes room
            if not weights[name].is_meta:
                owner[key] = _of_type(_on(weights[name], device), forms.get(name))
            placed.add(name)
    lost = sorted(weights.keys() - placed)
    if lost:
        raise RuntimeError(f"{len(lost)} tensors of the checkpoint have no place in the model, {lost[0]} first")


def detach(module: nn.Module, *, under: str = "", but: Collection[str] = ()) -> None:
    """Give the module copies of its tensors, of its own: what is written into them reaches nobody else's. What has no
    numbers gets some, but no particular ones.

    Args:
        under: only names that begin with this.
        but: not these.
    """
    for name, owner, key in _slots(module):
        if name.startswith(under) and name not in but:
            tensor: Tensor = owner[key]
            own = torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor.detach().clone()
            owner[key] = _like(tensor, own)


@contextmanager
def taking_in(module: nn.Module) -> Generator[None]:
    """While this lasts, ``module.load_state_dict`` takes the tensors it is given, cast to what is there, and copies
    none into what is there, which may be somebody else's. What it is not given is a copy of its own afterwards.
    """
    original = module.load_state_dict

    def load_state_dict(state_dict: Weights, strict: bool = True, **_: Any) -> Any:
        there = held(module)
        detach(module, but=state_dict.keys())
        ready = {name: tensor for name, tensor in state_dict.items() if name not in there}
        ready |= {
            name: tensor.to(there[name].dtype)
            for name, tensor in state_dict.items()
            if tensor.is_meta and name in there
        }
        wanted = {name: there[name] for name in state_dict.keys() - ready.keys()}
        ready |= cast_to(wanted, {name: state_dict[name] for name in wanted})
        return original(ready, strict=strict, assign=True)

    vars(module)["load_state_dict"] = load_state_dict
    try:
        yield
    finally:
        del vars(module)["load_state_dict"]


def as_in(wanted: Tensor, content: Tensor) -> Tensor:
    """``content`` with the type and the strides of ``wanted``, and a parameter where that is one."""
    return cast_to({"": wanted}, {"": content})[""]


def cast_to(wanted: Weights, contents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each with the type and the strides that ``wanted`` has by its name, and a parameter where that is one.

    Args:
        contents: is empty afterwards: what is cast is let go of one by one.
    """
    place = _Place(
        sum(nbytes({name: wanted[name]}) for name, tensor in contents.items() if not _fits(tensor, wanted[name]))
    )
    found: dict[str, Tensor] = {}
    for name in list(contents):
        content, like = contents.pop(name), wanted[name]
        found[name] = _like(like, content if _fits(content, like) else place.of(like).copy_(content))
    place.register()
    return found


class _Place:
    """New memory for many tensors, in large pieces."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._pieces = [memory.fresh(0)]
        self._used = 0

    def of(self, like: Tensor) -> Tensor:
        """Without particular numbers."""
        size = nbytes({"": like})
        if not size:
            return torch.empty(like.shape, dtype=like.dtype)
        if self._used + size > self._pieces[-1].nbytes:
            self._pieces.append(memory.fresh(max(min(self._left, _PIECE), size)))
            self._used = 0
        flat = torch.frombuffer(self._pieces[-1], dtype=like.dtype, count=like.numel(), offset=self._used)
        self._used += -(-size // _ALIGNED) * _ALIGNED
        self._left -= size
        return flat.as_strided(like.shape, like.stride())

    def register(self) -> None:
        """Once all of it is written to."""
        for piece in self._pieces:
            memory.register(piece)


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 1 and tensor.element_size() > 1


def _fits(tensor: Tensor, wanted: Tensor) -> bool:
    """What has another shape is for the module to refuse."""
    return tensor.shape != wanted.shape or (tensor.dtype == wanted.dtype and tensor.stride() == wanted.stride())


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


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    """On CUDA without waiting, where the memory allows that: what is computed there next comes after it."""
    if tensor.device.type == device.type:
        return tensor
    return _like(tensor, tensor.detach().to(device, non_blocking=device.type == "cuda"))


def _of_type(tensor: Tensor, form: Tensor | None) -> Tensor:
    return tensor if form is None or form.dtype == tensor.dtype else _like(tensor, tensor.detach().to(form.dtype))


def _like(original: Tensor, content: Tensor) -> Tensor:
    """``content`` as a parameter where the original is one."""
    if isinstance(original, nn.Parameter):
        return nn.Parameter(content, requires_grad=original.requires_grad)
    return content
