"""Train the demo pair stage by stage: `python train.py WORK_FOLDER TOKENIZER crops ...`."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from data import COMPOSITIONS, STYLES, make_pictures
from train_unet import BASE, STYLE, train_unet
from train_vae import CROPS, DECODER, WHOLE, encode_all, load_vae, train_vae, whiten

VARIANTS = 40


def stage_pictures(folder: Path) -> None:
    for seed, style in enumerate(STYLES):
        np.save(folder / f"{style}.npy", make_pictures(folder / "npm", style, VARIANTS, COMPOSITIONS[style], seed))


def load_pictures(folder: Path) -> np.ndarray:
    return np.concatenate([np.load(folder / f"{style}.npy").reshape(-1, 128, 128, 3) for style in STYLES])


def stage_latents(folder: Path) -> None:
    whiten(load_pictures(folder), folder)
    vae = load_vae(folder / "vae_white.pt")
    for style in STYLES:
        pictures = np.load(folder / f"{style}.npy")
        latents = encode_all(vae, pictures.reshape(-1, *pictures.shape[2:]))
        torch.save(latents.unflatten(0, pictures.shape[:2]), folder / f"{style}_latents.pt")


STAGES: dict[str, Callable[[Path, Path], None]] = {
    "pictures": lambda folder, _: stage_pictures(folder),
    "crops": lambda folder, _: train_vae(load_pictures(folder), CROPS, None, folder / "vae.pt"),
    "whole": lambda folder, _: train_vae(load_pictures(folder), WHOLE, folder / "vae.pt", folder / "vae.pt"),
    "decoder": lambda folder, _: train_vae(
        load_pictures(folder), DECODER, folder / "vae_white.pt", folder / "vae_final.pt"
    ),
    "latents": lambda folder, _: stage_latents(folder),
    "base": lambda folder, tokenizer: train_unet(folder, tokenizer, BASE, None),
    "soft": lambda folder, tokenizer: train_unet(folder, tokenizer, STYLE, "soft"),
    "ink": lambda folder, tokenizer: train_unet(folder, tokenizer, STYLE, "ink"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path, help="folder with the files of CLIP's tokenizer")
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages:
        STAGES[stage](arguments.folder, arguments.tokenizer)


if __name__ == "__main__":
    main()
