"""What a plan's checkpoints take: where each is now, and whether all of them have room. Only told."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import torch
from modules import devices

from multipass.cache import header, reader
from multipass.cache.store import Tier
from multipass.hosts.webui import compat, keys, settings
from multipass.hosts.webui.files import COMPONENTS, UNET, Version
from multipass.hosts.webui.models import cache
from multipass.manifest import Source
from multipass.problems import Problem

_GB = settings.GB
_UNUSED = "model_ema."  # training's, which the host leaves in the file


class CheckpointCost(msgspec.Struct, frozen=True):
    """One checkpoint of a plan: the passes that sample with it, where it is, and the bytes that it takes."""

    checkpoint: str
    passes: tuple[int, ...]
    source: Source
    nbytes: int


class Room(msgspec.Struct, frozen=True):
    """What a memory would have to hold so that nothing is moved twice, and what it may."""

    needed_bytes: int
    budget_bytes: int
    fits: bool


class Cost(msgspec.Struct, frozen=True):
    """Of a whole plan, the model in place included. ``vram`` is ``None`` where the host decides what is there."""

    checkpoints: tuple[CheckpointCost, ...]
    ram: Room
    vram: Room | None


class _Size(NamedTuple):
    """Bytes of a checkpoint as it is computed with, and of its UNet alone."""

    whole: int
    unet: int


def of(infos: Mapping[int, Any]) -> Cost:
    """The cost of a plan whose passes sample with these checkpoints, by index."""
    live = compat.loaded()
    passes: dict[str, tuple[int, ...]] = {}
    for index, info in sorted(infos.items()):
        passes[info.filename] = (*passes.get(info.filename, ()), index)
    distinct = {info.filename: info for info in infos.values()}
    sizes = {file: _size(file, of_live=live is not None and file == live.filename) for file in distinct}
    told = [CheckpointCost(own.short_title, passes[f], _source(f), sizes[f].whole) for f, own in distinct.items()]
    in_place = _size(live.filename, of_live=True) if live is not None else _Size(0, 0)
    others = [size for file, size in sizes.items() if live is None or file != live.filename]
    on_cpu = devices.device.type == "cpu"
    ram = in_place.whole + sum(size.whole for size in others)
    vram = in_place.whole + sum(size.unet for size in others)
    return Cost(
        tuple(told),
        _room(ram, cache.ram, settings.ram_budget, in_place.whole if on_cpu else 0),
        None if on_cpu or compat.IS_FORGE_FAMILY else _room(vram, cache.vram, settings.vram_budget, in_place.whole),
    )


def warnings(cost: Cost) -> Iterator[Problem]:
    """Where there is no room, and what follows."""
    rooms = (cost.ram, "RAM", "is read from disk again"), (cost.vram, "VRAM", "comes from RAM again")
    for room, memory, consequence in rooms:
        if room is not None and not room.fits:
            told = (
                f"the checkpoints take {room.needed_bytes / _GB:.1f} GB of {memory}, {room.budget_bytes / _GB:.1f} GB"
            )
            yield Problem("", f"{told} are for them (Settings > Multipass): what has no room {consequence}")


def _room(needed: int, tier: Tier, budget: Any, in_place: int) -> Room:
    """``in_place``: bytes of the host's model there, which the tier counts only while it is used for a plan."""
    allowed = budget(tier.held + (0 if tier.outside else in_place))
    return Room(needed, allowed, needed <= allowed)


def _source(file: str) -> Source:
    live = compat.loaded()
    if (live is not None and live.filename == file) or _is_in(cache.vram, file):
        return Source.RESIDENT
    return Source.RAM if _is_in(cache.ram, file) or file in compat.kept() else Source.DISK


def _is_in(tier: Tier, file: str) -> bool:
    """Its UNet, that is: texts are encoded without."""
    version = Version.of(file)
    return any(keys.version_of(entry.key) == version for entry in tier.entries() if entry.component == "unet")


def _size(file: str, *, of_live: bool) -> _Size:
    fp8 = settings.stores_fp8() and not of_live and not compat.IS_FORGE_FAMILY
    return _size_of(Version.of(file), devices.dtype, devices.dtype_vae, fp8)


@functools.lru_cache(maxsize=256)
def _size_of(version: Version, dtype: torch.dtype, of_vae: torch.dtype, fp8: bool) -> _Size:
    """From the file's header, the numbers in the precision that the host computes with; of another file its length."""
    try:
        there = header.read(version.file)
    except header.HeaderError:
        return _Size(version.size, version.size)
    whole = unet = 0
    for name, tensor in there.items():
        if name.startswith(_UNUSED):
            continue
        is_unet = name.startswith(UNET)
        begin, end = tensor.data_offsets
        stored = reader.DTYPES.get(tensor.dtype)
        nbytes = end - begin
        if stored is not None and stored.is_floating_point and stored.itemsize > 1:
            as_byte = fp8 and is_unet and len(tensor.shape) > 1
            used = of_vae if name.startswith(COMPONENTS["vae"]) else dtype
            nbytes = math.prod(tensor.shape) * (1 if as_byte else used.itemsize)
        whole += nbytes
        unet += nbytes if is_unet else 0
    return _Size(whole, unet)
