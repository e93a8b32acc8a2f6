"""What kind of model a checkpoint is, from its tensors' names and shapes, and which kinds share a trajectory."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

import msgspec

from multipass.plan import Plan
from multipass.problems import Problem

Shapes = Mapping[str, tuple[int, ...]]

_UNET = "model.diffusion_model."


class Family(enum.Enum):
    """Decides the text encoders and the latent space."""

    SD1 = "SD 1.x"
    SD2 = "SD 2.x"
    SDXL = "SDXL"
    REFINER = "SDXL refiner"
    SD3 = "SD 3"
    FLUX = "Flux"

    @property
    def latents(self) -> Family:
        """The family whose latent space it has."""
        return _LATENTS.get(self, self)

    @property
    def side(self) -> int | None:
        """Of a square picture that its models are made for, in pixels; ``None`` where that is not settled."""
        return _SIDES.get(self)


_SIDES = {Family.SD1: 512, Family.SD2: 768, Family.SDXL: 1024}
_LATENTS = {Family.SD2: Family.SD1, Family.REFINER: Family.SDXL}
_TEXT_ENCODERS = {
    "cond_stage_model.transformer.": Family.SD1,
    "conditioner.embedders.1.model.": Family.SDXL,
    "cond_stage_model.model.": Family.SD2,
    "conditioner.embedders.0.model.": Family.REFINER,
}
_CONTEXT_WIDTHS = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL, 1280: Family.REFINER}
_INPUTS = {5: "a depth model's", 8: "an InstructPix2Pix model's", 9: "an inpainting model's"}


class Kind(msgspec.Struct, frozen=True):
    """What two checkpoints must agree in to share a trajectory; ``None`` where it was not recognised."""

    family: Family | None = None
    unet_channels: int | None = None

    def __str__(self) -> str:
        family = "of an unknown kind" if self.family is None else self.family.value
        return family if self.unet_channels is None else f"{family}, {self.unet_channels} UNet channels"


def recognise(shapes: Shapes) -> Kind:
    """From a checkpoint's text encoders, which may be of any size, else from its UNet."""
    channels = unet_channels(shapes)
    family = by_text_encoder(shapes) or _by_transformer(shapes)
    if family is None and channels is not None:
        family = _by_context(shapes)
    return Kind(family, channels)


def by_text_encoder(shapes: Shapes) -> Family | None:
    """``None`` where no text encoder that we know is in the file."""
    for prefix, family in _TEXT_ENCODERS.items():
        if any(name.startswith(prefix) for name in shapes):
            # SD 2.x Turbo is laid out as the SDXL refiner; the hosts, too, tell it by the width of OpenCLIP's ViT-H
            is_turbo = shapes.get("conditioner.embedders.0.model.ln_final.weight") == (1024,)
            return Family.SD2 if family is Family.REFINER and is_turbo else family
    return None


def unet_channels(shapes: Shapes) -> int | None:
    """The UNet's input channels: 4, or more for a model that is shown something beside the noisy latent."""
    shape = _of_unet(shapes, "input_blocks.0.0.weight")
    return shape[1] if shape is not None and len(shape) == 4 else None


def clashes(plan: Plan, checkpoints: Mapping[int, tuple[str, Kind]]) -> Iterator[Problem]:
    """Every checkpoint that cannot continue what another one of its trajectory began, where it is first named.

    Args:
        checkpoints: name and kind by pass index; a pass that is not there clashes with nothing.
    """
    before: list[tuple[str, Kind]] = []
    for index, own in plan.running:
        if own.is_head:
            before = []
        here = checkpoints.get(index)
        if here is None or here in before:
            continue
        for other in before:
            reason = _clash(here[1], other[1])
            if reason:
                message = f"{here[0]} ({here[1]}) cannot continue what {other[0]} ({other[1]}) began: {reason}"
                yield Problem(f"passes[{index}].checkpoint", message)
                break
        before.append(here)


def _clash(one: Kind, other: Kind) -> str | None:
    """Why the two do not share a trajectory, as far as both were recognised."""
    if one.family and other.family and one.family.latents is not other.family.latents:
        return "the checkpoints of a trajectory share one latent space"
    channels = one.unet_channels, other.unet_channels
    if None in channels or one.unet_channels == other.unet_channels:
        return None
    special = "".join(f", {count} channels are {_INPUTS[count]}" for count in channels if count in _INPUTS)
    return f"the UNets of a trajectory take the same input{special}"


def _of_unet(shapes: Shapes, name: str) -> tuple[int, ...] | None:
    """The shape of a tensor of the UNet, which may be the whole file."""
    return shapes.get(_UNET + name, shapes.get(name))


def _by_transformer(shapes: Shapes) -> Family | None:
    patches = _of_unet(shapes, "x_embedder.proj.weight")
    if patches is not None and len(patches) == 4 and patches[1] == 16:
        return Family.SD3
    return Family.FLUX if _of_unet(shapes, "double_blocks.0.img_attn.norm.key_norm.scale") else None


def _by_context(shapes: Shapes) -> Family | None:
    for name, shape in shapes.items():
        if name.endswith(".attn2.to_k.weight") and len(shape) == 2:
            return _CONTEXT_WIDTHS.get(shape[1])
    return None
