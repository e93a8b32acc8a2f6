"""Persons and faces, found by mediapipe in a real photograph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from multipass import detection
from multipass.subjects import Box, Which, chosen

FACE = Box(168, 63, 284, 179)  # of the astronaut
needs_mediapipe = pytest.mark.skipif(detection.missing() is not None, reason="no mediapipe that runs here")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A person in the left two thirds of 512x512; a flag, a shuttle and a helmet around her."""
    data = pytest.importorskip("skimage").data
    return Image.fromarray(data.astronaut())


def others() -> list[str]:
    """Pictures without people, of which scikit-image has some itself."""
    folder = Path(pytest.importorskip("skimage").data.__file__).parent
    return [str(folder / name) for name in ("coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg")]


def close(one: Box, other: Box, pixels: int = 12) -> bool:
    return all(abs(a - b) <= pixels for a, b in zip(one, other, strict=True))


@needs_mediapipe
@pytest.mark.parametrize(("target", "box"), [("person", Box(11, 15, 366, 512)), ("face", FACE)], ids=["person", "face"])
def test_the_astronaut_is_found(astronaut: Image.Image, target: str, box: Box) -> None:
    (found,) = detection.find(astronaut, target)
    assert close(found.box, box)
    assert (found.mask.mode, found.mask.size) == ("L", astronaut.size)
    assert found.mask.getbbox() == tuple(found.box)
    assert set(np.unique(np.asarray(found.mask))) == {0, 255}
    assert found.mask.getpixel((226, 120)) == 255, "her face"
    assert found.mask.getpixel((480, 40)) == 0, "the wall"


@needs_mediapipe
@pytest.mark.parametrize(("target", "left"), [("person", 11), ("face", 168)])
@pytest.mark.parametrize("apart", [0, 512], ids=["side by side", "far apart"])
def test_two_persons_are_two_from_left_to_right(astronaut: Image.Image, target: str, left: int, apart: int) -> None:
    two = Image.new("RGB", (1024 + apart, 512), (90, 120, 90))
    two.paste(astronaut)
    two.paste(astronaut, (512 + apart, 0))
    found = detection.find(two, target)
    ordered = [found[index].box.left for index in chosen([one.box for one in found], Which.ALL)]
    assert ordered == pytest.approx([left, 512 + apart + left], abs=24)
    first, second = (one.mask for one in found)
    assert not (np.asarray(first) & np.asarray(second)).any()


@needs_mediapipe
@pytest.mark.parametrize("target", ["person", "face"])
def test_a_small_person_in_a_corner_is_found(astronaut: Image.Image, target: str) -> None:
    wide = Image.new("RGB", (1024, 512), (90, 120, 90))
    wide.paste(ImageOps.scale(astronaut, 0.2), (900, 400))
    (found,) = detection.find(wide, target)
    assert found.box.left >= 895
    assert found.box.top >= 395


@needs_mediapipe
@pytest.mark.parametrize("target", ["person", "face"])
def test_nobody_is_found_where_nobody_is(target: str) -> None:
    for path in others():
        assert detection.find(Image.open(path), target) == [], path


@needs_mediapipe
def test_the_same_picture_has_the_same_every_time(astronaut: Image.Image) -> None:
    first, second = (detection.find(astronaut, "person") for _ in range(2))
    assert [one.box for one in first] == [one.box for one in second]
    assert [one.mask.tobytes() for one in first] == [one.mask.tobytes() for one in second]


@pytest.mark.parametrize("models", [(), ("pose_landmark_full.tflite",)], ids=["none", "one of two"])
def test_a_mediapipe_without_the_models_is_none(
    models: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mediapipe" / "modules" / "pose_landmark"
    folder.mkdir(parents=True)
    (tmp_path / "mediapipe" / "__init__.py").touch()
    for name in models:
        (folder / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    told = detection.missing()
    assert told is not None
    assert "installed without its models" in told
    with pytest.raises(ImportError, match="or give a mask"):
        detection.find(Image.new("RGB", (64, 64)), "person")


@pytest.mark.parametrize(
    ("installed", "wanted", "runs"),
    [
        ("3.20.0", "protobuf <4,>=3.11", True),
        ("3.20.0", "protobuf<5,>=4.25.3", False),
        ("4.25.8", "protobuf<5,>=4.25.3", True),
    ],
)
def test_a_mediapipe_that_wants_another_protobuf_is_none(
    installed: str, wanted: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a webui, which pins its own: such a mediapipe fails when a person is looked for."""
    for name, version, requires in (
        ("mediapipe", "0.10.14", f"Requires-Dist: {wanted}\n"),
        ("protobuf", installed, ""),
    ):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
    for model in ("pose_landmark/pose_landmark_full", "face_detection/face_detection_full_range_sparse"):
        file = tmp_path / "mediapipe/modules" / f"{model}.tflite"
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / "mediapipe" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    told = detection.missing("install another")
    if runs:
        assert told is None
    else:
        assert told is not None
        assert told.endswith("it wants protobuf<5,>=4.25.3, and 3.20.0 is installed; install another, or give a mask")
