"""Random checkpoints for ControlNet: with SD 1.x's blocks, since it goes by their number and widths."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from tests import ldm_layout as layout
from tests.webui.checkpoints import DEMO, random_lora

VOCABULARY = 49408
WIDTH = 32
UNET = {"model_channels": WIDTH, "channel_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attention_resolutions": [4, 2, 1]}


def make(folder: Path) -> Path:
    """Fill ``folder`` with soft, ink, and ``other`` of another architecture by its config; beside it, for the first
    two, a network in ``loras`` and a T2I-Adapter in ``control``. Returns the config file that the first two share."""
    folder.mkdir(parents=True)
    config = yaml.safe_load((DEMO / "demo.yaml").read_text().replace("version: clip", f"version: {DEMO / 'clip'}"))
    clip = json.loads((DEMO / "clip/config.json").read_text())
    layout.save_config(folder / "other.yaml", config)
    layout.save(folder / "other.safetensors", layout.sd1_shapes(config, clip, VOCABULARY), 2)
    config["model"]["params"]["unet_config"]["params"] |= UNET
    for seed, name in enumerate(("soft", "ink")):
        layout.save(folder / f"{name}.safetensors", layout.sd1_shapes(config, clip, VOCABULARY), seed)
    for name in ("loras", "control"):
        (folder.parent / name).mkdir()
    random_lora(folder / "soft.safetensors", folder.parent / "loras/one.safetensors", 3)
    save_file(adapter(4), folder.parent / "control/adapter.safetensors")
    return layout.save_config(folder.parent / "sd1.yaml", config)


def adapter(seed: int) -> dict[str, torch.Tensor]:
    """A T2I-Adapter: it adds to the UNet's features, at four places, what it makes of a picture."""
    generator = torch.Generator().manual_seed(seed)
    widths = [WIDTH * factor for factor in (1, 2, 4, 4)]
    shapes = {"conv_in": (WIDTH, 3 * 8 * 8, 3)}
    for index, (before, width) in enumerate(zip([WIDTH, *widths], widths, strict=False)):
        if before != width:
            shapes[f"body.{2 * index}.in_conv"] = (width, before, 1)
        for block in (2 * index, 2 * index + 1):
            shapes |= {f"body.{block}.block1": (width, width, 3), f"body.{block}.block2": (width, width, 1)}
    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns, size) in shapes.items():
        noise = torch.randn(rows, columns, size, size, generator=generator)
        tensors[f"{name}.weight"] = noise / math.sqrt(columns * size * size)
        tensors[f"{name}.bias"] = torch.zeros(rows)
    return tensors
