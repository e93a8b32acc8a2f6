"""Pictures of the demo's subjects in two styles that share their geometry.

"soft" is the Fluent emoji set (gradients); "ink" is its flat twin with a bold dark stroke on every shape and a
bolder one around the silhouette. Both sets are MIT-licensed and come from the npm registry.
"""

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import resvg_py
from PIL import Image
from tqdm import tqdm

from subjects import SUBJECTS

Style = Literal["soft", "ink"]
STYLES: tuple[Style, Style] = ("soft", "ink")

PACKAGES: dict[Style, str] = {
    "soft": "@iconify-json/fluent-emoji@1.2.7",
    "ink": "@iconify-json/fluent-emoji-flat@1.2.6",
}
INK = "#1a1a1a"
ICON_UNITS = 32
CANVAS_UNITS = 48  # The icon's 32 units plus room on every side, so that rotations and shifts cut nothing off.
CANVAS_PIXELS = 384
PICTURE_PIXELS = 128

# Margin around the icon, in units, and pixels a unit. resvg panics on a few icons (a filter's region that it cuts off
# by one row) at some sizes; the next size works.
_RASTER_SIZES: tuple[tuple[int, int], ...] = ((8, 8), (16, 8), (0, 8), (2, 8), (4, 10))


@dataclass(frozen=True)
class Composition:
    """How a style places its subject: the family is common to both styles, the probabilities are not."""

    loose: float  # Share of pictures that are tilted, shifted and scaled; the others are nearly canonical.
    flipped: float  # Share of pictures that are mirrored.
    max_tilt: float = 25.0  # degrees
    scales: tuple[float, float] = (0.68, 1.0)
    max_shift: float = 0.13  # of the picture's side, at the smallest scale


# A model that saw only upright pictures would pull any half-denoised picture upright. So ink sees the whole family
# too, only seldom: from pure noise it picks upright, from soft's half-finished picture it follows what is there.
COMPOSITIONS: dict[Style, Composition] = {
    "soft": Composition(loose=0.9, flipped=0.5),
    "ink": Composition(loose=0.5, flipped=0.3),
}


def load_icons(cache: Path, style: Style) -> dict[str, str]:
    """The SVG bodies of a style's icon set by name, fetched once with `npm pack`."""
    cache.mkdir(parents=True, exist_ok=True)
    package = PACKAGES[style]
    archive = cache / (package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", package], cwd=cache, check=True)
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member is not None
        return {name: icon["body"] for name, icon in json.load(member)["icons"].items()}


def inked(body: str, line: float = 1.0, silhouette: float = 2.4) -> str:
    """A flat icon with outlines: strokes on its shapes, above a dark, fatter copy of the whole icon."""
    shadow = re.sub(r'fill="(?!none)[^"]*"', f'fill="{INK}"', body)
    stroke = f'stroke="{INK}" stroke-linejoin="round" stroke-linecap="round"'
    return f'<g {stroke} stroke-width="{silhouette}">{shadow}</g><g {stroke} stroke-width="{line}">{body}</g>'


def rasterise(body: str) -> Image.Image:
    """An icon on a white canvas with room around it."""
    for margin, density in _RASTER_SIZES:
        units = ICON_UNITS + 2 * margin
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-margin} {-margin} {units} {units}" '
            f'width="{units * density}" height="{units * density}">{body}</svg>'
        )
        try:
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
        except BaseException as error:  # A Rust panic is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            continue
        icon = Image.open(io.BytesIO(png)).convert("RGBA")
        side = round(icon.width * CANVAS_PIXELS / (CANVAS_UNITS * density))
        icon = icon.resize((side, side), Image.Resampling.LANCZOS)
        canvas = Image.new("RGBA", (CANVAS_PIXELS, CANVAS_PIXELS), "white")
        offset = (CANVAS_PIXELS - side) // 2
        canvas.alpha_composite(icon.crop((max(0, -offset), max(0, -offset), side, side)), (max(0, offset),) * 2)
        return canvas.convert("RGB")
    raise ValueError("resvg draws this icon at none of the sizes")


def compose(canvas: Image.Image, composition: Composition, rng: np.random.Generator) -> Image.Image:
    """One random placement of a rasterised icon, as a picture."""
    if rng.random() < composition.loose:
        tilt = rng.uniform(-composition.max_tilt, composition.max_tilt)
        scale = rng.uniform(*composition.scales)
        # Small subjects have room to move; large ones stay near the centre.
        reach = composition.max_shift * (1.15 - scale) / (1.15 - composition.scales[0])
        shift = rng.uniform(-reach, reach, size=2)
    else:
        tilt, scale, shift = rng.uniform(-3, 3), rng.uniform(0.93, 1.0), rng.uniform(-0.01, 0.01, size=2)
    if rng.random() < composition.flipped:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Drawn at twice the size and shrunk by an area filter: antialiased whatever the angle. At scale 1 the icon and its
    # outline (35 units) just fill the picture.
    side = 2 * PICTURE_PIXELS
    step = 35.0 * (CANVAS_PIXELS / CANVAS_UNITS) / side / scale  # canvas pixels a picture pixel
    cos, sin = step * np.cos(np.radians(tilt)), step * np.sin(np.radians(tilt))
    x, y = side * (0.5 + shift)
    middle = CANVAS_PIXELS / 2
    matrix = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    large = canvas.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor="white")
    return large.reduce(2)


def make_pictures(cache: Path, style: Style, variants: int, composition: Composition, seed: int) -> np.ndarray:
    """`variants` placements of every subject: uint8, (subjects, variants, side, side, 3)."""
    icons = load_icons(cache, style)
    rng = np.random.default_rng(seed)
    pictures = np.empty((len(SUBJECTS), variants, PICTURE_PIXELS, PICTURE_PIXELS, 3), np.uint8)
    for index, subject in enumerate(tqdm(SUBJECTS, desc=f"drawing {style}")):
        canvas = rasterise(inked(icons[subject]) if style == "ink" else icons[subject])
        for variant in range(variants):
            pictures[index, variant] = np.asarray(compose(canvas, composition, rng))
    return pictures
