"""Finished pictures: as the bytes that the webui saves, and as the numbers that it makes exactly these bytes of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from modules import processing
from PIL import Image
from torch import Tensor


def whole(decoded: Tensor) -> Tensor:
    """What a VAE gives (N, 3, height, width, -1..1), cut to 0..1."""
    return torch.clamp((decoded.float() + 1.0) / 2.0, min=0.0, max=1.0)


def image_of(picture: Tensor) -> Image.Image:
    """3, height, width, 0..1, cut to bytes as the webui does it."""
    return Image.fromarray((255.0 * np.moveaxis(picture.float().cpu().numpy(), 0, 2)).astype(np.uint8))


def images_of(decoded: Tensor) -> list[Image.Image]:
    """What a VAE gives, as the webui saves it."""
    return [image_of(one) for one in whole(decoded)]


def decoded_as(pictures: Sequence[Image.Image]) -> Tensor:
    """The inverse of ``images_of``, for pictures of one size: in the middle of what is cut to each byte."""
    values = np.stack([np.moveaxis(np.asarray(picture.convert("RGB")), 2, 0) for picture in pictures])
    return torch.from_numpy((values.astype(np.float32) + 0.5) / 255.0 * 2.0 - 1.0)


def already_decoded(pictures: Sequence[Image.Image]) -> processing.DecodedSamples:
    """The same, as the host takes what it need not decode."""
    found = processing.DecodedSamples()
    found.extend(decoded_as(pictures))
    return found
