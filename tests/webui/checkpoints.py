"""Small checkpoints for the host: the demo pair, and random ones of the same shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

DEMO = Path(__file__).parents[2] / "multipass/hosts/standalone/demo/checkpoints"


def random_like(source: Path, target: Path, seed: int) -> None:
    """The source with noise on its UNet: another model, that nobody trained."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in load_file(source).items():
        if not name.startswith("model.diffusion_model."):
            tensors[name] = tensor
            continue
        whole = tensor.float()
        noise = torch.randn(whole.shape, generator=generator)
        tensors[name] = (whole + 0.2 * whole.abs().mean() * noise).to(tensor.dtype)
    save_file(tensors, target)


UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."


def random_lora(source: Path, target: Path, seed: int, *, text: bool = True) -> None:
    """A network for the attention of the source's UNet and, with ``text``, of its text encoder, in kohya's layout."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source).items():
        prefix = {UNET: "lora_unet_", TEXT: "lora_te_"}
        kind = next((start for start in prefix if name.startswith(start)), None)
        if kind is None or (kind == TEXT and not text) or tensor.ndim != 2:
            continue
        if not name.endswith(("to_q.weight", "to_v.weight", "to_out.0.weight", "q_proj.weight", "fc1.weight")):
            continue
        layer = prefix[kind] + name.removeprefix(kind).removesuffix(".weight").replace(".", "_")
        rows, columns = tensor.shape
        tensors |= {
            f"{layer}.lora_up.weight": 0.3 * torch.randn(rows, 2, generator=generator),
            f"{layer}.lora_down.weight": 0.3 * torch.randn(2, columns, generator=generator),
            f"{layer}.alpha": torch.tensor(2.0),
        }
    save_file(tensors, target)


def merged(source: Path, lora: Path, target: Path, strength: float) -> None:
    """The source with a network in its UNet's weights, in full precision: what a host has while the network acts."""
    tensors, network = {name: tensor.float() for name, tensor in load_file(source).items()}, load_file(lora)
    for name, tensor in tensors.items():
        layer = "lora_unet_" + name.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
        if f"{layer}.alpha" in network:
            up, down = network[f"{layer}.lora_up.weight"], network[f"{layer}.lora_down.weight"]
            tensors[name] = tensor + up @ down * (network[f"{layer}.alpha"].item() / len(down)) * strength
    save_file(tensors, target)


