"""A checkpoint's networks, built with diffusers and transformers for a single file, without an internet connection.

The conversion is the one behind diffusers' ``from_single_file``; it is called by its parts because that method fetches
configs for the usual sizes and leaves tensors it does not find in the file at random values. Here every tensor must
come from the file.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from diffusers.loaders import single_file_utils as convert
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from multipass.cache import reader, weights
from multipass.cache.weights import Weights
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


class Component(enum.Enum):
    """What is read from a checkpoint, kept and let go of by itself."""

    TEXT = "text encoders"
    UNET = "unet"
    VAE = "vae"


class _Network(NamedTuple):
    """A module without numbers, and how its tensors are found in the file.

    Attributes:
        prefix: of their names in the file.
        renamed: from the names in the file to the module's.
    """

    module: Any
    prefix: str
    renamed: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


class Checkpoint:
    """A checkpoint's networks, and the tensors for them.

    A network is built when it is first asked for, from the shapes in the file's header, without numbers: it can be used
    while it is pointed at the tensors that ``read`` gives. So what does not fit is found out before anything is read.

    Raises InputError from everything, where the file and its config do not fit each other.
    """

    def __init__(self, file: CheckpointFile, place: Place) -> None:
        self.file = file
        self.place = place
        self._params: dict[str, Any] = (file.config or ORIGINALS[file.family])["model"]["params"]

    @property
    def v_prediction(self) -> bool:
        """Whether the UNet answers with a velocity; else with the noise."""
        return self._params.get("parameterization") == "v" or "v_pred" in self.file.header

    @property
    def unet(self) -> Any:
        """diffusers' UNet."""
        return self._unet.module

    @property
    def vae(self) -> Any:
        """diffusers' VAE."""
        return self._vae.module

    @property
    def text_encoders(self) -> tuple[TextEncoder, ...]:
        """CLIP's; for SDXL OpenCLIP's behind it."""
        return tuple(encoder for encoder, _ in self._text)

    def module(self, component: Component) -> nn.Module:
        """All there is of the component."""
        return self._whole[component][0]

    def empty(self, component: Component) -> None:
        """Have the component hold no tensor any more."""
        module, without_numbers = self._whole[component]
        weights.point(module, without_numbers, torch.device("meta"))

    def nbytes(self, component: Component) -> int:
        """What the component's tensors take in memory, once they are read."""
        return weights.nbytes(self._whole[component][1])

    def read(
        self,
        component: Component,
        cancelled: threading.Event | None = None,
        advanced: Callable[[int], None] | None = None,
    ) -> Weights:
        """The component's tensors, into RAM, as its module is to be pointed at them.

        Args:
            cancelled, advanced: as for ``multipass.cache.reader.read``.

        Raises:
            Cancelled, MemoryError: as it does.
        """
        found: dict[str, Tensor] = {}
        for number, network in enumerate(self._networks(component)):
            tensors = dict(network.renamed(self._read(network.prefix, cancelled, advanced)))
            for name, wanted in network.module.state_dict(keep_vars=True).items():
                # popped: where it is cast, the file's own need not stay beside it
                found[f"{number}.{name}"] = weights.as_in(wanted, tensors.pop(name))
        return found

    @torch.no_grad()
    def encode(self, prompt: str, clip_skip: int, *, negative: bool) -> Encoded:
        """A text as this checkpoint's UNet reads it. An empty negative prompt is zeros for SDXL, as it was trained.

        To be called while the text encoders are in use, as ``decode`` and ``encode_picture`` while the VAE is.
        """
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

    @torch.no_grad()
    def encode_picture(self, picture: Tensor) -> Tensor:
        """The latent of a picture, 1 x 3 x height x width, from 0 to 1: the middle of what the VAE finds likely."""
        return self.vae.encode(picture * 2 - 1).latent_dist.mode() * self.vae.config.scaling_factor

    # --- the networks -------------------------------------------------------------------------------------------------

    @cached_property
    def _unet(self) -> _Network:
        prefix = "model.diffusion_model."
        outline = self._outline(prefix)
        config = self._config(convert.create_unet_diffusers_config_from_ldm, outline)
        if self.file.family is Family.SDXL:
            # diffusers tells SDXL by its usual context widths alone
            config |= {"class_embed_type": None, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        with torch.device("meta"):
            unet: Any = UNet2DConditionModel.from_config(config)
        network = _Network(unet, prefix, lambda tensors: convert.convert_ldm_unet_checkpoint(tensors, config))
        return self._fitting(network, "UNet", self.place.dtype)

    @cached_property
    def _vae(self) -> _Network:
        prefix = "first_stage_model."
        config = self._config(convert.create_vae_diffusers_config_from_ldm, self._outline(prefix))
        with torch.device("meta"):
            vae: Any = AutoencoderKL.from_config(config)
        network = _Network(vae, prefix, lambda tensors: convert.convert_ldm_vae_checkpoint(tensors, config))
        return self._fitting(network, "VAE", torch.float32)

    @cached_property
    def _text(self) -> tuple[tuple[TextEncoder, _Network], ...]:
        if self.file.family is Family.SD1:
            folder = self._clip_folder(self._params.get("cond_stage_config"))
            return (self._clip("cond_stage_model.transformer.", folder, penultimate=False),)
        embedders = self._params.get("conditioner_config", {}).get("params", {}).get("emb_models", ())
        first, second = (self._clip_folder(embedders[i] if i < len(embedders) else None) for i in range(2))
        return (
            self._clip("conditioner.embedders.0.transformer.", first, penultimate=True),
            self._open_clip("conditioner.embedders.1.model.", second),
        )

    def _networks(self, component: Component) -> tuple[_Network, ...]:
        match component:
            case Component.UNET:
                return (self._unet,)
            case Component.VAE:
                return (self._vae,)
            case Component.TEXT:
                return tuple(network for _, network in self._text)

    @cached_property
    def _whole(self) -> dict[Component, tuple[nn.Module, Weights]]:
        """Every component as one module, and the tensors without numbers that it is built with."""
        whole: dict[Component, tuple[nn.Module, Weights]] = {}
        for component in Component:
            module = nn.ModuleList(network.module for network in self._networks(component))
            whole[component] = module, module.state_dict(keep_vars=True)
        return whole

    def _outline(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, by their full names, without numbers."""
        header = self.file.header.items()
        return {key: torch.empty(shape, device="meta") for key, shape in header if key.startswith(prefix)}

    def _read(
        self, prefix: str, cancelled: threading.Event | None, advanced: Callable[[int], None] | None
    ) -> dict[str, Tensor]:
        """The same with numbers."""
        names = [key for key in self.file.header if key.startswith(prefix)]
        try:
            tensors = reader.read(self.file.path, names, cancelled=cancelled, advanced=advanced)
        except reader.ReadError as error:
            raise InputError(f"{self.file.path} cannot be read: {error}") from None
        if self.file.changed:
            raise InputError(f"{self.file.path} cannot be read: it was changed since its hash was computed")
        return tensors

    def _config(self, create: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        try:
            return dict(create({"model": {"params": self._params}}, tensors))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.file.config_path} does not describe a model: {error!r}") from None

    def _fitting(self, network: _Network, what: str, dtype: torch.dtype) -> _Network:
        """The network, for all of whose tensors the file has one of the same shape."""
        module, tensors = network.module, network.renamed(self._outline(network.prefix))
        wanted = module.state_dict()
        missing = [key for key in wanted if key not in tensors]
        if missing:
            raise InputError(self._misfit(what, f"{len(missing)} tensors are missing, {missing[0]} is one"))
        for key, tensor in wanted.items():
            if tensor.shape != tensors[key].shape:
                shapes = f"{tuple(tensors[key].shape)} in the file, {tuple(tensor.shape)} expected"
                raise InputError(self._misfit(what, f"{key} is {shapes}"))
        for name, buffer in list(module.named_buffers()):
            if name not in wanted:  # CLIP's position ids are no part of the state
                owner, _, own = name.rpartition(".")
                assert own == "position_ids", name
                ids = torch.arange(buffer.shape[-1], device=self.place.device).expand((1, -1))
                module.get_submodule(owner).register_buffer(own, ids, persistent=False)
        nn.Module.to(module, dtype)  # diffusers' own warns of what does not concern us
        module.requires_grad_(False).eval()
        return network

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

    def _clip(self, prefix: str, folder: Path | None, *, penultimate: bool) -> tuple[TextEncoder, _Network]:
        def stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            # before transformers 4.31 checkpoints were also written without this part of the name
            return {key.removeprefix(prefix).removeprefix("text_model."): tensor for key, tensor in tensors.items()}

        config = _text_config(folder, stripped(self._outline(prefix)), "quick_gelu")
        with torch.device("meta"):
            model = CLIPTextModel(config)
        network = _Network(model, prefix, lambda tensors: _named_for(model, stripped(tensors)))
        fitting = self._fitting(network, "text encoder", self.place.dtype)
        return TextEncoder(fitting.module, _tokenizer(folder), penultimate=penultimate), fitting

    def _open_clip(self, prefix: str, folder: Path | None) -> tuple[TextEncoder, _Network]:
        def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            found = convert.convert_open_clip_checkpoint(None, tensors, prefix=prefix)
            return {key.removeprefix("text_model."): tensor for key, tensor in found.items()}

        if f"{prefix}text_projection" not in self.file.header:
            raise InputError(f"{self.file.path} has no projection in its second text encoder")
        config = _text_config(folder, renamed(self._outline(prefix)), "gelu")
        with torch.device("meta"):
            model = CLIPTextModelWithProjection(config)
        network = _Network(model, prefix, lambda tensors: _named_for(model, renamed(tensors)))
        fitting = self._fitting(network, "second text encoder", self.place.dtype)
        encoder = TextEncoder(fitting.module, _tokenizer(folder), pad=0, penultimate=True, projected=True)
        return encoder, fitting


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
