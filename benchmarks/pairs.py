"""Two checkpoints to switch between, in the sizes that the benchmark of the switch has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from multipass.hosts.standalone.originals import ORIGINALS
from multipass.kinds import Family
from tests import ldm_layout as layout
from tests.webui import checkpoints
from tests.webui.host import Install

# OpenAI's ViT-L/14, which SD 1.x has
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VOCABULARY = 49408


class Pair(NamedTuple):
    """Two checkpoints, and what is rendered with them.

    Attributes:
        make: fills a folder with them and gives the config that they share.
        request: one picture, without its size in steps.
        early, late: of the steps, after how many the second takes over: soon, and long after it could have been read.
        long: steps of a picture in which the cost of one shows.
    """

    first: str
    second: str
    make: Callable[[Install, Path], Path]
    request: dict[str, Any]
    steps: int
    early: int
    late: int
    long: int


def _demo(_: Install, folder: Path) -> Path:
    return checkpoints.make(folder)


def _sd1(install: Install, folder: Path) -> Path:
    """SD 1.5's true sizes, random: their pictures are noise, but a number costs what it costs."""
    folder.mkdir(parents=True)
    (folder.parent / "loras").mkdir()
    for seed, name in enumerate(("one", "two")):
        layout.save(folder / f"{name}.safetensors", layout.sd1_shapes(ORIGINALS[Family.SD1], CLIP_L, VOCABULARY), seed)
    clip = folder.parent / "clip"
    shutil.copytree(checkpoints.DEMO / "clip", clip)
    sizes = json.loads((clip / "config.json").read_text()) | CLIP_L | {"projection_dim": CLIP_L["hidden_size"]}
    (clip / "config.json").write_text(json.dumps(sizes))
    config = yaml.safe_load((install.folder / "configs/v1-inference.yaml").read_text())
    config["model"]["params"]["cond_stage_config"]["params"] = {"version": str(clip)}
    return layout.save_config(folder.parent / "sd1.yaml", config)


_PICTURE = {"prompt": "a red apple", "negative_prompt": "a bus", "seed": 7, "cfg_scale": 4, "sampler_name": "Euler"}

PAIRS = {
    "demo": Pair("soft", "ink", _demo, {**_PICTURE, "width": 128, "height": 128}, steps=20, early=1, late=10, long=150),
    "sd1": Pair("one", "two", _sd1, {**_PICTURE, "width": 64, "height": 64}, steps=3, early=1, late=2, long=10),
}
