"""Stable Diffusion checkpoints of any size with random weights, in the layout that the webui and diffusers load.

The layouts are described by the original config they are loaded with, so a test can make a checkpoint of a few hundred
KB, and check the full sizes by their shapes alone.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

Shapes = Iterator[tuple[str, tuple[int, ...]]]

TINY_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}

TINY_SD1: dict[str, Any] = {
    "model": {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "linear_start": 0.00085,
            "linear_end": 0.0120,
            "num_timesteps_cond": 1,
            "log_every_t": 200,
            "timesteps": 1000,
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "image_size": 64,
            "channels": 4,
            "cond_stage_trainable": False,
            "conditioning_key": "crossattn",
            "monitor": "val/loss_simple_ema",
            "scale_factor": 0.18215,
            "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {
                    "image_size": 32,
                    "in_channels": 4,
                    "out_channels": 4,
                    "model_channels": 32,
                    "attention_resolutions": [1, 2],
                    "num_res_blocks": 1,
                    "channel_mult": [1, 2],
                    "num_heads": 4,
                    "use_spatial_transformer": True,
                    "transformer_depth": 1,
                    "context_dim": 32,
                    "use_checkpoint": False,
                    "legacy": False,
                },
            },
            "first_stage_config": {
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": {
                    "embed_dim": 4,
                    "monitor": "val/rec_loss",
                    "ddconfig": {
                        "double_z": True,
                        "z_channels": 4,
                        "resolution": 64,
                        "in_channels": 3,
                        "out_ch": 3,
                        "ch": 32,
                        "ch_mult": [1, 1, 1, 1],
                        "num_res_blocks": 1,
                        "attn_resolutions": [],
                        "dropout": 0.0,
                    },
                    "lossconfig": {"target": "torch.nn.Identity"},
                },
            },
            "cond_stage_config": {
                "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                "params": {"version": "clip"},
            },
        },
    }
}


def tiny_sdxl() -> dict[str, Any]:
    """SDXL's layout: linear projections, an added embedding of pooled text and sizes, two text encoders."""
    config = copy.deepcopy(TINY_SD1)
    params = config["model"]["params"]
    unet = params.pop("unet_config")["params"]
    del unet["num_heads"]
    params["scale_factor"] = 0.13025
    params["network_config"] = {
        "params": unet
        | {
            "attention_resolutions": [2],
            "num_head_channels": 16,
            "use_linear_in_transformer": True,
            "transformer_depth": [1, 2],
            "context_dim": 64,
            "num_classes": "sequential",
            "adm_in_channels": 32 + 6 * 256,
        }
    }
    del params["cond_stage_config"]
    clips = [{"params": {"version": "clip"}}, {"params": {"version": "clip"}}]
    params["conditioner_config"] = {"params": {"emb_models": clips}}
    return config


def sd1_shapes(config: Mapping[str, Any], clip: Mapping[str, int], vocabulary: int) -> Shapes:
    """Every tensor of an SD 1.x checkpoint."""
    params = config["model"]["params"]
    yield from _prefixed("model.diffusion_model.", unet_shapes(params["unet_config"]["params"]))
    yield from _prefixed("first_stage_model.", vae_shapes(params["first_stage_config"]["params"]))
    yield from _prefixed("cond_stage_model.transformer.text_model.", clip_shapes(clip, vocabulary))


def sd2_shapes(config: Mapping[str, Any], open_clip: Mapping[str, int], vocabulary: int) -> Shapes:
    """Every tensor of an SD 2.x checkpoint."""
    params = config["model"]["params"]
    yield from _prefixed("model.diffusion_model.", unet_shapes(params["unet_config"]["params"]))
    yield from _prefixed("first_stage_model.", vae_shapes(params["first_stage_config"]["params"]))
    yield from _prefixed("cond_stage_model.model.", open_clip_shapes(open_clip, vocabulary))


def sdxl_refiner_shapes(config: Mapping[str, Any], open_clip: Mapping[str, int], vocabulary: int) -> Shapes:
    """Every tensor of an SDXL refiner checkpoint."""
    params = config["model"]["params"]
    yield from _prefixed("model.diffusion_model.", unet_shapes(params["network_config"]["params"]))
    yield from _prefixed("first_stage_model.", vae_shapes(params["first_stage_config"]["params"]))
    yield from _prefixed("conditioner.embedders.0.model.", open_clip_shapes(open_clip, vocabulary))


