"""Small checkpoints for the host: the demo pair, and random ones of the same shapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
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


SD1_UNET = {"model_channels": 32, "channel_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attention_resolutions": [4, 2, 1]}
# run by the host, which has the class; what training starts from is in part zero, and would pass nothing on
BUILD_UNET = """
import json, sys
import torch
from safetensors.torch import save_file
sys.path.insert(0, "repositories/stable-diffusion-stability-ai")
from ldm.modules.diffusionmodules.openaimodel import UNetModel
torch.manual_seed(0)
unet = UNetModel(**json.loads(sys.argv[1]))
for tensor in unet.parameters():
    if not tensor.any():
        torch.nn.init.normal_(tensor, std=0.02)
save_file({f"model.diffusion_model.{name}": tensor for name, tensor in unet.state_dict().items()}, sys.argv[2])
"""


def make_like_sd1(folder: Path, build: Callable[[str, str, str], None]) -> Path:
    """Random checkpoints soft and ink with a UNet of SD1's blocks, which ControlNet counts on, and beside them a
    network and, in ``control``, a T2I-Adapter for them. Returns their config file.

    Args:
        build: runs a Python program with the host's modules.
    """
    folder.mkdir(parents=True)
    config = yaml.safe_load((DEMO / "demo.yaml").read_text().replace("version: clip", f"version: {DEMO / 'clip'}"))
    unet = config["model"]["params"]["unet_config"]["params"]
    unet |= SD1_UNET
    soft = folder / "soft.safetensors"
    build(BUILD_UNET, json.dumps(unet), str(soft))
    rest = {name: tensor for name, tensor in load_file(DEMO / soft.name).items() if not name.startswith(UNET)}
    save_file({**rest, **load_file(soft)}, soft)
    random_like(soft, folder / "ink.safetensors", 1)
    for name in ("loras", "control"):
        (folder.parent / name).mkdir()
    random_lora(soft, folder.parent / "loras/one.safetensors", 2)
    random_adapter(folder.parent / "control/adapter.safetensors", unet["model_channels"], 3)
    target = folder.parent / "sd1.yaml"
    target.write_text(yaml.safe_dump(config))
    return target


def random_adapter(target: Path, width: int, seed: int) -> None:
    """A T2I-Adapter: it adds to the UNet's features what it makes of a picture."""
    generator = torch.Generator().manual_seed(seed)
    widths = [width, 2 * width, 4 * width, 4 * width]
    shapes = {"conv_in": (width, 3 * 8 * 8, 3)}
    for index, (before, own) in enumerate(zip([width, *widths], widths, strict=False)):
        if before != own:
            shapes[f"body.{2 * index}.in_conv"] = (own, before, 1)
        for block in (2 * index, 2 * index + 1):
            shapes |= {f"body.{block}.block1": (own, own, 3), f"body.{block}.block2": (own, own, 1)}
    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns, size) in shapes.items():
        scale = (columns * size * size) ** -0.5
        tensors[f"{name}.weight"] = scale * torch.randn(rows, columns, size, size, generator=generator)
        tensors[f"{name}.bias"] = torch.zeros(rows)
    save_file(tensors, target)


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