def random_vae(source: Path, target: Path, seed: int) -> None:
    """The source's VAE with noise on its decoder, as a file of its own."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name.removeprefix(VAE): tensor.float() for name, tensor in load_file(source).items() if name.startswith(VAE)
    }
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensors[name] = tensor + 0.3 * tensor.abs().mean() * noise * name.startswith("decoder.")
    save_file(tensors, target)


def make(folder: Path) -> Path:
    """Fill ``folder`` with soft, ink, two random checkpoints, one merged with a network, and a VAE; beside it the
    networks in ``loras``. Returns the config file that the checkpoints share.

    One shared file and none beside the checkpoints: with a file each, the host would build a new module each time.
    """
    folder.mkdir(parents=True)
    for name in ("soft", "ink"):
        shutil.copy(DEMO / f"{name}.safetensors", folder)
    for seed, name in enumerate(("noise1", "noise2")):
        random_like(DEMO / "soft.safetensors", folder / f"{name}.safetensors", seed)
    loras = folder.parent / "loras"
    loras.mkdir()
    random_lora(DEMO / "soft.safetensors", loras / "one.safetensors", 2)
    random_lora(DEMO / "soft.safetensors", loras / "two.safetensors", 3)
    random_lora(DEMO / "soft.safetensors", loras / "unet.safetensors", 4, text=False)
    merged(DEMO / "soft.safetensors", loras / "unet.safetensors", folder / "softmerged.safetensors", 0.5)
    random_vae(DEMO / "soft.safetensors", folder / "other.vae.safetensors", 5)
    config = folder.parent / "demo.yaml"
    config.write_text((DEMO / "demo.yaml").read_text().replace("version: clip", f"version: {DEMO / 'clip'}"))
    return config


def make_inpainting(folder: Path) -> None:
    """Beside those of ``make``: ``inpaint``, soft with a UNet that is also shown a mask and the masked picture."""
    tensors = load_file(DEMO / "soft.safetensors")
    first = f"{UNET}input_blocks.0.0.weight"
    shown = 0.1 * torch.randn(len(tensors[first]), 5, 3, 3, generator=torch.Generator().manual_seed(6))
    tensors[first] = torch.cat([tensors[first].float(), shown], 1)
    save_file(tensors, folder / "inpaint.safetensors")
    config = yaml.safe_load((folder.parent / "demo.yaml").read_text())
    model = config["model"]
    model["target"] = "ldm.models.diffusion.ddpm.LatentInpaintDiffusion"
    model["params"] |= {"conditioning_key": "hybrid", "finetune_keys": None}
    model["params"]["unet_config"]["params"]["in_channels"] = 9
    (folder / "inpaint.yaml").write_text(yaml.safe_dump(config))


UNET = "model.diffusion_model."
CLIP = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
OPEN_CLIP = "conditioner.embedders.{}.model.ln_final.weight"
OTHER_KINDS: dict[str, dict[str, tuple[int, ...]]] = {
    "inpaint": {f"{UNET}input_blocks.0.0.weight": (64, 9, 3, 3), CLIP: (96,)},
    "pix2pix": {f"{UNET}input_blocks.0.0.weight": (64, 8, 3, 3), CLIP: (96,)},
    "depth": {f"{UNET}input_blocks.0.0.weight": (64, 5, 3, 3), "cond_stage_model.model.ln_final.weight": (1024,)},
    "sd2": {f"{UNET}input_blocks.0.0.weight": (64, 4, 3, 3), "cond_stage_model.model.ln_final.weight": (1024,)},
    "xl": {f"{UNET}input_blocks.0.0.weight": (64, 4, 3, 3), OPEN_CLIP.format(1): (1280,)},
    "xl_refiner": {f"{UNET}input_blocks.0.0.weight": (64, 4, 3, 3), OPEN_CLIP.format(0): (1280,)},
    "xl_unet": {
        "input_blocks.0.0.weight": (64, 4, 3, 3),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 2048),
    },
    "sd3": {f"{UNET}x_embedder.proj.weight": (64, 16, 2, 2)},
    "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": (128,)},
    "unknown": {"something.weight": (2, 2)},
}


def make_other_kinds(folder: Path) -> None:
    """Beside those of ``make``: files that say of themselves what they are, and hold nothing more; and damaged ones."""
    for name, shapes in OTHER_KINDS.items():
        save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / f"{name}.safetensors")
    whole = (folder / "soft.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_header.safetensors").write_bytes(whole[:1000])
    (folder / "empty.safetensors").touch()
    (folder / "page.safetensors").write_bytes(b"<!DOCTYPE html><html>not found</html>")
    # A1111 finds what torch writes into its newer format by now suspicious
    pickled = load_file(folder / "noise1.safetensors")
    torch.save(pickled, folder / "pickled.ckpt", _use_new_zipfile_serialization=False)
    (folder / "junk.ckpt").write_bytes(b"junk")


def forge_configs(forge: Path, config: Path) -> Path:
    """The folder of configs from which Forge builds a checkpoint: its own for SD1.5, in the demo pair's sizes."""
    target = config.parent / "forge"
    shutil.copytree(forge / "backend/huggingface/runwayml/stable-diffusion-v1-5", target)
    sizes = yaml.safe_load(config.read_text())["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    vae = json.loads((target / "vae/config.json").read_text())
    vae |= {
        "block_out_channels": [sizes["ch"] * factor for factor in sizes["ch_mult"]],
        "layers_per_block": sizes["num_res_blocks"],
    }
    (target / "vae/config.json").write_text(json.dumps(vae))
    shutil.copy(DEMO / "clip/config.json", target / "text_encoder/config.json")
    for file in (DEMO / "clip").glob("*"):
        if file.name != "config.json":
            shutil.copy(file, target / "tokenizer" / file.name)
    return target
