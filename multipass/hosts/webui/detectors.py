"""What finds subjects: ADetailer's models, where that extension is loaded, else mediapipe's. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modules import scripts
from PIL import Image

from multipass import detection
from multipass.detection import Found
from multipass.problems import hint
from multipass.subjects import FACE, PERSON, Box

_BEST = {
    PERSON: ("person_yolov8s-seg.pt", "person_yolov8n-seg.pt", "person_yolov8m-seg.pt"),
    FACE: ("face_yolov8s.pt", "face_yolov8n.pt", "mediapipe_face_full"),
}
_DILATED = 4  # pixels: as ADetailer does by default
_CONFIDENCE = 0.3  # likewise
_ADVICE = (  # later ones do not go with the protobuf that webuis pin
    "install ADetailer with one of its person or face models, or, into the webui's own Python, "
    '"mediapipe>=0.10.9,<0.10.12"'
)
_MEDIAPIPE = "mediapipe"  # with which the names of its models begin


def names() -> list[str]:
    """What a subject pass may have for its target, ``person`` and ``face`` first where something finds them."""
    theirs, mediapipe_runs = _of_adetailer(), detection.missing() is None
    return [target for target in (PERSON, FACE) if mediapipe_runs or _best(target, theirs)] + list(theirs)


def named(target: str) -> Callable[[Image.Image], list[Found]]:
    """What finds the target in a picture.

    Raises:
        LookupError: with the reason, fit for people, where nothing does.
    """
    theirs = _of_adetailer()
    model = _best(target, theirs)
    if model is not None:
        return lambda picture: _by_adetailer(picture, model, theirs[model])
    if target in (PERSON, FACE) or target.startswith(_MEDIAPIPE):
        reason = detection.missing(_ADVICE)
        if reason is not None:
            raise LookupError(reason)
    if target in (PERSON, FACE):
        return lambda picture: detection.find(picture, target)
    raise LookupError(f'there is no detector "{target}"{hint(target, names())}')


def find(picture: Image.Image, target: str) -> list[Found]:
    """What is found, in no order, each with a mask that has a white place. Raises what ``named`` raises."""
    return named(target)(picture)


def _best(target: str, theirs: Mapping[str, str]) -> str | None:
    """The model of these that finds the target."""
    if target in theirs:
        return target
    best = [name for name in _BEST.get(target, ()) if name in theirs]
    others = [name for name in theirs if name.startswith(f"{target}_yolo")]
    return next(iter([*best, *others]), None) if target in _BEST else None


def _adetailer() -> Any:
    """Its script's module, with all that it works with; ``None`` where it is not loaded."""
    return next(
        (own.module for own in scripts.scripts_data if own.script_class.__name__ == "AfterDetailerScript"), None
    )


def _of_adetailer() -> dict[str, str]:
    """Its models by name, each a file that is there, or the name of one of mediapipe's, where that runs: where it does
    not, ADetailer finds nothing and gives no reason."""
    runs = functools.cache(lambda: detection.missing() is None)  # looked up at most once, and where there are such
    return {
        name: file
        for name, file in getattr(_adetailer(), "model_mapping", {}).items()
        if (runs() if name.startswith(_MEDIAPIPE) else Path(file).is_file())
    }


def _by_adetailer(picture: Image.Image, name: str, file: str) -> list[Found]:
    theirs = _adetailer()
    if name.startswith(_MEDIAPIPE):
        answer = theirs.mediapipe_predict(name, picture, _CONFIDENCE)
    else:
        device = theirs.AfterDetailerScript.get_ultralytics_device()
        # as it does itself: AUTOMATIC1111's torch.load refuses these files
        with getattr(theirs, "disable_safe_unpickle", contextlib.nullcontext)():
            answer = theirs.ultralytics_predict(file, picture, _CONFIDENCE, device)
    masks = [mask.convert("L") for mask in theirs.mask_preprocess(answer.masks, _DILATED)]
    boxes = [mask.getbbox() for mask in masks]
    return [Found(Box(*box), mask) for box, mask in zip(boxes, masks, strict=True) if box is not None]
