"""The command's triptych: each checkpoint alone and the plan's picture, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image

from multipass.hosts.standalone.cli import main
from multipass.manifest import read
from tests.standalone.helpers import STEPS, draw, plan


def place(grid: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """Where in the grid the picture is, which must be there once."""
    height, width, _ = picture.shape
    found = [
        (int(x), int(y))
        for y, x in np.argwhere((grid == picture[0, 0]).all(axis=2))
        if np.array_equal(grid[y : y + height, x : x + width], picture)
    ]
    assert len(found) == 1
    return found[0]


def rendered(raw: dict[str, Any], checkpoints: Path, folder: Path, *options: str) -> Path:
    """The run's folder. The plan or the options ask for the triptych."""
    path = folder / "plan.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert main(["render", str(path), "--checkpoints", str(checkpoints), "--out", str(folder / "out"), *options]) == 0
    (manifest,) = (folder / "out").rglob("passes.json")
    return manifest.parent


def test_a_alone_b_alone_and_the_plan_s_picture(
    checkpoints: Path, store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = {"checkpoint": "a", "prompt": "a fox"}, {"checkpoint": "b", "switch_at": 0.5, "cfg_scale": 6}
    folder = rendered(plan(a, b, seed=7) | {"triptych": True}, checkpoints, tmp_path, "--count", "2")
    manifest = read(folder / "passes.json")
    assert [image.triptych for image in manifest.images] == ["triptych/00000-7.png", "triptych/00001-8.png"]
    said = capsys.readouterr().out.splitlines()
    for image in manifest.images:
        assert str(folder / f"{image.triptych}") in said
        grid = np.asarray(Image.open(folder / f"{image.triptych}"))
        alone = draw(plan({"checkpoint": "a", "prompt": "a fox"}), checkpoints, store, seed=image.seed).pixels
        # by the second pass alone: its texts, its guidance, from the first step on
        other = draw(plan(a, b | {"switch_at": 0}), checkpoints, store, seed=image.seed).pixels
        both = np.asarray(Image.open(folder / f"{image.picture}"))
        places = [place(grid, picture) for picture in (alone, other, both)]
        assert places == sorted(places)
        assert len({y for _, y in places}) == 1
        assert (grid[: places[0][1]] < 128).any()  # labels
        assert (both == draw(plan(a, b), checkpoints, store, seed=image.seed).pixels).all()


def test_a_refine_pass_is_alone_at_the_size_of_the_first(checkpoints: Path, store: Any, tmp_path: Path) -> None:
    refine = {"checkpoint": "b", "kind": "refine", "denoising_strength": 0.5, "scale": 2, "steps": 2}
    folder = rendered(plan({"checkpoint": "a"}, refine, seed=7), checkpoints, tmp_path, "--triptych")
    (image,) = read(folder / "passes.json").images
    grid = Image.open(folder / f"{image.triptych}").convert("RGB")
    alone = draw(plan({"checkpoint": "b"}), checkpoints, store, seed=7)
    assert alone.image is not None
    enlarged = alone.image.resize((128, 128), Image.Resampling.LANCZOS)
    (x, y), (other, _) = (
        place(np.asarray(grid), np.asarray(picture)) for picture in (enlarged, Image.open(folder / f"{image.picture}"))
    )
    assert x < other
    assert y > 0


def test_what_the_pictures_have_in_common_is_computed_once(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[int] = []
    forward = UNet2DConditionModel.forward

    def counted(unet: Any, x: Any, *given: Any, **named: Any) -> Any:
        evaluated.append(1)
        return forward(unet, x, *given, **named)

    monkeypatch.setattr(UNet2DConditionModel, "forward", counted)
    rendered(
        plan({"checkpoint": "a"}, {"checkpoint": "b", "switch_at": 0.5}, seed=7), checkpoints, tmp_path, "--triptych"
    )
    assert len(evaluated) == STEPS + STEPS // 2 + STEPS  # the plan's, the rest of a's, and b's
