"""Write the trained networks as webui checkpoints: `python export.py WORK_FOLDER TOKENIZER OUTPUT_FOLDER`."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from data import PACKAGES, STYLES, Style
from models import Unet, UnetConfig, VaeConfig
from subjects import SUBJECTS, spoken_names
from text import TextEncoder, text_config

TITLES: dict[Style, str] = {"soft": "Demo: soft (glossy shading)", "ink": "Demo: ink (flat colours, bold outlines)"}
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")

YAML = """\
# Stable Diffusion 1's architecture at toy size. `version` is a placeholder: it must become the absolute path of the
# folder clip/ beside this file.
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 16
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: false
    scheduler_config:
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params:
        warm_up_steps: [10000]
        cycle_lengths: [10000000000000]
        f_start: [1.0e-06]
        f_max: [1.0]
        f_min: [1.0]
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 16
        in_channels: {unet.latent_channels}
        out_channels: {unet.latent_channels}
        model_channels: {unet.channels}
        attention_resolutions: {attention}
        num_res_blocks: {unet.res_blocks}
        channel_mult: {multipliers}
        num_heads: {unet.heads}
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: {unet.context}
        use_checkpoint: false
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: {vae.latent_channels}
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: {vae.latent_channels}
          resolution: 128
          in_channels: 3
          out_ch: 3
          ch: {vae.channels}
          ch_mult: {vae_multipliers}
          num_res_blocks: {vae.res_blocks}
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: clip
"""

LICENSE = """\
# The demo checkpoints `soft` and `ink`

The checkpoints in this folder are licensed under the MIT License, as is the code that trained them
(`tools/train_demo/` in the repository). They were trained from scratch on pictures drawn from two icon sets:

- **Fluent Emoji** (package `{soft}`), Copyright (c) Microsoft Corporation, MIT License,
  <https://github.com/microsoft/fluentui-emoji>: what `soft` shows.
- **Fluent Emoji Flat** (package `{ink}`), Copyright (c) Microsoft Corporation, MIT License,
  the same repository: what `ink` shows, with dark outlines added.

Both packages are distributed by Iconify, <https://github.com/iconify/icon-sets>.

The vocabulary and the merges in `clip/` are those of OpenAI's CLIP, Copyright (c) 2021 OpenAI, MIT License,
<https://github.com/openai/CLIP>.

## MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def load_unet(folder: Path, style: Style, base: dict[str, Tensor]) -> Unet:
    """A style's denoiser; before it is fine-tuned, the base with the style settled in its weights."""
    unet = Unet(UnetConfig())
    tuned = folder / f"{style}.pt"
    if tuned.exists():
        unet.load_state_dict(part_of(torch.load(tuned), "unet."))
    else:
        unet.load_state_dict(part_of(base, "unet."))
        unet.settle(base["styles"][STYLES.index(style)])
    return unet


def text_state(text: TextEncoder) -> dict[str, Tensor]:
    """The text encoder's tensors under the names in which SD1 checkpoints have them."""
    state = text.clip.state_dict()
    names = {key: key if key.startswith("text_model.") else f"text_model.{key}" for key in state}
    return {f"cond_stage_model.transformer.{names[key]}": value for key, value in state.items()}


def export(folder: Path, tokenizer: Path, output: Path) -> None:
    base = torch.load(folder / "base.pt")
    text = TextEncoder(tokenizer)
    text.load_state_dict(part_of(base, "text."))
    text.level_unknown_words()
    vae = torch.load(next(path for name in ("vae_final.pt", "vae_white.pt") if (path := folder / name).exists()))
    shared = text_state(text) | {f"first_stage_model.{key}": value for key, value in vae.items()}
    clip = output / "clip"
    clip.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        unet = load_unet(folder, style, base).state_dict()
        state = shared | {f"model.diffusion_model.{key}": value for key, value in unet.items()}
        state = {key: value.half().contiguous() for key, value in state.items() if value.is_floating_point()}
        metadata = {
            "modelspec.title": TITLES[style],
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.resolution": "128x128",
            "modelspec.license": "MIT",
            "modelspec.description": f"Toy model of {len(SUBJECTS)} emoji subjects; trained on {PACKAGES[style]}.",
            "modelspec.trigger_phrase": "a red apple (any name in subjects.json; no style words needed)",
        }
        save_file(state, output / f"{style}.safetensors", metadata | {"format": "pt"})
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, clip / name)
    config = text_config()
    config.architectures = ["CLIPTextModel"]
    config.save_pretrained(clip)
    unet_config, vae_config = UnetConfig(), VaeConfig()
    yaml = YAML.format(
        unet=unet_config,
        vae=vae_config,
        attention=list(unet_config.attention_at),
        multipliers=list(unet_config.multipliers),
        vae_multipliers=list(vae_config.multipliers),
    )
    (output / "demo.yaml").write_text(yaml)
    (output / "LICENSE.md").write_text(LICENSE.format(**PACKAGES))
    subjects = [{"name": spoken_names(subject)[0], "also": list(spoken_names(subject)[1:])} for subject in SUBJECTS]
    lines = ",\n".join(f"  {json.dumps(subject)}" for subject in subjects)
    (output / "subjects.json").write_text(f"[\n{lines}\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    export(arguments.folder, arguments.tokenizer, arguments.output)


if __name__ == "__main__":
    main()
