"""Which checkpoints one module of the host can answer for, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from modules import devices, sd_models, sd_models_config, sd_unet

from multipass.cache.weights import Weights
from multipass.hosts.webui import files
from multipass.hosts.webui.files import Version

_SDXL_NOT_SSD = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"


class _Shape(NamedTuple):
    """What two checkpoints must agree in to be answered for by one module."""

    config: str
    has_ssd_key: bool


_shapes: dict[Version, _Shape] = {}


def suits(model: Any) -> bool:
    """Whether the tensors of the host's module are all there is to a checkpoint, and where they should be."""
    return (
        hasattr(sd_models, "load_model_weights")
        and getattr(model, "sd_checkpoint_info", None) is not None
        and not hasattr(model, "forge_objects")
        and not model.lowvram
        and not model.is_sd3  # which loads its text encoders from files of their own
        and not devices.fp8
        and sd_unet.current_unet is None
    )


def fits(info: Any, model: Any) -> bool:
    """Whether the module can answer for the checkpoint, as far as that is known without reading its numbers.

    Raises OSError, with the file's name.
    """
    shape = _shapes.get(Version.of(info.filename))
    if shape is None:
        outline = files.outline(info)
        return outline is None or is_of(outline, info, model)
    return _same(shape, model)


def is_of(tensors: Weights, info: Any, model: Any) -> bool:
    """The same, of the checkpoint's tensors as the host names them."""
    found = _Shape(sd_models_config.find_checkpoint_config(tensors, info), _SDXL_NOT_SSD in tensors)
    _shapes[Version.of(info.filename)] = found
    return _same(found, model)


def _same(shape: _Shape, model: Any) -> bool:
    """Checkpoints with a config file each, of equal content, have one architecture, although the host would build it
    anew. SSD-1B has SDXL's config, and the host takes blocks out of the module for it."""
    if model.is_ssd or (model.is_sdxl and not shape.has_ssd_key):
        return False
    one, other = shape.config, model.used_config
    return one == other or Path(one).read_bytes() == Path(other).read_bytes()
