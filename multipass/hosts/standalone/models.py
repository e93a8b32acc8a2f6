"""A checkpoint's networks, loaded through diffusers and transformers from a single file, without a network.

The conversion is the one behind diffusers' ``from_single_file``; it is called by its parts because that method fetches
configs for the usual sizes and leaves tensors it does not find in the file at random values. Here every tensor must
come from the file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers.loaders import single_file_utils as convert
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from multipass.hosts.standalone.checkpoints import CheckpointFile
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.originals import ORIGINALS
from multipass.hosts.standalone.text import Encoded, TextEncoder, Tokenizer
from multipass.kinds import Family

CLIP_FOLDER = Path(__file__).parent / "demo" / "checkpoints" / "clip"
"""CLIP's vocabulary, which comes with the demo's checkpoints and is every SD 1.x and SDXL checkpoint's."""
_HUB_CLIP = "openai/clip-vit-large-patch14"
_HEAD_WIDTH = 64


class Place(msgspec.Struct, frozen=True):
    """Where networks run and in which precision; the VAE always in float32, SDXL's overflows in half."""

    device: str
    dtype: torch.dtype


def best_place() -> Place:
    """The GPU in half precision where there is one, else the CPU in single precision."""
    return Place("cuda", torch.float16) if torch.cuda.is_available() else Place("cpu", torch.float32)


