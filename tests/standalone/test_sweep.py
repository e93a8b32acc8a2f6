"""``multipass sweep``: what it renders, in which order, and what it refuses before it renders anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multipass.hosts.standalone import engine
from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.cli import main
from multipass.hosts.standalone.models import Checkpoint, Component
from multipass.hosts.standalone.sweep import prepare_sweep
from multipass.manifest import Manifest, read
from multipass.paths import parse_axis
from multipass.plan import decode
from tests.standalone.helpers import draw, plan

A_TO_B = plan({"checkpoint": "a"}, {"switch_at": 0.5, "checkpoint": "b"}, seed=7) | {"save_passes": False}

Sweep = Callable[..., int]


@pytest.fixture
def sweep(checkpoints: Path, tmp_path: Path) -> Sweep:
    def sweep(raw: Any, *axes: str, options: tuple[str, ...] = ()) -> int:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(raw), encoding="utf-8")
        given = [part for axis in axes for part in ("--axis", axis)]
        out = ["--checkpoints", str(checkpoints), "--out", str(tmp_path / "out")]
        return main(["sweep", str(path), *out, *given, *options])

    return sweep


def said(capsys: pytest.CaptureFixture[str]) -> tuple[list[tuple[Path, Manifest]], np.ndarray]:
    """The manifests, each with its folder, in the order in which they were made, and the grid."""
    *paths, grid = map(Path, capsys.readouterr().out.splitlines())
    assert grid.parent == paths[0].parent.parent
    return [(path.parent, read(path)) for path in paths], np.asarray(Image.open(grid))


def place(grid: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """Where in the grid the picture is, which must be there once."""
    height, width, _ = picture.shape
    found = [
        (int(y), int(x))
        for y, x in np.argwhere((grid == picture[0, 0]).all(axis=2))
        if np.array_equal(grid[y : y + height, x : x + width], picture)
    ]
    assert len(found) == 1
    return found[0]


def test_a_run_for_each_value_and_a_grid_of_all(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], checkpoints: Path, store: Any
) -> None:
    assert sweep(A_TO_B, "passes[1].switch_at=0:1:0.5") == 0
    runs, grid = said(capsys)
    switches = [manifest.plan.passes[1].switch_at for _, manifest in runs]
    assert sorted(switches) == [0, 0.5, 1]  # type: ignore[type-var]
    found: dict[Any, tuple[int, int]] = {}
    for folder, manifest in runs:
        (image,) = manifest.images
        at = manifest.plan.passes[1].switch_at
        picture = np.asarray(Image.open(folder / f"{image.picture}"))
        passes = [A_TO_B["passes"][0], A_TO_B["passes"][1] | {"switch_at": at}]
        alone = draw(plan(*passes), checkpoints, store, seed=7)
        assert (alone.pixels == picture).all()
        assert folder.name.endswith(f"-passes-1.switch_at={at:.1f}")
        found[at] = place(grid, picture)
    assert len({y for y, _ in found.values()}) == 1
    assert found[0][1] < found[0.5][1] < found[1][1]
    above = grid[: found[0][0]]
    assert (above < 128).any()  # labels


def test_two_axes_of_different_sizes(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    refined = plan({"checkpoint": "a"}, {"kind": "refine", "denoising_strength": 0.5, "steps": 2}, steps=3, seed=1)
    assert sweep(refined, "passes[1].scale=1,2", 'common.prompt=,sunset,"ink, paper"') == 0
    runs, grid = said(capsys)
    assert len(runs) == 6
    places: dict[tuple[float | None, str], tuple[int, int]] = {}
    for folder, manifest in runs:
        (image,) = manifest.images
        assert [own.picture for own in image.passes] == ["pass_0/00000-1.png", "pass_1/00000-1.png"]
        picture = np.asarray(Image.open(folder / f"{image.picture}"))
        key = manifest.plan.passes[1].scale, manifest.plan.common.prompt
        assert picture.shape == (64 * int(key[0] or 0), 64 * int(key[0] or 0), 3)
        places[key] = place(grid, picture)
    prompts = ("", "sunset", "ink, paper")
    assert {prompt for _, prompt in places} == {*prompts}
    rows = [sorted(places[scale, prompt][0] for scale in (1, 2)) for prompt in prompts]
    assert rows == sorted(rows)
    assert all(places[1, prompt][1] < places[2, prompt][1] for prompt in prompts)


def test_a_seed_is_drawn_once_for_all_unless_it_is_swept(checkpoints: Path) -> None:
    raw = plan({"checkpoint": "a"})
    folder = CheckpointFolder(checkpoints)
    cells = prepare_sweep(decode(raw), [parse_axis("request.steps=2,3,4")], folder).cells
    assert len({cell.job.seed for cell in cells}) == 1
    cells = prepare_sweep(decode(raw), [parse_axis("request.seed=-1,-1,5")], folder).cells
    assert len({cell.job.seed for cell in cells}) == 3
    assert 5 in {cell.job.seed for cell in cells}


def test_each_checkpoint_is_read_once_whatever_the_order_of_the_axes(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[tuple[str, Component]] = []
    real = Checkpoint.read

    def spied(self: Checkpoint, component: Component, *rest: Any) -> Any:
        read.append((self.file.name, component))
        return real(self, component, *rest)

    monkeypatch.setattr(Checkpoint, "read", spied)
    assert sweep(A_TO_B, "passes[1].switch_at=0.2,0.8", "passes[0].checkpoint=c,a") == 0
    assert len(read) == len(set(read))
    runs, _ = said(capsys)
    one, same, other, same_other = (manifest.plan.passes[0].checkpoint for _, manifest in runs)
    assert one == same != other == same_other


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        (["passes[1].switch_at"], "--axis passes[1].switch_at: expected PATH=VALUES"),
        (["passes[1].switch_at=0:1:0"], "--axis passes[1].switch_at: 0:1:0 never comes from 0 to 1"),
        (
            ["passes[3].switch_at=0,1"],
            "passes[3].switch_at: there is no such place in the plan (2 passes) (with passes[3].",
        ),
        (["passes[1].swich_at=0,1"], "passes[1].swich_at: unknown field (with passes[1].swich_at=0, and 1 more"),
        (
            ["passes[1].switch_at=0.5,1.5"],
            "passes[1].switch_at: expected a number from 0 to 1, got 1.5 (with passes[1].switch_at=1.5)",
        ),
        (["passes[1].checkpoint=b,nope"], "passes[1].checkpoint: no checkpoint 'nope' ("),
        (["request.sampler_name=Euler,Heun"], "request.sampler_name: the command has no sampler 'Heun'"),
        (["passes[1].cfg_scale=much"], 'passes[1].cfg_scale: expected a number from 1 to 100, got "much"'),
        (["request.steps=1,2"] * 2, "--axis: expected one or two places, not the same twice"),
        (["request.steps=1", "request.seed=1", "request.width=64"], "--axis: expected one or two places"),
        (["request.seed=1:40:1", "request.steps=1:40:1"], "--axis: 1600 pictures, at most 1000"),
    ],
)
def test_what_is_wrong_with_any_cell_is_said_before_anything_is_rendered(
    *,
    sweep: Sweep,
    axes: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(A_TO_B, *axes) == 2
    found = capsys.readouterr()
    assert found.err.startswith(f"multipass: {reason}"), found.err
    assert found.err.count("\n") == 1
    assert found.out == ""
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_is_stopped_leaves_the_runs_it_has(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, asked = engine._unet, iter(range(1000))

    def unet(*arguments: Any) -> Any:
        if next(asked) == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(engine, "_unet", unet)
    assert sweep(A_TO_B, "passes[1].switch_at=0.2,0.8") == 130
    manifests = [read(Path(line)) for line in capsys.readouterr().out.splitlines()]
    assert [manifest.status.value for manifest in manifests] == ["done", "interrupted"]


# --- what is computed ----------------------------------------------------------------------------------------------


def counts(runs: list[tuple[Path, Manifest]]) -> list[tuple[int, int]]:
    """Evaluations computed and remembered, of each run."""
    return [
        (sum(own.unet_evaluations for own in image.passes), sum(own.memo_hits for own in image.passes))
        for _, manifest in runs
        for image in manifest.images
    ]


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DDIM"])
def test_c21_steps_that_pictures_have_in_common_are_computed_once(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    calls: list[str] = []
    unet = Checkpoint.unet.fget  # type: ignore[attr-defined]

    def counted(checkpoint: Checkpoint) -> Any:
        calls.append(checkpoint.file.name)
        return unet(checkpoint)

    monkeypatch.setattr(Checkpoint, "unet", property(counted))
    passes = {"checkpoint": "a"}, {"switch_at": 1, "checkpoint": "b"}
    raw, axis = plan(*passes, unit="step", seed=7, sampler_name=sampler), "passes[1].switch_at=0,2,4,5"
    assert sweep(raw, axis, options=("--memo", "0")) == 0
    whole, reference = said(capsys)
    steps = counts(whole)[0][0]
    assert counts(whole) == [(steps, 0)] * 4
    assert len(calls) == 4 * steps
    calls.clear()
    assert sweep(raw, axis) == 0
    runs, grid = said(capsys)
    assert (grid == reference).all()
    ranges = [[min(at, steps), steps] for at in (0, 2, 4, 5)]
    of_a, of_b = max(first for first, _ in ranges), sum(end - first for first, end in ranges)
    assert (calls.count("a"), calls.count("b")) == (of_a, of_b)
    assert sum(made for made, _ in counts(runs)) == of_a + of_b
    assert sum(spared for _, spared in counts(runs)) == 4 * steps - of_a - of_b


def test_c21_a_second_pass_of_another_prompt_costs_that_pass_alone(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    refined = {"kind": "refine", "denoising_strength": 0.5, "steps": 4, "sampler_name": "Euler a"}
    raw = plan({"checkpoint": "a"}, {"switch_at": 0.5, "checkpoint": "b"}, refined, seed=7)
    assert sweep(raw, "passes[2].prompt=a fox,an owl", "passes[1].cfg_scale=1,3") == 0
    runs, _ = said(capsys)
    found = {
        (manifest.plan.passes[2].prompt, manifest.plan.passes[1].cfg_scale): [
            own.unet_evaluations for own in manifest.images[0].passes
        ]
        for _, manifest in runs
    }
    assert sorted(found.values()) == [[0, 0, 4], [0, 0, 4], [0, 3, 4], [3, 3, 4]]


def test_a_memo_without_room_computes_everything(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(A_TO_B, "passes[1].switch_at=0.5,1", options=("--memo", "0.001")) == 0
    runs, _ = said(capsys)
    assert counts(runs) == [(6, 0)] * 2
    assert sweep(A_TO_B, "passes[1].switch_at=0.5,1", options=("--memo", "1")) == 0
    runs, _ = said(capsys)
    assert sorted(counts(runs)) == [(3, 3), (6, 0)]