def sdxl_shapes(
    config: Mapping[str, Any], clip: Mapping[str, int], open_clip: Mapping[str, int], vocabulary: int
) -> Shapes:
    """Every tensor of an SDXL checkpoint."""
    params = config["model"]["params"]
    yield from _prefixed("model.diffusion_model.", unet_shapes(params["network_config"]["params"]))
    yield from _prefixed("first_stage_model.", vae_shapes(params["first_stage_config"]["params"]))
    yield from _prefixed("conditioner.embedders.0.transformer.text_model.", clip_shapes(clip, vocabulary))
    yield from _prefixed("conditioner.embedders.1.model.", open_clip_shapes(open_clip, vocabulary))


def save(path: Path, shapes: Shapes, seed: int) -> Path:
    """Write a checkpoint with weights that keep signals in a sane range, half precision, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    save_file({name: _weight(name, shape, generator).half() for name, shape in shapes}, path)
    return path


def save_config(path: Path, config: Mapping[str, Any]) -> Path:
    """Write an original config."""
    path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    return path


def save_clip_folder(folder: Path, clip: Mapping[str, int] = TINY_CLIP) -> int:
    """Write a text encoder's folder, its vocabulary single bytes, and return the vocabulary's size."""
    folder.mkdir(parents=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i, _ in enumerate(others)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    ends = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": words[-1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(ends), encoding="utf-8")
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": len(words),
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": clip["hidden_size"],
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
        "pad_token_id": len(words) - 1,
        **clip,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return len(words)


def _weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return noise * 0.02  # not 0: a text encoder whose output has an exact zero mean is 0/0 in prompt emphasis
    if len(shape) == 1:
        return 1 + noise * 0.02
    if "embedding" in name:
        return noise
    return noise / math.sqrt(math.prod(shape[1:]))


# --- the parts --------------------------------------------------------------------------------------------------------


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    for name, shape in shapes:
        yield prefix + name, shape


def _affine(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _unet_residual(name: str, channels: int, out: int, embedding: int) -> Shapes:
    yield from _affine(f"{name}.in_layers.0", channels)
    yield from _affine(f"{name}.in_layers.2", out, channels, 3, 3)
    yield from _affine(f"{name}.emb_layers.1", out, embedding)
    yield from _affine(f"{name}.out_layers.0", out)
    yield from _affine(f"{name}.out_layers.3", out, out, 3, 3)
    if channels != out:
        yield from _affine(f"{name}.skip_connection", out, channels, 1, 1)


def _unet_transformer(name: str, channels: int, depth: int, params: Mapping[str, Any]) -> Shapes:
    square = (channels, channels) if params.get("use_linear_in_transformer") else (channels, channels, 1, 1)
    yield from _affine(f"{name}.norm", channels)
    yield from _affine(f"{name}.proj_in", *square)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", channels), ("attn2", params["context_dim"])):
            yield f"{block}.{attention}.to_q.weight", (channels, channels)
            yield f"{block}.{attention}.to_k.weight", (channels, context)
            yield f"{block}.{attention}.to_v.weight", (channels, context)
            yield from _affine(f"{block}.{attention}.to_out.0", channels, channels)
        yield from _affine(f"{block}.ff.net.0.proj", 8 * channels, channels)
        yield from _affine(f"{block}.ff.net.2", channels, 4 * channels)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _affine(f"{block}.{norm}", channels)
    yield from _affine(f"{name}.proj_out", *square)


def unet_shapes(params: Mapping[str, Any]) -> Shapes:
    """OpenAI's UNet with spatial transformers, as in ``ldm`` and ``sgm``."""
    width, mults, blocks = params["model_channels"], params["channel_mult"], params["num_res_blocks"]
    depths = params["transformer_depth"]
    depths = [depths] * len(mults) if isinstance(depths, int) else depths
    embedding = 4 * width

    def residual(name: str, channels: int, out: int) -> Shapes:
        return _unet_residual(name, channels, out, embedding)

    def transformer(name: str, channels: int, depth: int) -> Shapes:
        return _unet_transformer(name, channels, depth, params)

    yield from _affine("time_embed.0", embedding, width)
    yield from _affine("time_embed.2", embedding, embedding)
    if "adm_in_channels" in params:
        yield from _affine("label_emb.0.0", embedding, params["adm_in_channels"])
        yield from _affine("label_emb.0.2", embedding, embedding)
    yield from _affine("input_blocks.0.0", width, params["in_channels"], 3, 3)
    channels, scale, number, skips = width, 1, 1, [width]
    for level, mult in enumerate(mults):
        for _ in range(blocks):
            yield from residual(f"input_blocks.{number}.0", channels, mult * width)
            channels = mult * width
            if scale in params["attention_resolutions"]:
                yield from transformer(f"input_blocks.{number}.1", channels, depths[level])
            skips.append(channels)
            number += 1
        if level < len(mults) - 1:
            yield from _affine(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
            number, scale = number + 1, scale * 2
    yield from residual("middle_block.0", channels, channels)
    yield from transformer("middle_block.1", channels, depths[-1])
    yield from residual("middle_block.2", channels, channels)
    number = 0
    for level, mult in reversed(list(enumerate(mults))):
        for i in range(blocks + 1):
            yield from residual(f"output_blocks.{number}.0", channels + skips.pop(), mult * width)
            channels, place = mult * width, 1
            if scale in params["attention_resolutions"]:
                yield from transformer(f"output_blocks.{number}.1", channels, depths[level])
                place = 2
            if level and i == blocks:
                yield from _affine(f"output_blocks.{number}.{place}.conv", channels, channels, 3, 3)
                scale //= 2
            number += 1
    yield from _affine("out.0", channels)
    yield from _affine("out.2", params["out_channels"], width, 3, 3)


def vae_shapes(params: Mapping[str, Any]) -> Shapes:
    """The autoencoder of latent diffusion."""
    shape = params["ddconfig"]
    width, mults, blocks, latent = shape["ch"], shape["ch_mult"], shape["num_res_blocks"], shape["z_channels"]

    def residual(name: str, channels: int, out: int) -> Shapes:
        yield from _affine(f"{name}.norm1", channels)
        yield from _affine(f"{name}.conv1", out, channels, 3, 3)
        yield from _affine(f"{name}.norm2", out)
        yield from _affine(f"{name}.conv2", out, out, 3, 3)
        if channels != out:
            yield from _affine(f"{name}.nin_shortcut", out, channels, 1, 1)

    def middle(name: str, channels: int) -> Shapes:
        yield from residual(f"{name}.mid.block_1", channels, channels)
        yield from _affine(f"{name}.mid.attn_1.norm", channels)
        for projection in ("q", "k", "v", "proj_out"):
            yield from _affine(f"{name}.mid.attn_1.{projection}", channels, channels, 1, 1)
        yield from residual(f"{name}.mid.block_2", channels, channels)

    channels = width
    yield from _affine("encoder.conv_in", width, shape["in_channels"], 3, 3)
    for level, mult in enumerate(mults):
        for i in range(blocks):
            yield from residual(f"encoder.down.{level}.block.{i}", channels, mult * width)
            channels = mult * width
        if level < len(mults) - 1:
            yield from _affine(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
    yield from middle("encoder", channels)
    yield from _affine("encoder.norm_out", channels)
    yield from _affine("encoder.conv_out", 2 * latent, channels, 3, 3)
    yield from _affine("decoder.conv_in", channels, latent, 3, 3)
    yield from middle("decoder", channels)
    for level, mult in reversed(list(enumerate(mults))):
        for i in range(blocks + 1):
            yield from residual(f"decoder.up.{level}.block.{i}", channels, mult * width)
            channels = mult * width
        if level:
            yield from _affine(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    yield from _affine("decoder.norm_out", channels)
    yield from _affine("decoder.conv_out", shape["out_ch"], channels, 3, 3)
    yield from _affine("quant_conv", 2 * params["embed_dim"], 2 * latent, 1, 1)
    yield from _affine("post_quant_conv", latent, params["embed_dim"], 1, 1)


def clip_shapes(clip: Mapping[str, int], vocabulary: int) -> Shapes:
    """A CLIP text model as transformers writes it."""
    width, hidden = clip["hidden_size"], clip["intermediate_size"]
    yield "embeddings.token_embedding.weight", (vocabulary, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for i in range(clip["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{layer}.self_attn.{projection}", width, width)
        yield from _affine(f"{layer}.layer_norm1", width)
        yield from _affine(f"{layer}.mlp.fc1", hidden, width)
        yield from _affine(f"{layer}.mlp.fc2", width, hidden)
        yield from _affine(f"{layer}.layer_norm2", width)
    yield from _affine("final_layer_norm", width)


def open_clip_shapes(clip: Mapping[str, int], vocabulary: int) -> Shapes:
    """A CLIP text model as OpenCLIP writes it."""
    width, hidden = clip["hidden_size"], clip["intermediate_size"]
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "logit_scale", ()
    yield "token_embedding.weight", (vocabulary, width)
    for i in range(clip["num_hidden_layers"]):
        layer = f"transformer.resblocks.{i}"
        yield f"{layer}.attn.in_proj_weight", (3 * width, width)
        yield f"{layer}.attn.in_proj_bias", (3 * width,)
        yield from _affine(f"{layer}.attn.out_proj", width, width)
        yield from _affine(f"{layer}.ln_1", width)
        yield from _affine(f"{layer}.ln_2", width)
        yield from _affine(f"{layer}.mlp.c_fc", hidden, width)
        yield from _affine(f"{layer}.mlp.c_proj", width, hidden)
    yield from _affine("ln_final", width)
