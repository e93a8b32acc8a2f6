"""One subject repainted: a region of a finished picture, by the host's own img2img inpainting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, images, processing, shared
from PIL import Image
from torch import Tensor

from multipass.hosts.webui import compat, hooks, pixels, refining
from multipass.hosts.webui.heads import Size
from multipass.plan import Pass
from multipass.subjects import Region

_ORIGINAL = 1  # masked content: what is there is what is redrawn
_OF_A_PICTURE = ("seeds", "subseeds", "prompts", "negative_prompts")
_PREPARED = ("sampler", "init_latent", "mask", "nmask", "image_conditioning", "initial_noise_multiplier")


@contextmanager
def alone(p: Any, place: int) -> Iterator[None]:
    """While this lasts, the request's batch is one of its pictures."""
    own = {name: getattr(p, name)[place : place + 1] for name in _OF_A_PICTURE}
    # samplers look for their seeds among those of all batches
    seeds = {f"all_{name}": own[name] * (p.iteration + 1) for name in ("seeds", "subseeds")}
    with hooks.replaced(p, batch_size=1, **own, **seeds):
        yield


def enlarged(pictures: list[Image.Image], head: Pass, size: Size) -> list[Image.Image]:
    """By the pass's upscaler, which is one of pixels, else by Lanczos."""
    name = head.upscaler or "None"  # which is the host's word for Lanczos
    return [images.resize_image(0, picture, *size, upscaler_name=name) for picture in pictures]


class Repaint:
    """As the host prepares it when img2img is asked for the same, with the model that is in place.

    Args:
        p: the request, of one picture now, as the subject pass samples.
        picture: finished.
        mask: of mode ``L`` and the picture's size, white where it is repainted, or where not, of an inverted region.

    Attributes:
        mask: what is repainted, blurred as it was asked for; ``None`` where that leaves nothing.
    """

    def __init__(self, p: Any, picture: Image.Image, mask: Image.Image, region: Region) -> None:
        self._p = p
        size = Size(p.width, p.height)
        # a picture with parts of places of the latent is one large region
        only_masked, padding = region.only_masked, region.mask_padding
        if not only_masked and size != Size(*picture.size):
            only_masked, padding = True, max(picture.size)
        self._made = made = processing.StableDiffusionProcessingImg2Img(
            sd_model=shared.sd_model,
            init_images=[picture],
            mask=mask,
            mask_blur=region.mask_blur,
            inpainting_fill=_ORIGINAL,
            inpaint_full_res=only_masked,
            inpaint_full_res_padding=padding,
            inpainting_mask_invert=int(region.invert),
            denoising_strength=p.denoising_strength,
            sampler_name=p.sampler_name,
            steps=p.steps,
            seed=p.seeds[0],
            batch_size=1,
            **size._asdict(),
        )
        # encoding draws from the generator that the host seeds with each picture's noise, and that loading draws from
        torch.manual_seed(int(p.seeds[0]))
        with hooks.options({"save_init_img": False}), compat.masking_nothing(), devices.autocast():
            made.init(p.prompts, p.seeds, p.subseeds)
        left = made.mask_for_overlay
        self.mask: Image.Image | None = left if left is not None and left.getbbox() else None

    def sampled(self, times: int) -> Tensor:
        """By the conditioning that is the request's now; ``times`` as in ``refining.sampled``."""
        prepared = {name: getattr(self._made, name) for name in _PREPARED}
        return refining.sampled_img2img(self._p, self._made.init_latent, times, **prepared)

    def pasted(self, latent: Tensor) -> Image.Image:
        """The whole picture with the region, decoded by the VAE in place; where the mask is black, as it was."""
        (image,) = pixels.images_of(refining.decoded(self._p, latent))
        if self._made.color_corrections is not None:
            image = processing.apply_color_correction(self._made.color_corrections[0], image)
        whole, _ = processing.apply_overlay(image, self._made.paste_to, self._made.overlay_images[0])
        return whole
