"""The masks of subject passes as pictures: white where something is repainted."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from multipass.detection import Found
from multipass.plan import Pass, PassKind, Plan
from multipass.problems import PlanError, Problem
from multipass.subjects import Region, chosen

_NEARLY = 8  # pixels by which a shape may be another: pictures are cut to whole places of the latent
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_OPAQUE = (255, 255)
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What browsers and painting programs write. Pillow knows more, of which one (EPS) starts a program, and a plan may be
a stranger's."""


def read(text: str) -> Image.Image:
    """A plan's mask, base64 or a ``data:`` URL, in mode ``L``. As the webui looks at a mask: by its alpha channel where
    that says something.

    Raises:
        ValueError: where it is no picture.
    """
    _, _, encoded = text.rpartition(",") if text.startswith("data:") else ("", "", text)
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=_FORMATS)
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
        if alpha is not None and alpha.getextrema() != _OPAQUE:
            return alpha.point([255 if level > 128 else 0 for level in range(256)])
        if picture.mode.startswith("I"):  # maybe of 16 bits, which convert would cut off at 255
            picture = picture.convert("I")
            _, brightest = cast("tuple[float, float]", picture.getextrema())  # of one channel
            if brightest > 255:
                picture = picture.point(lambda level: level * (1 / 257))
        return picture.convert("L")
    except UnidentifiedImageError:  # whose text is of a Python object
        raise ValueError(f"expected a picture in base64: {', '.join(_FORMATS)}") from None
    except _UNREADABLE as error:
        raise ValueError(f"expected a picture in base64: {error}") from None


def written(mask: Image.Image) -> str:
    """As small as it goes; ``read`` gives it back."""
    is_binary = not any(mask.histogram()[1:255])
    data = io.BytesIO()
    (mask.convert("1") if is_binary else mask).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def normalised(plan: Plan) -> Plan:
    """The plan with its masks, of the passes that are on, as ``written`` writes them.

    Raises:
        PlanError: for a mask that is none, or with which nothing would be repainted.
    """
    problems: list[Problem] = []
    passes = list(plan.passes)
    for index, _ in plan.running:
        own = passes[index]
        if own.kind is PassKind.SUBJECT and own.mask is not None:
            try:
                passes[index] = msgspec.structs.replace(own, mask=written(_usable(own)))
            except ValueError as error:
                problems.append(Problem(f"passes[{index}].mask", str(error)))
    if problems:
        raise PlanError(*problems)
    return msgspec.structs.replace(plan, passes=tuple(passes))


def misshapen(plan: Plan, sizes: Sequence[tuple[int, int]]) -> Iterator[Problem]:
    """Masks of another shape than the pictures that they are for. One that only differs in size is resized.

    Args:
        plan: its masks are normalised.
        sizes: width and height of each trajectory's picture.
    """
    for trajectory, (width, height) in zip(plan.trajectories, sizes, strict=True):
        if trajectory.head.mask is None:
            continue
        mask = read(trajectory.head.mask)
        if abs(mask.width * height / mask.height - width) >= _NEARLY:
            told = f"expected the shape of the picture, {width}x{height}, got {mask.width}x{mask.height}"
            yield Problem(f"passes[{trajectory.index}].mask", told)


def of_picture(
    picture: Image.Image, region: Region, find: Callable[[Image.Image, str], Sequence[Found]]
) -> list[Image.Image]:
    """What is to be repainted of a picture, one after the other: masks of mode ``L`` and the picture's size. With an
    inverted region one that is white where nothing is repainted.

    Args:
        find: all subjects of a picture, by the target.
    """
    if region.mask is not None:
        mask = read(region.mask)
        return [mask if mask.size == picture.size else mask.resize(picture.size, Image.Resampling.LANCZOS)]
    assert region.target is not None, "the plan's rules require one of both"
    found = find(picture, region.target)
    wanted = [found[index].mask for index in chosen([one.box for one in found], region.which)]
    return [united(wanted)] if wanted and region.invert else wanted


def united(masks: Sequence[Image.Image]) -> Image.Image:
    """White wherever one of these, at least one, of one size, is."""
    whole, *others = masks
    for other in others:
        whole = ImageChops.lighter(whole, other)
    return whole


def _usable(own: Pass) -> Image.Image:
    assert own.mask is not None
    mask = read(own.mask)
    if (ImageOps.invert(mask) if own.invert else mask).getbbox() is None:
        told = "entirely white, and inverted" if own.invert else "entirely black"
        raise ValueError(f"nothing would be repainted: it is {told}")
    return mask
