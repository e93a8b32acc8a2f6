"""The demo, with tiny checkpoints in place of the bundled ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from PIL import Image

from multipass.hosts.standalone import demo
from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.cli import main
from multipass.hosts.standalone.memory import Checkpoints
from multipass.manifest import MANIFEST_NAME, Status, read
from tests.standalone.helpers import draw, plan

SMALL = demo.Demo(
    first="a",
    second="b",
    side=64,
    steps=4,
    subjects=(("fox face", 1), ("rocket", 2)),
    switches=(0.25, 0.75),
)


def test_rows_of_one_seed_from_one_alone_to_the_other_alone(checkpoints: Path, tmp_path: Path) -> None:
    done = demo.render(tmp_path, SMALL, checkpoints)
    names = ["a", "a-b-0.25", "a-b-0.75", "b"]
    pictures = {path.stem for path in done.pictures.iterdir()}
    assert pictures == {f"{subject}-{name}" for subject in ("fox-face", "rocket") for name in names}
    manifests = [read(path) for path in sorted(done.manifests.glob(f"*/{MANIFEST_NAME}"))]
    assert len(manifests) == 8
    assert {manifest.status for manifest in manifests} == {Status.DONE}
    spans = sorted([own.end_step for own in manifest.images[0].passes] for manifest in manifests)
    assert spans == [[1, 4], [1, 4], [3, 4], [3, 4], [4], [4], [4], [4]]
    row = [np.asarray(Image.open(done.pictures / f"rocket-{name}.png")) for name in names]
    assert all((row[i] != row[k]).any() for i in range(4) for k in range(i))


def test_the_grid_holds_the_pictures(checkpoints: Path, tmp_path: Path) -> None:
    done = demo.render(tmp_path, SMALL, checkpoints)
    grid = np.asarray(Image.open(done.grid))
    for path in done.pictures.iterdir():
        picture = np.asarray(Image.open(path))
        places = [
            (y, x)
            for y, x in np.argwhere((grid == picture[0, 0]).all(axis=2))
            if (grid[y : y + 64, x : x + 64].shape == picture.shape) and (grid[y : y + 64, x : x + 64] == picture).all()
        ]
        assert len(places) == 1, path


def test_the_export_s_configs_name_the_text_encoder_absolutely(
    checkpoints: Path, tmp_path: Path, store: Checkpoints
) -> None:
    written = demo.export(tmp_path / "models", SMALL, checkpoints)
    assert [path.name for path in written] == ["a.safetensors", "a.yaml", "b.safetensors", "b.yaml"]
    for path in written[1::2]:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        clip = Path(config["model"]["params"]["cond_stage_config"]["params"]["version"])
        assert clip.is_absolute()
        assert (clip / "vocab.json").is_file()
    shutil.copytree(tmp_path / "models", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("*-clip"))
    exported = draw(plan({"checkpoint": "a"}), tmp_path / "elsewhere", store)
    assert exported.equals(draw(plan({"checkpoint": "a"}), checkpoints, store))
    assert demo.export(tmp_path / "models", SMALL, checkpoints) == written  # again, over itself


def test_missing_checkpoints_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo.render, "__defaults__", (demo.DEMO, tmp_path))
    monkeypatch.setattr(demo.export, "__defaults__", (demo.DEMO, tmp_path))
    for option in ("--out", "--export"):
        assert main(["demo", option, str(tmp_path / "made")]) == 2
        line = capsys.readouterr().err
        assert line == f"multipass: the demo's checkpoints are missing: no soft.safetensors in {tmp_path}\n"
        assert not (tmp_path / "made").exists()


def test_the_table_is_a_plan_for_every_cell() -> None:
    cells = [cell for subject in demo.DEMO.subjects for cell in demo._row(demo.DEMO, *subject)]
    assert len(cells) == len(demo.DEMO.subjects) * (len(demo.DEMO.switches) + 2)
    assert len({msgspec.json.encode(cell.plan) for cell in cells}) == len(cells)


def test_the_bundled_checkpoints(tmp_path: Path, store: Checkpoints) -> None:
    """One subject, few steps: they load, differ, and stay within their size."""
    folder = CheckpointFolder(demo.CHECKPOINTS)
    assert sum(path.stat().st_size for path in demo.CHECKPOINTS.glob("*.safetensors")) <= 60_000_000
    request = {"width": 128, "height": 128, "prompt": demo.DEMO.subjects[0][0]}
    first, second = (draw(plan({"checkpoint": name}, **request), folder.root, store) for name in ("soft", "ink"))
    assert not first.equals(second)
    assert first.pixels.std() > 10
