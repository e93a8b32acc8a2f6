"""A checkpoint file as the host takes it, with as little of it read as will do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from modules import sd_models, sd_models_config
from modules.timer import Timer
from torch import Tensor

from multipass.cache import header, reader, weights
from multipass.cache.weights import Weights

UNET = "model.diffusion_model."
COMPONENTS = {"unet": UNET, "vae": "first_stage_model.", "text_encoder": ("cond_stage_model.", "conditioner.")}
Advanced = Callable[[int], None]
"""Is told the bytes that were read."""


class Version(NamedTuple):
    """A file as it was at some time: replaced by another, it is another."""

    file: str
    modified_ns: int
    size: int

    @classmethod
    def of(cls, file: str) -> Version:
        """As it is now; of a file that is gone nothing but its name is known."""
        try:
            stat = Path(file).stat()
        except OSError:
            return cls(file, 0, 0)
        return cls(file, stat.st_mtime_ns, stat.st_size)


class ReplacedError(OSError):
    """A file that is not any more what was read of it before; the text is fit for people."""


def outline(info: Any) -> dict[str, Tensor] | None:
    """The checkpoint's tensors by the names the host gives them, on torch's ``meta`` device: shapes without numbers.

    ``None`` where the host has to see the numbers to know what it is, or where they are not in a safetensors file.
    Raises OSError, with the file's name.
    """
    if not _is_safetensors(info):
        return None
    found = {
        name: torch.empty(tensor.shape, dtype=reader.DTYPES.get(tensor.dtype), device="meta")
        for name, tensor in _header(info.filename).items()
    }
    named = sd_models.get_state_dict_from_checkpoint(found)
    by_its_numbers = sd_models.sd2_clip_weight in named and not _has_config(info)
    return None if by_its_numbers else named


def without_unet(info: Any, outlined: Weights, advanced: Advanced) -> dict[str, Tensor]:
    """All of a safetensors file as the host takes it, the UNet's tensors as its outline has them."""
    names = [name for name in _header(info.filename) if not name.startswith(UNET)]
    return {**outlined, **sd_models.get_state_dict_from_checkpoint(_read(info.filename, names, advanced))}


def whole(info: Any, advanced: Advanced) -> dict[str, Tensor]:
    """All of a file as the host takes it, in memory that is nobody else's."""
    if _is_safetensors(info):
        return sd_models.get_state_dict_from_checkpoint(_read(info.filename, None, advanced))
    cached = info in sd_models.checkpoints_loaded  # where a setting of the host keeps what it reads
    found = sd_models.get_checkpoint_state_dict(info, Timer())
    return {name: tensor.clone() for name, tensor in found.items()} if cached else found


def unet(version: Version, wanted: Weights, advanced: Advanced, unwanted: threading.Event | None = None) -> Weights:
    """The UNet's tensors, each as ``wanted`` has it on the ``meta`` device: its type, its strides, a parameter or not.

    Raises:
        ReplacedError: if the file is not that version any more.
        OSError: if it cannot be read.
        reader.Cancelled: if it was ``unwanted``.
    """
    if Version.of(version.file) != version:
        raise ReplacedError(f"{version.file} was replaced or removed while a picture was made with it")
    there = _header(version.file)
    as_it_is = all(reader.DTYPES.get(there[name].dtype) == like.dtype for name, like in wanted.items() if name in there)
    return weights.cast_to(wanted, _read(version.file, wanted.keys(), advanced, unwanted, registered=as_it_is))


def nbytes(version: Version, names: Collection[str]) -> int:
    """What these take in the file. Raises OSError."""
    there = _header(version.file)
    return sum(there[name].data_offsets[1] - there[name].data_offsets[0] for name in names if name in there)


def _header(file: str) -> dict[str, header.Tensor]:
    try:
        return header.read(file)
    except header.HeaderError as error:
        raise OSError(f"{file} cannot be read: {error}") from None


def _read(
    file: str,
    names: Collection[str] | None,
    advanced: Advanced,
    unwanted: threading.Event | None = None,
    *,
    registered: bool = False,
) -> dict[str, Tensor]:
    """Raises OSError, which is what a host expects where a file cannot be read."""
    try:
        return reader.read(file, names, apart=_is_vae, advanced=advanced, cancelled=unwanted, registered=registered)
    except reader.ReadError as error:
        raise OSError(f"{file} cannot be read: {error}") from None


def _is_vae(name: str) -> bool:
    """Checkpoints often have their VAE in common: then one of them is let go of by itself."""
    return name.startswith("first_stage_model.")


def _is_safetensors(info: Any) -> bool:
    return Path(info.filename).suffix.lower() == ".safetensors"


def _has_config(info: Any) -> bool:
    return sd_models_config.find_checkpoint_config_near_filename(info) is not None
