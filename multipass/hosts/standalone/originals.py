"""The original configs of the two usual sizes, as far as diffusers reads them.

They are the widely published ``v1-inference.yaml`` and ``sd_xl_base.yaml``, here so that no network is needed.
"""

from __future__ import annotations

from typing import Any

from multipass.kinds import Family

_VAE = {
    "params": {
        "embed_dim": 4,
        "ddconfig": {
            "double_z": True,
            "z_channels": 4,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 128,
            "ch_mult": [1, 2, 4, 4],
            "num_res_blocks": 2,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }
}

ORIGINALS: dict[Family, dict[str, Any]] = {
    Family.SD1: {
        "model": {
            "params": {
                "scale_factor": 0.18215,
                "unet_config": {
                    "params": {
                        "in_channels": 4,
                        "out_channels": 4,
                        "model_channels": 320,
                        "attention_resolutions": [4, 2, 1],
                        "num_res_blocks": 2,
                        "channel_mult": [1, 2, 4, 4],
                        "num_heads": 8,
                        "use_spatial_transformer": True,
                        "transformer_depth": 1,
                        "context_dim": 768,
                    }
                },
                "first_stage_config": _VAE,
            }
        }
    },
    Family.SDXL: {
        "model": {
            "params": {
                "scale_factor": 0.13025,
                "network_config": {
                    "params": {
                        "adm_in_channels": 2816,
                        "num_classes": "sequential",
                        "in_channels": 4,
                        "out_channels": 4,
                        "model_channels": 320,
                        "attention_resolutions": [4, 2],
                        "num_res_blocks": 2,
                        "channel_mult": [1, 2, 4],
                        "num_head_channels": 64,
                        "use_linear_in_transformer": True,
                        "use_spatial_transformer": True,
                        "transformer_depth": [1, 2, 10],
                        "context_dim": 2048,
                    }
                },
                "first_stage_config": _VAE,
            }
        }
    },
}
