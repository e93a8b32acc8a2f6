"""Where persons and faces are in a picture, by models that come inside the package mediapipe: nothing is downloaded.

A person is found by mediapipe's pose model and cut out by its segmentation. (Its selfie segmentation takes cats and
cups for people.) The model sees one person at a time, in a small copy of the picture. So a person that was found is
painted over before the next is looked for, in the whole picture first and then in parts of it; and as what is painted
over can itself look like somebody, each has to be found again in a closer look at the picture as it was. So has a face.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from multipass.subjects import FACE, PERSON, Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    _Mask = NDArray[np.bool_]

TARGETS = (PERSON, FACE)
ADVICE = 'pip install "mediapipe>=0.10.9,<0.10.30"'
_MODELS = ("pose_landmark/pose_landmark_full.tflite", "face_detection/face_detection_full_range_sparse.tflite")
_CONFIDENCE = 0.5  # mediapipe's own
_SPECK = 0.002  # of the part that is looked at
_MOST = 20  # persons in a part
_GREY = 127


class Found(NamedTuple):
    """One subject.

    Attributes:
        mask: of the picture's size, mode ``L``: 255 where the subject is, 0 elsewhere.
    """

    box: Box
    mask: Image


def missing(advice: str = ADVICE) -> str | None:
    """Why nothing can be found here, in a sentence that ends with the advice, fit for people; ``None`` where it can.

    mediapipe is not imported for that, which takes a second.
    """
    package = find_spec("mediapipe")
    if package is None or not package.submodule_search_locations:
        reason = "which is not installed"
    elif not _has_models(Path(package.submodule_search_locations[0])):
        reason = "which is installed without its models (0.10.30 and later have none)"
    else:
        unsuited = _unsuited()
        if unsuited is None:
            return None
        reason = f"which does not run here: {unsuited}"
    return f"persons and faces are found by mediapipe, {reason}; {advice}, or give a mask"


def find(picture: Image, target: str) -> list[Found]:
    """All of that kind, in no particular order. The same picture has the same ones every time.

    Args:
        target: ``person`` or ``face``. A face is the box around it.

    Raises:
        ImportError: where ``missing`` says why.
    """
    reason = missing()
    if reason is not None:
        raise ImportError(reason, name="mediapipe")
    from PIL import Image

    if target == FACE:
        found: list[Found] = []
        for box in _faces(picture.convert("RGB")):
            mask = Image.new("L", picture.size)
            mask.paste(255, (box.left, box.top, box.right, box.bottom))
            found.append(Found(box, mask))
        return found
    assert target == PERSON, target
    return [Found(_box(mask), _image(mask)) for mask in _persons(picture.convert("RGB"))]


def _has_models(package: Path) -> bool:
    return all((package / "modules" / name).is_file() for name in _MODELS)


def _unsuited() -> str | None:
    """The protobuf that the installed mediapipe wants, where that is another than the installed one: webuis pin theirs,
    and put it back when they start."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("mediapipe") or ()]
        installed = metadata.version("protobuf")
    except metadata.PackageNotFoundError:  # it came in some other way than by pip
        return None
    unmet = [own for own in wanted if own.name == "protobuf" and not own.specifier.contains(installed)]
    return f"it wants {unmet[0]}, and {installed} is installed" if unmet else None


def _persons(picture: Image) -> list[_Mask]:
    import numpy as np

    pixels, painted = np.asarray(picture), np.array(picture)
    found: list[_Mask] = []
    options = {"static_image_mode": True, "enable_segmentation": True, "min_detection_confidence": _CONFIDENCE}
    with closing(_solutions().pose.Pose(**options)) as pose:
        for view in _views(picture.width, picture.height):
            for _ in range(_MOST):
                seen = _person(pose, painted, view)
                if seen is None:
                    break
                again = _person(pose, pixels, _around(_box(seen), picture.width, picture.height, 0.25))
                if again is not None and _is_same(seen, again) and not any(_overlap(again, one) for one in found):
                    found.append(again)
                    seen = seen | again
                painted[_grown(seen)] = _GREY
    return found


