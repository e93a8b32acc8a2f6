"""The denoisers: one base that learns both styles at once, and two that are fine-tuned from it, one a style."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data import STYLES, Style
from models import Unet, UnetConfig
from optim import Average, Clock, MuonAdamW, Schedule
from subjects import SUBJECTS
from text import TextEncoder, draw_caption
from train_vae import load_vae, save_pictures

SCALE = 0.18215  # Stable Diffusion's factor from the autoencoder's latents to the denoiser's
PREVIEWS = ("fox", "octopus", "rocket", "hot beverage", "lemon", "automobile", "penguin", "robot", "unicorn", "cactus")


@dataclass(frozen=True)
class UnetStage:
    captions: int  # different captions in a batch
    repeats: int  # pictures of each style a caption
    schedule: Schedule
    muon_rate: float
    adam_rate: float
    average: float
    previews: int  # sheets while it runs


BASE = UnetStage(32, 1, Schedule(18.5, floor=0.03), muon_rate=3e-3, adam_rate=3e-3, average=0.99, previews=4)
STYLE = UnetStage(32, 2, Schedule(21, warmup=0.03), muon_rate=1.2e-3, adam_rate=8e-4, average=0.996, previews=3)


def signal_levels() -> Tensor:
    """SD1's cumulative product of alphas, for timesteps 0 to 999."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


@torch.no_grad()
def sample(
    unets: Sequence[Unet],
    switch: float,
    styles: Sequence[Tensor | float],
    context: Tensor,
    empty: Tensor,
    seed: int,
    steps: int = 25,
    guidance: float = 4.5,
) -> Tensor:
    """DDIM with guidance. The first denoiser does the share `switch` of the steps, the second one the rest."""
    levels = signal_levels()
    timesteps = (torch.arange(steps) * (1000 // steps) + 1).flip(0)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(context), 4, 16, 16, generator=generator)
    both = torch.cat([empty.expand_as(context), context])
    for index, timestep in enumerate(timesteps):
        which = 0 if index < round(switch * steps) else 1
        with torch.autocast("cpu", torch.bfloat16):
            output = unets[which](torch.cat([x, x]), timestep.expand(2 * len(x)), both, styles[which]).float()
        without, given = output.chunk(2)
        noise = without + guidance * (given - without)
        level = levels[timestep]
        clean = (x - (1 - level).sqrt() * noise) / level.sqrt()
        level = levels[timesteps[index + 1]] if index + 1 < steps else torch.tensor(1.0)
        x = level.sqrt() * clean + (1 - level).sqrt() * noise
    return x / SCALE


def draw_latents(
    latents: Tensor, stage: UnetStage, rng: np.random.Generator
) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """A batch: latents, captions, the caption's index and the style's index of every latent."""
    subjects = rng.integers(len(SUBJECTS), size=stage.captions)
    captions = [draw_caption(subject, rng) for subject in subjects]
    owners = np.repeat(np.arange(stage.captions), len(latents) * stage.repeats)
    styles = np.tile(np.arange(len(latents)), stage.captions * stage.repeats)
    variants = rng.integers(latents.shape[2], size=len(owners))
    return latents[styles, subjects[owners], variants], captions, torch.from_numpy(owners), torch.from_numpy(styles)


def train_unet(folder: Path, tokenizer: Path, stage: UnetStage, style: Style | None) -> None:
    """Train the base on both styles together with the text encoder (style None), or a style's denoiser from it.

    In the base a style is one vector, added to the embedding of the time. It can therefore be made a part of the
    weights: every step on the base improves both checkpoints, and fine-tuning starts from where the base ends.
    """
    torch.manual_seed(0 if style is None else 1 + STYLES.index(style))
    rng = np.random.default_rng(torch.initial_seed())
    text, unet = TextEncoder(tokenizer), Unet(UnetConfig())
    styles = torch.nn.Parameter(0.5 * torch.randn(len(STYLES), 4 * UnetConfig().channels))
    trained = torch.nn.ModuleDict({"unet": unet})
    if style is None:
        latents = torch.stack([torch.load(folder / f"{name}_latents.pt") for name in STYLES])
        trained["text"] = text
        trained.register_parameter("styles", styles)
        output = folder / "base.pt"
        if output.exists():  # Goes on where an earlier run ended.
            trained.load_state_dict(torch.load(output))
    else:
        latents = torch.load(folder / f"{style}_latents.pt")[None]
        base = torch.load(folder / "base.pt")
        text.load_state_dict({key.removeprefix("text."): base[key] for key in base if key.startswith("text.")})
        unet.load_state_dict({key.removeprefix("unet."): base[key] for key in base if key.startswith("unet.")})
        unet.settle(base["styles"][STYLES.index(style)])
        output = folder / f"{style}.pt"
    latents = latents * SCALE
    optimiser = MuonAdamW(trained.named_parameters(), stage.muon_rate, stage.adam_rate)
    average = Average(trained, stage.average)
    compiled = torch.compile(unet, dynamic=False)
    vae = load_vae(folder / "vae_white.pt")
    levels = signal_levels()
    # The usual loss weighs the errors of all noise levels alike, and most of the error is in the little noise, where
    # nothing is left to decide. What a picture shows is learned from much noise: that gets the weight.
    weights = ((1 - levels) / levels).sqrt().clamp(max=5.0)
    clock, last_preview, recent = Clock(stage.schedule.minutes), 0.0, 0.0
    bar = tqdm(mininterval=20)
    while clock.progress < 1:
        clean, captions, owners, kinds = draw_latents(latents, stage, rng)
        size = len(clean)
        # One timestep from every part of the range: the loss of a batch varies less.
        timesteps = ((torch.randperm(size) + torch.rand(size)) * (1000 / size)).long()
        level = levels[timesteps][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(style is None):
                context = text(captions)
            shift = styles[kinds] if style is None else torch.zeros(size, styles.shape[1])
            predicted = compiled(noisy, timesteps, context[owners], shift).float()
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        loss = (errors * weights[timesteps]).mean()
        loss.backward()
        optimiser.step(stage.schedule.factor(clock.progress))
        average.update()
        recent = loss.item() if bar.n == 0 else 0.98 * recent + 0.02 * loss.item()
        bar.update()
        if bar.n == 1:
            clock = Clock(stage.schedule.minutes)  # Compiling, in the first step, does not count.
        bar.set_postfix(loss=f"{recent:.4f}", refresh=False)
        if clock.progress - last_preview > 1 / stage.previews or clock.progress >= 1:
            last_preview = clock.progress
            bar.write(f"{clock.progress:.2f} step {bar.n} loss {recent:.4f}")
            torch.save(average.shadow, output)
            trainee = {name: value.clone() for name, value in trained.state_dict().items()}
            trained.load_state_dict(average.shadow)
            with torch.no_grad():
                context, empty = text(list(PREVIEWS)), text([""])
                if style is None:
                    # Each style alone, and from the first to the second in mid-way.
                    runs = ((1.0, (0, 1)), (0.3, (0, 1)), (0.5, (0, 1)), (0.7, (0, 1)), (1.0, (1, 0)))
                    rows = [
                        sample((unet, unet), switch, [styles[kind] for kind in order], context, empty, seed=1)
                        for switch, order in runs
                    ]
                else:
                    rows = [sample((unet, unet), 1.0, (0.0, 0.0), context, empty, seed) for seed in (1, 2, 3)]
                pictures = torch.cat([vae.decode(row) for row in rows])
            save_pictures(pictures, len(PREVIEWS), output.with_suffix(".png"))
            if clock.progress < 1:
                trained.load_state_dict(trainee)
    bar.close()
