"""Labelled grids of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_GAP = 8
_TEXT = 15


def draw_grid(rows: Sequence[Sequence[Image.Image]], columns: Sequence[str], subjects: Sequence[str]) -> Image.Image:
    """Pictures in rows, each in the middle of its place, columns labelled above and subjects on the left."""
    font = ImageFont.load_default(size=_TEXT)
    pictures = [picture for row in rows for picture in row]
    height = max(picture.height for picture in pictures)
    left = int(max(font.getlength(subject) for subject in subjects)) + 2 * _GAP
    width = max(*(picture.width for picture in pictures), int(max(font.getlength(column) for column in columns)))
    top = _TEXT + 2 * _GAP
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
