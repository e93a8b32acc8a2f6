"""Tiny random checkpoints: a, b and c share everything but their weights; the others each differ in what they say."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Place
from tests import ldm_layout as layout


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a, b, c (one shared config), sub/wide (other context width), xl (SDXL), inpaint (9 channels), velocity."""
    folder = tmp_path_factory.mktemp("checkpoints")
    words = layout.save_clip_folder(folder / "clip")
    layout.save_config(folder / "tiny.yaml", layout.TINY_SD1)
    for seed, name in enumerate("abc"):
        shapes = layout.sd1_shapes(layout.TINY_SD1, layout.TINY_CLIP, words)
        layout.save(folder / f"{name}.safetensors", shapes, seed)

    wide = copy.deepcopy(layout.TINY_SD1)
    wide["model"]["params"]["unet_config"]["params"]["context_dim"] = 64
    wide_clip = layout.TINY_CLIP | {"hidden_size": 64, "num_attention_heads": 1}
    (folder / "sub").mkdir()
    layout.save_clip_folder(folder / "sub" / "clip", wide_clip)
    layout.save_config(folder / "sub" / "wide.yaml", wide)
    layout.save(folder / "sub" / "wide.safetensors", layout.sd1_shapes(wide, wide_clip, words), 3)

    inpaint = copy.deepcopy(layout.TINY_SD1)
    inpaint["model"]["params"]["unet_config"]["params"]["in_channels"] = 9
    layout.save_config(folder / "inpaint.yaml", inpaint)
    layout.save(folder / "inpaint.safetensors", layout.sd1_shapes(inpaint, layout.TINY_CLIP, words), 4)

    velocity = copy.deepcopy(layout.TINY_SD1)
    velocity["model"]["params"]["parameterization"] = "v"
    layout.save_config(folder / "velocity.yaml", velocity)
    layout.save(folder / "velocity.safetensors", layout.sd1_shapes(velocity, layout.TINY_CLIP, words), 0)

    xl = layout.tiny_sdxl()
    layout.save_config(folder / "xl.yaml", xl)
    layout.save(folder / "xl.safetensors", layout.sdxl_shapes(xl, layout.TINY_CLIP, layout.TINY_CLIP, words), 5)
    return folder


@pytest.fixture(scope="session")
def store() -> Checkpoints:
    """Loaded checkpoints, shared by all tests: nothing may change them."""
    return Checkpoints(Place("cpu", torch.float32))
