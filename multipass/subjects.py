"""What a subject pass repaints: which of what a detector found, and in which region of the picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from multipass.kinds import Family
from multipass.plan import OnMissing, Pass, Which

PERSON, FACE = "person", "face"  # the targets that every detector is asked for by these names
_PLACE = 8  # pixels of a place of the latent
_SMALLEST = 64  # side of what a model sees, unless a smaller one is asked for


class Box(NamedTuple):
    """In pixels, half-open, counted from the upper left."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """In pixels."""
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)


class Region(msgspec.Struct, frozen=True):
    """The fields of a subject pass, what it leaves out filled in: the webui's own numbers for inpainting.

    Attributes:
        target: what is looked for; ``None`` where a mask is given.
        mask: base64 of a picture, or ``None``.
        width, height: of the picture that the model sees; ``None`` for that of the whole picture.
    """

    target: str | None = None
    which: Which | int = Which.ALL
    mask: str | None = None
    mask_blur: int = 4
    mask_padding: int = 32
    invert: bool = False
    only_masked: bool = True
    width: int | None = None
    height: int | None = None
    on_missing: OnMissing = OnMissing.CONTINUE

    @classmethod
    def of(cls, own: Pass) -> Region:
        """Of a subject pass that the plan's rules accept."""
        fields: dict[str, Any] = {name: getattr(own, name) for name in cls.__struct_fields__}
        return cls(**{name: value for name, value in fields.items() if value is not None})


DEFAULTS: dict[str, Any] = {
    own.name: msgspec.to_builtins(own.default) for own in msgspec.structs.fields(Region) if own.default is not None
}
"""What a subject pass is where it leaves a field out, as JSON has it."""


def working_size(
    region: Region, picture: tuple[int, int], scene: Family | None, family: Family | None
) -> tuple[int, int]:
    """Width and height of what a model sees of a picture of these, in whole places of its latent.

    As the region says; else the picture's, or, where a region by itself is repainted by a model of another family than
    the scene's, about as many pixels as suit that, in the picture's shape.

    Args:
        scene: the family of the model that the scene was made by, where it is known.
        family: of the one that repaints.
    """
    width, height = (side // _PLACE * _PLACE for side in picture)
    if region.only_masked and scene and family and scene is not family and scene.side and family.side:
        scale = family.side / (picture[0] * picture[1]) ** 0.5
        width, height = (max(round(side * scale / _PLACE) * _PLACE, _SMALLEST) for side in picture)
    return region.width or width, region.height or height


def chosen(boxes: Sequence[Box], which: Which | int) -> tuple[int, ...]:
    """The indices of the boxes that a pass repaints, in that order: from left to right, by where their middles are.

    A place that there is not chooses none.
    """
    ordered = sorted(range(len(boxes)), key=lambda index: (boxes[index].left + boxes[index].right, boxes[index]))
    if which is Which.ALL:
        return tuple(ordered)
    if which is Which.LARGEST:
        return tuple(sorted(ordered, key=lambda index: -boxes[index].area)[:1])
    return tuple(ordered[which : which + 1])
