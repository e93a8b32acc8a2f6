"""Labelled grids of pictures. Needs Pillow, as every host has it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TEXT_PIXELS = 15
_GAP = 8


def draw_grid(
    rows: Sequence[Sequence[Image.Image]],
    columns: Sequence[str],
    subjects: Sequence[str],
    font: ImageFont.FreeTypeFont,
) -> Image.Image:
    """Pictures in rows, each in the middle of its place, columns labelled above and subjects on the left."""
    pictures = [picture for row in rows for picture in row]
    height = max(picture.height for picture in pictures)
    left = _GAP + int(max(font.getlength(subject) for subject in subjects)) + _GAP
    width = max(*(picture.width for picture in pictures), int(max(font.getlength(column) for column in columns)))
    top = int(font.size) + 2 * _GAP
    size = (left + len(columns) * (width + _GAP), top + len(rows) * (height + _GAP))
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for k, column in enumerate(columns):
        draw.text((left + k * (width + _GAP) + width / 2, top / 2), column, "black", font, anchor="mm")
    for i, (subject, row) in enumerate(zip(subjects, rows, strict=True)):
        y = top + i * (height + _GAP)
        draw.text((left - _GAP, y + height / 2), subject, "black", font, anchor="rm")
        for k, picture in enumerate(row):
            x = left + k * (width + _GAP)
            grid.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
    return grid


def draw_triptych(
    alone: Sequence[Image.Image], plan: Image.Image, labels: Sequence[str], font: ImageFont.FreeTypeFont
) -> Image.Image:
    """The pictures in a row, those before the last brought to its height."""
    height = plan.height
    sizes = [(round(picture.width * height / picture.height), height) for picture in alone]
    enlarged = [
        picture.resize(size, Image.Resampling.LANCZOS) if picture.size != size else picture
        for picture, size in zip(alone, sizes, strict=True)
    ]
    return draw_grid([[*enlarged, plan]], labels, [""], font)


def text_pixels(height: int) -> int:
    """How large the labels of a triptych are: so that they are read where the picture is shown small."""
    return max(TEXT_PIXELS, height // 32)


def bundled_font(pixels: int = TEXT_PIXELS) -> ImageFont.FreeTypeFont:
    """The one that comes with Pillow, from 10.1 on: hosts that have an older one have fonts of their own."""
    font = ImageFont.load_default(pixels)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