def _person(pose: Any, pixels: NDArray[np.uint8], view: Box) -> _Mask | None:
    """The mask, of the whole picture's size, of the one that is most in view."""
    import numpy as np

    rows, columns = slice(view.top, view.bottom), slice(view.left, view.right)
    seen: Any = pose.process(np.ascontiguousarray(pixels[rows, columns])).segmentation_mask
    if seen is None or (seen > _CONFIDENCE).mean() < _SPECK:
        return None
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[rows, columns] = seen > _CONFIDENCE
    return mask


def _faces(picture: Image) -> list[Box]:
    import numpy as np

    pixels = np.asarray(picture)
    seen: list[_Face] = []
    found: list[Box] = []
    options = {"model_selection": 1, "min_detection_confidence": _CONFIDENCE}  # 1: also those that are far away
    with closing(_solutions().face_detection.FaceDetection(**options)) as detector:
        for view in _views(picture.width, picture.height):
            seen += _in_view(detector, pixels, view)
        for _, box in sorted(seen, reverse=True):
            if any(_common(box, one) * 2 > min(box.area, one.area) for one in found):
                continue
            closer = _in_view(detector, pixels, _around(box, picture.width, picture.height, 1))
            if any(_common(box, again.box) * 2 > max(box.area, again.box.area) for again in closer):
                found.append(box)
    return found


class _Face(NamedTuple):
    score: float
    box: Box


def _in_view(detector: Any, pixels: NDArray[np.uint8], view: Box) -> list[_Face]:
    """The faces there; their boxes are in the whole picture."""
    import numpy as np

    part = np.ascontiguousarray(pixels[view.top : view.bottom, view.left : view.right])
    height, width = part.shape[:2]
    found: list[_Face] = []
    for one in detector.process(part).detections or ():
        at = one.location_data.relative_bounding_box
        left, top = round(at.xmin * width), round(at.ymin * height)
        right, bottom = left + round(at.width * width), top + round(at.height * height)
        cut = Box(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
        x, y = view.left, view.top
        found.append(_Face(one.score[0], Box(cut.left + x, cut.top + y, cut.right + x, cut.bottom + y)))
    return found


# --- where to look ----------------------------------------------------------------------------------------------------


def _views(width: int, height: int) -> Iterator[Box]:
    """The whole picture; squares along it, where it is long; squares of half its shorter side, for what is small.

    Neighbours overlap by half: what one of them cuts is whole in another.
    """
    yield Box(0, 0, width, height)
    short = min(width, height)
    sides = [short] if max(width, height) > short * 1.25 else []
    for side in (*sides, short // 2):
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield Box(left, top, left + side, top + side)


def _starts(whole: int, side: int) -> list[int]:
    gaps = -(-2 * (whole - side) // side)
    return [round(number * (whole - side) / max(gaps, 1)) for number in range(gaps + 1)]


def _around(box: Box, width: int, height: int, share: float) -> Box:
    """The box and this share of its longer side on every side."""
    margin = round(max(box.right - box.left, box.bottom - box.top) * share)
    right, bottom = min(box.right + margin, width), min(box.bottom + margin, height)
    return Box(max(box.left - margin, 0), max(box.top - margin, 0), right, bottom)


# --- masks and boxes --------------------------------------------------------------------------------------------------


def _box(mask: _Mask) -> Box:
    box = _image(mask).getbbox()
    assert box is not None, "there is something"
    return Box(*box)


def _image(mask: _Mask) -> Image:
    from PIL import Image

    return Image.fromarray(mask.astype("uint8") * 255)


def _is_same(one: _Mask, other: _Mask) -> bool:
    return int((one & other).sum()) * 2 > int((one | other).sum())


def _overlap(one: _Mask, other: _Mask) -> bool:
    return int((one & other).sum()) * 2 > min(int(one.sum()), int(other.sum()))


def _common(one: Box, other: Box) -> int:
    """The area that both have."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    return Box(left, top, min(one.right, other.right), min(one.bottom, other.bottom)).area


def _grown(mask: _Mask) -> _Mask:
    """By a twentieth of its size on every side: with the hair that it left out."""
    import numpy as np
    from PIL import ImageFilter

    box = _box(mask)
    radius = max(box.right - box.left, box.bottom - box.top) / 20
    return np.asarray(_image(mask).filter(ImageFilter.BoxBlur(radius))) > 0


def _solutions() -> Any:
    return importlib.import_module("mediapipe").solutions
