"""A region of a finished picture, as it is repainted: the webui's inpainting, ``modules/masking.py`` and what its
img2img does around it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import conv2d

from multipass.hosts.standalone.job import Size
from multipass.hosts.standalone.layout import PIXELS_PER_LATENT
from multipass.subjects import Box, Region


class Repaint(msgspec.Struct, frozen=True):
    """One subject.

    Attributes:
        mask: what is replaced of the whole picture, blurred.
        box: the part of the picture that the model sees.
        part: that part, resized to what the model works with.
        held: 1 where the part's latent stays as it is, else 0; 1 x 1 x rows x columns.
    """

    picture: Image.Image
    mask: Image.Image
    box: Box
    part: Image.Image
    held: Tensor

    def pasted(self, part: Image.Image) -> Image.Image:
        """The whole picture with another part; where the mask is black, as it was."""
        box = self.box
        whole = self.picture.copy()
        whole.paste(_filling(part, Size(box.right - box.left, box.bottom - box.top)), (box.left, box.top))
        return Image.composite(whole, self.picture, self.mask)


def prepared(picture: Image.Image, mask: Image.Image, region: Region, size: Size) -> Repaint:
    """What the model is to see of a picture, in the size that it works with.

    Args:
        mask: as ``masks.of_picture`` gives it.
    """
    blurred = _blurred(ImageOps.invert(mask) if region.invert else mask, region.mask_blur)
    if not region.only_masked:
        seen, shown = blurred, blurred.point([min(2 * level, 255) for level in range(256)])
        return Repaint(picture, shown, Box(0, 0, *picture.size), picture, _held(seen))
    box = _expanded(_padded(blurred, region.mask_padding), size, picture)
    part = _fitting(picture.crop(box), size)
    return Repaint(picture, blurred, box, part, _held(_fitting(blurred.crop(box), size)))


def _held(seen: Image.Image) -> Tensor:
    width, height = (side // PIXELS_PER_LATENT for side in seen.size)
    small = np.asarray(seen.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy(1 - np.around(small / 255))[None, None]


def _blurred(mask: Image.Image, sigma: int) -> Image.Image:
    """By a Gaussian that is cut at two and a half sigma; the picture's edge is a mirror."""
    if sigma == 0:
        return mask
    radius = int(2.5 * sigma + 0.5)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    levels = np.asarray(mask)
    for margins in (((0, 0), (radius, radius)), ((radius, radius), (0, 0))):
        wide = torch.from_numpy(np.pad(levels, margins, mode="reflect").astype(np.float64))
        shape = [1, 1, *(2 * more + 1 for more, _ in margins)]
        blurred = conv2d(wide[None, None], (kernel / kernel.sum()).reshape(shape))
        levels = blurred.round().to(torch.uint8)[0, 0].numpy()
    return Image.fromarray(levels)


# --- the part that the model sees -------------------------------------------------------------------------------------


def _padded(mask: Image.Image, padding: int) -> Box:
    """What is not black, and so many pixels on every side."""
    # a mask that is too faint for its blur has none: then nothing will change
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    right, bottom = min(right + padding, mask.width), min(bottom + padding, mask.height)
    return Box(max(left - padding, 0), max(top - padding, 0), right, bottom)


def _expanded(box: Box, size: Size, picture: Image.Image) -> Box:
    """To the shape of what the model works with, as far as the picture goes."""
    width, height = box.right - box.left, box.bottom - box.top
    shape = size.width / size.height
    if width / height > shape:
        top, bottom = _widened(box.top, box.bottom, int(width / shape - height), picture.height)
        return Box(box.left, top, box.right, bottom)
    left, right = _widened(box.left, box.right, int(height * shape - width), picture.width)
    return Box(left, box.top, right, box.bottom)


def _widened(first: int, last: int, more: int, end: int) -> tuple[int, int]:
    first, last = first - more // 2, last + more - more // 2
    beyond = max(last - end, 0)
    first, last = first - beyond, last - beyond
    below = max(-first, 0)
    return first + below, min(last + below, end)


def _fitting(picture: Image.Image, size: Size) -> Image.Image:
    """Resized to lie within the size; what is left beside it repeats its edge."""
    resized, left, top = _within(picture, size, min)
    if resized.size == (size.width, size.height):
        return resized
    bottom, right = size.height - top - resized.height, size.width - left - resized.width
    margins = ((top, bottom), (left, right), (0, 0))[: np.asarray(resized).ndim]
    return Image.fromarray(np.pad(np.asarray(resized), margins, mode="edge"))


def _filling(picture: Image.Image, size: Size) -> Image.Image:
    """Resized to cover the size; what is too much of it is cut off."""
    resized, left, top = _within(picture, size, max)
    return resized.crop((-left, -top, size.width - left, size.height - top))


def _within(picture: Image.Image, size: Size, choose: Callable[[float, float], float]) -> tuple[Image.Image, int, int]:
    """In its own shape, by one of the two scales, and where its corner is when it is in the middle of the size."""
    across, down = size.width / picture.width, size.height / picture.height
    is_across = choose(across, down) == across
    width = size.width if is_across else picture.width * size.height // picture.height
    height = picture.height * size.width // picture.width if is_across else size.height
    resized = picture.resize((max(width, 1), max(height, 1)), Image.Resampling.LANCZOS)
    return resized, size.width // 2 - width // 2, size.height // 2 - height // 2
