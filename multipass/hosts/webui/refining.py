"""Between two trajectories: a finished latent is enlarged, brought into another latent space if need be, made noisy and
sampled again, in the order and with the numbers of the host's hires fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from modules import devices, images, processing, rng, sd_samplers, sd_samplers_common, shared
from PIL import Image, ImageOps
from torch import Tensor

from multipass.hosts.webui import heads, hooks, pixels
from multipass.hosts.webui.heads import Size
from multipass.plan import Pass

_RESIZED = 3  # the resize mode "just resize (latent upscale)", which leaves the init image as it is


@contextmanager
def hires_returns_its_latent(p: Any) -> Iterator[None]:
    """While this lasts, the host's hires fix does not decode what it has sampled."""
    original = processing.decode_latent_batch

    def decode_latent_batch(model: Any, batch: Tensor, *args: Any, **kwargs: Any) -> Any:
        return batch if p.is_hr_pass else original(model, batch, *args, **kwargs)

    with hooks.replaced(processing, decode_latent_batch=decode_latent_batch):
        yield


def enlarges_pixels(head: Pass) -> bool:
    """Whether the head's upscaler works on the picture."""
    return head.upscaler is not None and head.upscaler not in shared.latent_upscale_modes


def decoded(p: Any, latent: Tensor) -> Tensor:
    """The pictures, by the VAE that is in place: n x 3 x height x width, -1..1, in RAM."""
    pictures = processing.decode_latent_batch(p.sd_model, latent, target_device=devices.cpu, check_for_nans=True)
    return torch.stack(pictures).to(dtype=torch.float32)


def enlarged_latent(latent: Tensor, head: Pass, size: Size) -> Tensor:
    """By a latent upscaler; untouched where neither an upscaler nor another size is asked for."""
    rows_columns = size.height // 8, size.width // 8
    if head.upscaler is None and latent.shape[-2:] == rows_columns:
        return latent
    way = shared.latent_upscale_modes[head.upscaler or shared.latent_upscale_default_mode]
    return torch.nn.functional.interpolate(latent, rows_columns, mode=way["mode"], antialias=way["antialias"])


def enlarged(
    p: Any, latent: Tensor | None, pictures: Tensor | None, head: Pass, size: Size
) -> tuple[Tensor, Tensor | None]:
    """The latent, or the pictures where they are given, as ``decoded`` gives them: as a latent of this size by the
    head's upscaler, and what it was encoded from, if it was not enlarged after that."""
    if pictures is None:
        assert latent is not None
        return enlarged_latent(latent, head, size), None
    if head.upscaler in shared.latent_upscale_modes:
        latent, _ = encoded(p, pictures, head, Size(pictures.shape[-1], pictures.shape[-2]))
        return enlarged_latent(latent, head, size), None
    return encoded(p, pictures, head, size)


def encoded(p: Any, pictures: Tensor, head: Pass, size: Size) -> tuple[Tensor, Tensor]:
    """Enlarged pictures, as ``decoded`` gives them, and their latents by the VAE that is in place.

    Without an upscaler of pixels, which another latent space can need all the same, by Lanczos.
    """
    upscaler = head.upscaler if enlarges_pixels(head) else "None"  # which is the host's word for Lanczos
    batch = []
    for picture in pixels.images_of(pictures):
        image = images.resize_image(0, picture, *size, upscaler_name=upscaler)
        batch.append(np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0))
    found = torch.from_numpy(np.array(batch)).to(shared.device)
    method = shared.opts.sd_vae_encode_method
    if method != "Full":
        p.extra_generation_params["VAE Encoder"] = method
    way = sd_samplers_common.approximation_indexes.get(method)
    return sd_samplers_common.images_tensor_to_samples(found, way), found * 2 - 1


def sampled(p: Any, latent: Tensor, pictures: Tensor | None, times: int) -> Tensor:
    """The latent made noisy and sampled by the model, conditioning and sampler that are the request's now.

    Args:
        pictures: what the latent was encoded from; ``None`` if it was not.
        times: how often a latent of this picture was made noisy before, the host's hires fix included. The first noise
            is the one that the hires fix has. A later one continues the sequence of the picture's own generator:
            the same noise over again would stay in the picture as a pattern, and so it is the same for the same seed,
            alone or in a batch.
    """
    sampler = sd_samplers.create_sampler(p.sampler_name, p.sd_model)
    with hooks.replaced(p, sampler=sampler, **_masks(p, latent)):
        image_conditioning = _image_conditioning(p, latent, pictures)
        devices.torch_gc()
        return sampled_img2img(p, latent, times, image_conditioning=image_conditioning, initial_noise_multiplier=1.0)


