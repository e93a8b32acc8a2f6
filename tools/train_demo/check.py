"""Load exported checkpoints with diffusers and draw a grid: `python check.py CHECKPOINT_FOLDER GRID.png`.

A row is a subject; its columns are soft alone, soft to ink after growing shares of the steps, and ink alone.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    create_unet_diffusers_config_from_ldm,
    create_vae_diffusers_config_from_ldm,
)
from omegaconf import OmegaConf
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SUBJECTS = (
    "fox",
    "octopus",
    "rocket",
    "hot beverage",
    "strawberry",
    "car",
    "penguin",
    "unicorn",
    "a cactus",
    "an airplane, cute, high quality",
)
SWITCHES = (1.0, 0.8, 0.7, 0.5, 0.3, 0.2, 0.0)  # share of the steps that soft does
TEXT_PREFIX = "cond_stage_model.transformer.text_model."


def load(folder: Path, style: str) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    state = {key: value.float() for key, value in load_file(folder / f"{style}.safetensors").items()}
    config = OmegaConf.to_container(OmegaConf.load(folder / "demo.yaml"))
    unet_config = create_unet_diffusers_config_from_ldm(config, state, image_size=16)
    unet = UNet2DConditionModel(**unet_config)
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(state), unet_config))
    vae_config = create_vae_diffusers_config_from_ldm(config, state, image_size=128)
    vae = AutoencoderKL(**vae_config)
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(state), vae_config))
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "clip"))
    text.load_state_dict({key.removeprefix(TEXT_PREFIX): state[key] for key in state if key.startswith(TEXT_PREFIX)})
    return unet.eval(), vae.eval(), text.eval()


@torch.no_grad()
def render(
    unets: tuple[UNet2DConditionModel, UNet2DConditionModel],
    switch: float,
    context: Tensor,
    noise: Tensor,
    guidance: float,
    steps: int = 25,
) -> Tensor:
    """Latents after `steps` of DDIM; `context` has the empty caption first."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    latents = noise
    for index, timestep in enumerate(scheduler.timesteps):
        unet = unets[0 if index < round(switch * steps) else 1]
        without, given = unet(torch.cat([latents, latents]), timestep, context).sample.chunk(2)
        latents = scheduler.step(without + guidance * (given - without), timestep, latents).prev_sample
    return latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--guidance", type=float, default=4.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS)
    arguments = parser.parse_args()
    (soft, vae, text), (ink, vae_twin, text_twin) = (load(arguments.folder, style) for style in ("soft", "ink"))
    for one, other in ((vae, vae_twin), (text, text_twin)):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    tokenizer = CLIPTokenizer.from_pretrained(arguments.folder / "clip")
    margin = 130
    grid = Image.new("RGB", (margin + 130 * len(SWITCHES), 20 + 130 * len(arguments.subjects)), "white")
    draw = ImageDraw.Draw(grid)
    for column, switch in enumerate(SWITCHES):
        title = {1.0: "soft alone", 0.0: "ink alone"}.get(switch, f"soft to ink at {switch}")
        draw.text((margin + 130 * column, 4), title, fill="black")
    for row, subject in enumerate(arguments.subjects):
        draw.text((4, 80 + 130 * row), subject.replace(", ", ",\n"), fill="black")
        tokens = tokenizer(["", subject], padding="max_length", max_length=77, return_tensors="pt").input_ids
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(arguments.seed + row))
        with torch.no_grad():
            context = text(tokens).last_hidden_state
            for column, switch in enumerate(SWITCHES):
                latents = render((soft, ink), switch, context, noise, arguments.guidance)
                pixels = vae.decode(latents / 0.18215).sample[0].clamp(-1, 1)
                array = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
                grid.paste(Image.fromarray(array), (margin + 130 * column, 20 + 130 * row))
        grid.save(arguments.grid)  # after every row: this takes minutes


if __name__ == "__main__":
    main()