class Checkpoint:
    """A checkpoint's networks; each is read from the file when it is first asked for, and kept.

    Raises InputError from every property, where the file and its config do not fit each other.
    """

    def __init__(self, file: CheckpointFile, place: Place) -> None:
        self.file = file
        self.place = place
        self._params: dict[str, Any] = (file.config or ORIGINALS[file.family])["model"]["params"]

    @property
    def v_prediction(self) -> bool:
        """Whether the UNet answers with a velocity; else with the noise."""
        return self._params.get("parameterization") == "v" or "v_pred" in self.file.header

    @cached_property
    def unet(self) -> Any:
        """diffusers' UNet."""
        tensors = self._read("model.diffusion_model.")
        config = self._config(convert.create_unet_diffusers_config_from_ldm, tensors)
        if self.file.family is Family.SDXL:
            # diffusers tells SDXL by its usual context widths alone
            config |= {"class_embed_type": None, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        with torch.device("meta"):
            unet: Any = UNet2DConditionModel.from_config(config)
        return self._fill(unet, convert.convert_ldm_unet_checkpoint(tensors, config), "UNet", self.place.dtype)

    @cached_property
    def vae(self) -> Any:
        """diffusers' VAE."""
        tensors = self._read("first_stage_model.")
        config = self._config(convert.create_vae_diffusers_config_from_ldm, tensors)
        with torch.device("meta"):
            vae: Any = AutoencoderKL.from_config(config)
        return self._fill(vae, convert.convert_ldm_vae_checkpoint(tensors, config), "VAE", torch.float32)

    @cached_property
    def text_encoders(self) -> tuple[TextEncoder, ...]:
        """CLIP's; for SDXL OpenCLIP's behind it."""
        if self.file.family is Family.SD1:
            tensors = self._read("cond_stage_model.transformer.")
            folder = self._clip_folder(self._params.get("cond_stage_config"))
            return (self._clip(tensors, folder, penultimate=False),)
        embedders = self._params.get("conditioner_config", {}).get("params", {}).get("emb_models", ())
        first, second = (self._clip_folder(embedders[i] if i < len(embedders) else None) for i in range(2))
        return (
            self._clip(self._read("conditioner.embedders.0.transformer."), first, penultimate=True),
            self._open_clip(self._read("conditioner.embedders.1.model."), second),
        )

    @torch.no_grad()
    def encode(self, prompt: str, clip_skip: int, *, negative: bool) -> Encoded:
        """A text as this checkpoint's UNet reads it. An empty negative prompt is zeros for SDXL, as it was trained."""
        encoded = [encoder.encode(prompt, clip_skip) for encoder in self.text_encoders]
        if self.file.family is Family.SD1:
            return encoded[0]
        context = torch.cat([part.context for part in encoded], dim=-1)
        pooled = encoded[-1].pooled
        assert pooled is not None
        if negative and not prompt:
            return Encoded(torch.zeros_like(context), torch.zeros_like(pooled))
        return Encoded(context, pooled)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """A finished latent as a picture, 1 x 3 x height x width, from 0 to 1."""
        picture = self.vae.decode(latent.float() / self.vae.config.scaling_factor).sample
        return (picture / 2 + 0.5).clamp(0, 1)

    def load(self) -> float:
        """Have everything in place; the seconds it took."""
        start = time.perf_counter()
        assert self.text_encoders
        assert self.unet
        assert self.vae
        return time.perf_counter() - start

    def _read(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, by their full names."""
        try:
            with safe_open(self.file.path, "pt") as file:
                return {key: file.get_tensor(key) for key in self.file.header if key.startswith(prefix)}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.file.path} cannot be read: {error}") from None

    def _config(self, create: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        try:
            return dict(create({"model": {"params": self._params}}, tensors))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.file.config_path} does not describe a model: {error!r}") from None

    def _fill(self, model: nn.Module, tensors: Mapping[str, Tensor], what: str, dtype: torch.dtype) -> Any:
        """The model with its tensors from the file, all of them, none left over that it cannot hold."""
        wanted = model.state_dict()
        missing = [key for key in wanted if key not in tensors]
        if missing:
            raise InputError(self._misfit(what, f"{len(missing)} tensors are missing, {missing[0]} is one"))
        for key, tensor in wanted.items():
            if tensor.shape != tensors[key].shape:
                shapes = f"{tuple(tensors[key].shape)} in the file, {tuple(tensor.shape)} expected"
                raise InputError(self._misfit(what, f"{key} is {shapes}"))
        model.load_state_dict({key: tensors[key].to(dtype) for key in wanted}, assign=True)
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:  # CLIP's position ids are no part of the state
                owner, _, own = name.rpartition(".")
                assert own == "position_ids", name
                model.get_submodule(owner).register_buffer(
                    own, torch.arange(buffer.shape[-1]).expand((1, -1)), persistent=False
                )
        return model.requires_grad_(False).eval().to(self.place.device)

    def _misfit(self, what: str, reason: str) -> str:
        described = self.file.config_path or f"the usual {self.file.family.value} sizes (no config beside it)"
        return f"{self.file.path} does not hold the {what} that {described} describes: {reason}"

    def _clip_folder(self, stage: Any) -> Path | None:
        """The folder with CLIP's config and vocabulary that the original config names, if it names one."""
        version = ((stage or {}).get("params") or {}).get("version")
        if version is None or version == _HUB_CLIP:
            return None
        assert self.file.config_path is not None
        folder = self.file.config_path.parent / str(version)
        if not (folder / "config.json").is_file():
            raise InputError(f"{self.file.config_path} names {version!r} for its text encoder: no config.json there")
        return folder

    def _clip(self, tensors: Mapping[str, Tensor], folder: Path | None, *, penultimate: bool) -> TextEncoder:
        weights = {
            # before transformers 4.31 checkpoints were also written without this part of the name
            key.partition(".transformer.")[2].removeprefix("text_model."): tensor
            for key, tensor in tensors.items()
        }
        config = _text_config(folder, weights, "quick_gelu")
        with torch.device("meta"):
            model = CLIPTextModel(config)
        filled = self._fill(model, _named_for(model, weights), "text encoder", self.place.dtype)
        return TextEncoder(filled, _tokenizer(folder), penultimate=penultimate)

    def _open_clip(self, tensors: Mapping[str, Tensor], folder: Path | None) -> TextEncoder:
        prefix = "conditioner.embedders.1.model."
        if f"{prefix}text_projection" not in tensors:
            raise InputError(f"{self.file.path} has no projection in its second text encoder")
        renamed = convert.convert_open_clip_checkpoint(None, dict(tensors), prefix=prefix)
        weights = {key.removeprefix("text_model."): tensor for key, tensor in renamed.items()}
        config = _text_config(folder, weights, "gelu")
        with torch.device("meta"):
            model = CLIPTextModelWithProjection(config)
        filled = self._fill(model, _named_for(model, weights), "second text encoder", self.place.dtype)
        return TextEncoder(filled, _tokenizer(folder), pad=0, penultimate=True, projected=True)


def _named_for(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under this model's names: transformers 5 wraps one CLIP model in ``text_model`` and not the other."""
    wrapped = {key for key in model.state_dict() if key.startswith("text_model.")}
    return {(f"text_model.{key}" if f"text_model.{key}" in wrapped else key): tensor for key, tensor in weights.items()}


def _text_config(folder: Path | None, weights: Mapping[str, Tensor], activation: str) -> CLIPTextConfig:
    """From the folder, else read off the weights: every usual CLIP has attention heads that are 64 wide."""
    if folder is not None:
        return CLIPTextConfig.from_pretrained(folder)
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        projection = weights.get("text_projection.weight")
        return CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=len({key.split(".")[2] for key in weights if key.startswith("encoder.layers.")}),
            num_attention_heads=max(width // _HEAD_WIDTH, 1),
            max_position_embeddings=weights["embeddings.position_embedding.weight"].shape[0],
            projection_dim=width if projection is None else projection.shape[0],
            hidden_act=activation,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=0,
        )
    except KeyError as error:
        raise InputError(f"the text encoder has no {error}") from None


def _tokenizer(folder: Path | None) -> Tokenizer:
    """The vocabulary in the folder, else the standard one."""
    source = folder if folder is not None and (folder / "vocab.json").is_file() else CLIP_FOLDER
    if not (source / "vocab.json").is_file():
        raise InputError(f"CLIP's vocabulary is missing: no vocab.json in {source}")
    # text.py cuts texts into chunks: any length is right, and none is worth a warning
    tokenizer: Any = CLIPTokenizer.from_pretrained(source, model_max_length=1 << 30)
    return tokenizer


class Checkpoints:
    """The checkpoints of a process, each loaded once and kept."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or best_place()
        self._loaded: dict[tuple[str, Path | None], Checkpoint] = {}

    def get(self, file: CheckpointFile) -> tuple[Checkpoint, float | None]:
        """The checkpoint, everything in place, and the seconds it took; ``None`` where it was there already."""
        key = file.sha256, file.config_path  # copies of one file may be described differently
        if key in self._loaded:
            return self._loaded[key], None
        checkpoint = Checkpoint(file, self.place)
        seconds = checkpoint.load()
        self._loaded[key] = checkpoint
        return checkpoint, seconds