def sampled_img2img(p: Any, latent: Tensor, times: int, **prepared: Any) -> Tensor:
    """The same, with fields of the request that the host's img2img prepares of the latent."""
    of_seeds = {name: getattr(p, name) for name in ("subseeds", "subseed_strength")}
    resized_from = {name: getattr(p, name) for name in ("seed_resize_from_h", "seed_resize_from_w")}
    noise = rng.ImageRNG(latent.shape[1:], p.seeds, **of_seeds, **resized_from)
    for _ in range(times):
        noise.next()
    # the host's img2img does with a latent what its hires fix does with it, and holds the mask; the option makes it run
    # the steps that were asked for, as the hires fix does
    with (
        hooks.replaced(p, rng=noise, **{"init_latent": latent, **prepared}),
        hooks.options({"img2img_fix_steps": True}),
    ):
        return processing.StableDiffusionProcessingImg2Img.sample(
            p, p.c, p.uc, p.seeds, p.subseeds, p.subseed_strength, p.prompts
        )


def sampled_again(p: Any, sample: Callable[..., Tensor], drawn: Any) -> Tensor:
    """What ``sample`` gives with the model and conditioning that are the request's now, from the same noise as
    before and without the hires fix.

    Args:
        sample: the request's own method, with the arguments that it had.
        drawn: the ``ImageRNG`` that it drew from.
    """
    names = ("subseeds", "subseed_strength", "seed_resize_from_h", "seed_resize_from_w")
    noise = rng.ImageRNG(drawn.shape, drawn.seeds, **{name: getattr(drawn, name) for name in names})
    without_hires = {"enable_hr": False} if getattr(p, "enable_hr", False) else {}
    # a new one: img2img goes on with the sampler that it was set up with, which knows the model before
    sampler = sd_samplers.create_sampler(p.sampler_name, p.sd_model)
    with hooks.replaced(p, rng=noise, sampler=sampler, **without_hires):
        c, uc = p.get_conds()
        return sample(conditioning=c, unconditional_conditioning=uc)


def overlays(p: Any, size: Size) -> dict[str, Any]:
    """The fields by which the host lays what is not masked over a picture of this size, for one that it made for its
    own: empty without a mask, and where it pastes the picture into the whole one, whatever size it has."""
    if getattr(p, "mask_for_overlay", None) is None or heads.pastes(p) or size == Size(p.width, p.height):
        return {}
    mask = images.resize_image(0, p.mask_for_overlay, *size)
    found: list[Image.Image] = []
    for image in originals(p, size):
        unmasked = Image.new("RGBa", image.size)
        unmasked.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
        found.append(unmasked.convert("RGBA"))
    each = len(p.overlay_images) // len(found)
    return {"overlay_images": found * each, "mask_for_overlay": mask}


def originals(p: Any, size: Size) -> list[Image.Image]:
    """The init images as the host brings them to this size; of one that is inpainted in a part of it alone, the part.
    None in txt2img."""
    found: list[Image.Image] = []
    for given in getattr(p, "init_images", None) or ():
        image = images.flatten(given, shared.opts.img2img_background_color)
        if heads.pastes(p):
            left, top, width, height = p.paste_to
            image = images.resize_image(2, image.crop((left, top, left + width, top + height)), *size)
        else:
            image = images.resize_image(0 if p.resize_mode == _RESIZED else p.resize_mode, image, *size)
        found.append(image)
    return found


def _masks(p: Any, latent: Tensor) -> dict[str, Tensor | None]:
    """The request's mask at the latent's size. What it protects is then the latent itself."""
    masks = {name: getattr(p, name, None) for name in ("mask", "nmask")}
    return {name: None if mask is None else _resized(mask, latent)[0] for name, mask in masks.items()}


def _resized(mask: Tensor, latent: Tensor) -> Tensor:
    found = torch.nn.functional.interpolate(mask[None, :1], latent.shape[-2:], mode="nearest")
    return found.expand(-1, latent.shape[1], -1, -1)


def _image_conditioning(p: Any, latent: Tensor, pictures: Tensor | None) -> Tensor:
    """What the UNet is shown beside the latent; a usual one nothing, and for that nothing is decoded."""
    found = p.txt2img_image_conditioning(latent)
    if found.shape[1:] == (5, 1, 1):
        return found
    weight = getattr(p, "inpainting_mask_weight", shared.opts.inpainting_mask_weight)
    mask = getattr(p, "nmask", None)
    if pictures is None and mask is None and weight == 1:
        return found
    shown = processing.decode_first_stage(p.sd_model, latent) if pictures is None else pictures
    if mask is not None:
        mask = torch.nn.functional.interpolate(mask[None, :1], shown.shape[-2:], mode="nearest")
    return p.img2img_image_conditioning(shown, latent, mask)
