"""Random checkpoints of the families beside SD 1.x, small and complete, in the sizes that AUTOMATIC1111 can be told."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests import ldm_layout as layout
from tests.webui.checkpoints import DEMO

VOCABULARY = 49408
OPEN_CLIP = "multipass-tiny"
_WIDTH = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3}
_CLIP = json.loads((DEMO / "clip/config.json").read_text())
_SIZES = 256  # the width of one embedded number: SDXL is told sizes and places in pixels


def make(folder: Path) -> None:
    """Add to ``folder``:

    - ``velocity``: the SD 1.x checkpoint ``noise1``, whose UNet's answer is to be read as a velocity; by its config.
    - ``two`` and ``two_v``: SD 2.x, predicting noise and velocity; each by its config.
    - ``xl``, ``xl_other``: SDXL, of which the probe tells the host the config; ``xl_v``: one that predicts velocity.
    - ``xl_refiner``: SDXL's refiner, by its config.

    The probe also reads what is written beside the folder: ``sdxl.yaml`` and the sizes of the text encoder.
    """
    shutil.copy(folder / "noise1.safetensors", folder / "velocity.safetensors")
    demo = yaml.safe_load((folder.parent / "demo.yaml").read_text())
    layout.save_config(folder / "velocity.yaml", _predicting_v(demo))

    sizes = {"image_size": 224, "layers": 1, "width": 64, "patch_size": 32}
    texts = {"context_length": 77, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 3}
    (folder.parent / "open_clip").mkdir()
    (folder.parent / f"open_clip/{OPEN_CLIP}.json").write_text(
        json.dumps({"embed_dim": 32, "vision_cfg": sizes, "text_cfg": texts})
    )

    two = _sd2()
    for seed, (name, config) in enumerate({"two": two, "two_v": _predicting_v(two)}.items()):
        layout.save_config(folder / f"{name}.yaml", config)
        layout.save(folder / f"{name}.safetensors", layout.sd2_shapes(config, _WIDTH, VOCABULARY), seed)

    xl, refiner = _sdxl(), _sdxl_refiner()
    layout.save_config(folder.parent / "sdxl.yaml", xl)
    layout.save_config(folder / "xl_v.yaml", _scaling_v(xl))
    layout.save_config(folder / "xl_refiner.yaml", refiner)
    for seed, name in enumerate(("xl", "xl_other", "xl_v")):
        layout.save(folder / f"{name}.safetensors", layout.sdxl_shapes(xl, _CLIP, _WIDTH, VOCABULARY), seed)
    shapes = layout.sdxl_refiner_shapes(refiner, _WIDTH, VOCABULARY)
    layout.save(folder / "xl_refiner.safetensors", shapes, 3)


def _predicting_v(config: Mapping[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(dict(config))
    config["model"]["params"]["parameterization"] = "v"
    return config


def _scaling_v(config: Mapping[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(dict(config))
    scaling = config["model"]["params"]["denoiser_config"]["params"]["scaling_config"]
    scaling["target"] = scaling["target"].replace("EpsScaling", "VScaling")
    return config


def _sd2() -> dict[str, Any]:
    config = copy.deepcopy(layout.TINY_SD1)
    unet = config["model"]["params"]["unet_config"]["params"]
    del unet["num_heads"]
    unet |= {"num_head_channels": 16, "use_linear_in_transformer": True, "context_dim": 32}
    config["model"]["params"]["cond_stage_config"] = {
        "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
        "params": {"arch": OPEN_CLIP, "freeze": True, "layer": "penultimate"},
    }
    return config


def _sdxl() -> dict[str, Any]:
    clip = {
        "input_key": "txt",
        "is_trainable": False,
        "target": "sgm.modules.encoders.modules.FrozenCLIPEmbedder",
        "params": {"version": str(DEMO / "clip"), "layer": "hidden", "layer_idx": _CLIP["num_hidden_layers"] - 1},
    }
    places = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    context = _CLIP["hidden_size"] + _WIDTH["hidden_size"]
    return _sgm([clip, _open_clip(), *map(_numbers, places)], context, _WIDTH["hidden_size"] + 6 * _SIZES)


def _sdxl_refiner() -> dict[str, Any]:
    told = ("original_size_as_tuple", "crop_coords_top_left", "aesthetic_score")
    width = _WIDTH["hidden_size"]
    return _sgm([_open_clip(), *map(_numbers, told)], width, width + 5 * _SIZES)


def _open_clip() -> dict[str, Any]:
    return {
        "input_key": "txt",
        "is_trainable": False,
        "target": "sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2",
        "params": {
            "arch": OPEN_CLIP,
            "freeze": True,
            "layer": "penultimate",
            "always_return_pooled": True,
            "legacy": False,
        },
    }


def _numbers(key: str) -> dict[str, Any]:
    target = "sgm.modules.encoders.modules.ConcatTimestepEmbedderND"
    return {"input_key": key, "is_trainable": False, "target": target, "params": {"outdim": _SIZES}}


def _sgm(embedders: list[dict[str, Any]], context: int, added: int) -> dict[str, Any]:
    """As the host's ``sd_xl_base.yaml``."""
    tiny = layout.tiny_sdxl()["model"]["params"]
    modules = "sgm.modules.diffusionmodules"
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{modules}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{modules}.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{modules}.discretizer.LegacyDDPMDiscretization"},
    }
    unet = tiny["network_config"]["params"] | {
        "context_dim": context,
        "adm_in_channels": added,
        "spatial_transformer_attn_type": "softmax-xformers",
    }
    del unet["image_size"]
    vae = tiny["first_stage_config"] | {"target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper"}
    return {
        "model": {
            "target": "sgm.models.diffusion.DiffusionEngine",
            "params": {
                "scale_factor": 0.13025,
                "disable_first_stage_autocast": True,
                "denoiser_config": {"target": f"{modules}.denoiser.DiscreteDenoiser", "params": denoiser},
                "network_config": {"target": f"{modules}.openaimodel.UNetModel", "params": unet},
                "conditioner_config": {
                    "target": "sgm.modules.GeneralConditioner",
                    "params": {"emb_models": embedders},
                },
                "first_stage_config": vae,
            },
        }
    }
