"""Where subject passes repaint: the mask that a plan gives, or what a detector of this host finds in a picture."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from modules import shared
from modules.infotext_utils import quote
from PIL import Image

from multipass import masks
from multipass.detection import Found
from multipass.hosts.webui import detectors
from multipass.plan import PassKind, Plan, encode
from multipass.problems import PlanError, Problem
from multipass.prompts import Texts
from multipass.subjects import Region

_OF_FILES = ("samples_format", "grid_format", "grid_save", "grid_only_if_multiple", "enable_pnginfo")
_JPEG = {"jpg", "jpeg"}
_ROOM = 62000  # bytes, of the 65535 that a JPEG has for a picture's text; the rest is for what the host tells in it


def normalised(plan: Plan) -> Plan:
    """The plan with its masks as ``multipass.masks`` writes them.

    Raises:
        PlanError: for a mask that is none, or with which nothing would be repainted, and for a target that nothing here
            finds.
    """
    problems = list(_unfound(plan))
    try:
        plan = masks.normalised(plan)
    except PlanError as error:
        problems += error.problems
    if problems:
        raise PlanError(*problems)
    return plan


def too_long(p: Any, plan: Plan, texts: Texts, *, is_plotted: bool) -> Iterator[Problem]:
    """A mask with which the picture's text does not go into the files that the request saves, or that a grid is saved
    as: the host would fail when all is rendered.

    Args:
        plan: normalised.
        texts: the request's.
        is_plotted: whether the picture is a cell of an X/Y/Z plot.
    """
    said = {name: p.override_settings.get(name, getattr(shared.opts, name)) for name in _OF_FILES}
    masked = [(len(own.mask), index) for index, own in plan.running if own.mask is not None]
    is_grid = not p.do_not_save_grid and (p.n_iter * p.batch_size > 1 or not said["grid_only_if_multiple"])
    in_grid = said["grid_save"] and (is_plotted or is_grid)
    formats = [said["samples_format"], *([said["grid_format"]] if in_grid else [])]
    if not masked or not said["enable_pnginfo"] or not {own.lower() for own in formats} & _JPEG:
        return
    told = len("".join([texts.prompt, texts.negative_prompt, quote(encode(plan))]).encode("utf-16-le"))
    if told > _ROOM:
        told_of = f"the picture's text would take {told} bytes with it, and a JPEG has room for {_ROOM}"
        helps = "give it in black and white, which mask_blur softens, or have the webui save PNG or WebP"
        yield Problem(f"passes[{max(masked)[1]}].mask", f"{told_of}: {helps}")


class Finder:
    """Where a batch's pictures are repainted. What was found of a target stays while passes repaint it: its places
    are counted in the picture as it was, whatever the first ones have become."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], list[Found]] = {}

    def forget(self) -> None:
        """The pictures are others now, or of another size."""
        self._found.clear()

    def masks(self, place: int, picture: Image.Image, region: Region) -> list[Image.Image]:
        """As ``multipass.masks`` has it, of a picture of the batch, by the detectors of this host."""
        return masks.of_picture(picture, region, functools.partial(self._find, place))

    def _find(self, place: int, picture: Image.Image, target: str) -> list[Found]:
        if (place, target) not in self._found:
            self._found[place, target] = detectors.find(picture, target)
        return self._found[place, target]


def _unfound(plan: Plan) -> Iterator[Problem]:
    for index, own in plan.running:
        if own.kind is PassKind.SUBJECT and own.mask is None:
            try:
                detectors.named(own.target or "")
            except LookupError as error:
                yield Problem(f"passes[{index}].target", str(error.args[0]))
