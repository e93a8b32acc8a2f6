"""The command from outside: what it prints, what it leaves on disk, how it ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from multipass import presets
from multipass.hosts.standalone import engine
from multipass.hosts.standalone.cli import main
from multipass.manifest import MANIFEST_NAME
from multipass.plan import decode
from tests.standalone.helpers import plan

A_TO_B = plan(
    {"name": "composition", "checkpoint": "a"}, {"name": "style", "switch_at": 0.5, "checkpoint": "b"}, seed=7
)

REFINE = {"kind": "refine", "denoising_strength": 0.5}

Render = Callable[..., int]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[object], str]:
    def write(content: object) -> str:
        path = tmp_path / "plan.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def render(write: Callable[[object], str], checkpoints: Path, out: Path) -> Render:
    def render(content: object, *options: str) -> int:
        return main(["render", write(content), "--checkpoints", str(checkpoints), "--out", str(out), *options])

    return render


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White on the left of 64x64."""
    path = tmp_path / "mask.png"
    whole = Image.new("L", (64, 64))
    whole.paste(255, (0, 0, 24, 64))
    whole.save(path)
    return path


def the_manifest(out: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = out.glob(f"multipass/*/*/{MANIFEST_NAME}")
    return path.parent, json.loads(path.read_text(encoding="utf-8"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# --- render -----------------------------------------------------------------------------------------------------------


def test_render_leaves_pictures_and_a_manifest(render: Render, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(A_TO_B, "--count", "2") == 0
    folder, manifest = the_manifest(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name)
    names = ["00000-7.png", "00001-8.png"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "pass_0", "pass_1", MANIFEST_NAME]
    told = capsys.readouterr().out.splitlines()
    assert told == [str(folder / name) for name in (MANIFEST_NAME, "00000-7.png", "00001-8.png")]
    assert (manifest["status"], manifest["error"], manifest["run"]) == ("done", None, folder.name)
    assert [image["seed"] for image in manifest["images"]] == [7, 8]
    assert [image["picture"] for image in manifest["images"]] == ["00000-7.png", "00001-8.png"]
    first, second = manifest["images"][0]["passes"]
    assert (first["name"], first["first_step"], first["end_step"]) == ("composition", 0, 3)
    assert (second["name"], second["first_step"], second["end_step"]) == ("style", 3, 6)
    assert first["checkpoint"] == f"a [{first['sha256'][:10]}]"
    assert first["load"]["source"] == "disk"
    assert first["load"]["seconds"] > 0
    assert second["load"]["source"] in {"disk", "ram"}  # read ahead, whether in time or not
    assert {own["load"]["source"] for own in manifest["images"][1]["passes"]} == {"resident"}
    assert first["sigma_out"] == second["sigma_in"]


def test_the_manifest_s_plan_renders_the_same_picture_again(render: Render, out: Path, tmp_path: Path) -> None:
    raw = plan(
        {"checkpoint": "a", "prompt": "a cat", "prompt_mode": "append"},
        {"switch_at": 0.5, "checkpoint": "b", "clip_skip": 2},
    )
    assert render(raw, "--seed", "-1", "--sampler", "DPM++ 2M Karras", "--negative", "x", "--size", "64x72") == 0
    folder, manifest = the_manifest(out)
    (image,) = manifest["images"]
    assert manifest["plan"]["request"]["seed"] == image["seed"] >= 0
    first = pixels(folder / image["picture"])
    assert first.shape == (72, 64, 3)
    folder.rename(tmp_path / "first")
    assert render(manifest["plan"]) == 0
    folder, again = the_manifest(out)
    assert again["plan"] == manifest["plan"]
    assert (pixels(folder / image["picture"]) == first).all()


ALL_KINDS = plan(
    {"name": "composition", "checkpoint": "a", "sampler_name": "Euler a"},
    {"name": "style", "switch_at": 0.5, "checkpoint": "b", "prompt": "ink", "prompt_mode": "append"},
    {"name": "photo", "kind": "refine", "checkpoint": "a", "denoising_strength": 0.4, "steps": 3, "scale": 1.5},
    {"switch_at": 0.5, "checkpoint": "b"},
    {"name": "larger", "kind": "refine", "denoising_strength": 0, "scale": 2, "upscaler": "Nearest"},
    seed=7,
)


def contents(folder: Path) -> dict[str, bytes]:
    """Every picture of a run, by its place in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_manifest_is_rendered_again_to_the_bit(render: Render, out: Path, tmp_path: Path) -> None:
    assert render(ALL_KINDS, "--count", "2") == 0
    folder, manifest = the_manifest(out)
    first = contents(folder)
    assert len(first) == 2 * (1 + 5)
    folder.rename(tmp_path / "first")
    assert render(manifest) == 0
    folder, again = the_manifest(out)
    assert contents(folder) == first
    assert again["plan"] == manifest["plan"]
    folder.rename(tmp_path / "second")
    # a seed or a number asked for is obeyed, and the seed alone is the picture it is in a batch
    assert render(manifest, "--seed", "8") == 0
    folder, again = the_manifest(out)
    assert [image["seed"] for image in again["images"]] == [8]
    for name, content in contents(folder).items():
        assert content == first[name.replace("00000-8", "00001-8")]
    folder.rename(tmp_path / "third")
    assert render(manifest, "--count", "1", "--size", "72x64") == 0
    folder, again = the_manifest(out)
    assert [image["seed"] for image in again["images"]] == [7]
    assert pixels(folder / "00000-7.png").shape == (192, 208, 3)


def test_every_pass_s_picture_is_in_the_run_and_in_its_manifest(render: Render, out: Path, tmp_path: Path) -> None:
    assert render(ALL_KINDS) == 0
    folder, manifest = the_manifest(out)
    (image,) = manifest["images"]
    assert [own["picture"] for own in image["passes"]] == [f"pass_{i}/00000-7.png" for i in range(5)]
    assert {*contents(folder)} == {"00000-7.png", *(own["picture"] for own in image["passes"])}
    assert [own["kind"] for own in image["passes"]] == ["first", "switch", "refine", "switch", "refine"]
    assert [own["through"] for own in image["passes"]] == [None, None, "latent", None, "pixels"]
    told = [webui_reads(Image.open(folder / own["picture"]).info["parameters"]) for own in image["passes"]]
    assert [text["Multipass pass"] for text in told] == [
        "composition",
        "style",
        "photo",
        "Pass 4",
        "larger",
    ]
    final = webui_reads(Image.open(folder / "00000-7.png").info["parameters"])
    a, b = (own["checkpoint"] for own in image["passes"][:2])
    assert final["Multipass passes"] == (
        f"composition {a} 1-3; style {b} 4-6; photo {a} 1-2; Pass 4 {b} 3; larger {b} no steps"
    )
    assert (final["Sampler"], final["Size"]) == ("Euler a", "64x64")
    assert "Multipass pass" not in final
    assert (pixels(folder / "pass_4/00000-7.png") == pixels(folder / "00000-7.png")).all()
    folder.rename(tmp_path / "first")
    assert render(ALL_KINDS | {"save_passes": False}) == 0
    folder, manifest = the_manifest(out)
    assert [own["picture"] for own in manifest["images"][0]["passes"]] == [None] * 5
    assert [*contents(folder)] == ["00000-7.png"]
    assert (pixels(folder / "00000-7.png") == pixels(tmp_path / "first/00000-7.png")).all()


@pytest.mark.parametrize("evaluation", range(9))
def test_a_run_that_is_stopped_in_any_step_has_the_passes_before_it(
    render: Render, out: Path, monkeypatch: pytest.MonkeyPatch, evaluation: int
) -> None:
    stop_at(monkeypatch, evaluation, KeyboardInterrupt())
    assert render(ALL_KINDS) == 130
    folder, manifest = the_manifest(out)
    done = sum(evaluation >= end for end in (3, 6, 8))
    assert manifest["status"] == "interrupted"
    kept = [own["picture"] for image in manifest["images"] for own in image["passes"]]
    assert kept == [f"pass_{i}/00000-7.png" for i in range(done)]
    assert {*contents(folder)} == {*kept}


# modules/infotext_utils.py of the webui
RE_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def webui_reads(text: str) -> dict[str, str]:
    *lines, last = text.strip().split("\n")
    fields = {
        key: json.loads(value) if value.startswith('"') and value.endswith('"') else value
        for key, value in RE_PARAM.findall(last)
    }
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt:")
    return fields | {"Prompt": prompt, "Negative prompt": negative.strip()}


def test_the_picture_s_infotext_renders_it_again(render: Render, out: Path, tmp_path: Path) -> None:
    raw = plan(
        {"name": 'a "strange": name,\nand ü', "checkpoint": "a"},
        {"switch_at": 0.5, "checkpoint": "b", "prompt": 'masterpiece, "quoted": \\(very\\)\nsecond line'},
        prompt="ein Fuchs, (rot:1.2)\nin two lines",
        negative_prompt="lowres: yes",
        seed=9,
        scheduler="karras",
    )
    assert render(raw) == 0
    folder, manifest = the_manifest(out)
    text = Image.open(folder / "00000-9.png").info["parameters"]
    assert text.splitlines()[-1].startswith("Steps: 6, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 9, ")
    read = webui_reads(text)
    a, b = (own["checkpoint"] for own in manifest["images"][0]["passes"])
    assert read["Model"] == "a"
    assert read["Model hash"] == a.removeprefix("a [").removesuffix("]")
    assert read["Size"] == "64x64"
    assert read["Multipass passes"] == f'a "strange": name,\nand ü {a} 1-3; Pass 2 {b} 4-6'
    assert list(read)[-4:-2] == ["Multipass passes", "Multipass"]  # the last, before what was added here
    pasted = json.loads(read["Multipass"])
    assert decode(pasted).passes == decode(manifest["plan"]).passes
    first = pixels(folder / "00000-9.png")
    folder.rename(tmp_path / "first")
    size = ("--size", read["Size"], "--steps", read["Steps"], "--sampler", read["Sampler"])
    texts = ("--prompt", read["Prompt"], "--negative", read["Negative prompt"])
    rest = ("--scheduler", read["Schedule type"], "--cfg", read["CFG scale"], "--seed", read["Seed"])
    assert render(pasted, *size, *texts, *rest) == 0
    folder, _ = the_manifest(out)
    assert (pixels(folder / "00000-9.png") == first).all()


def test_the_command_line_wins_over_the_plan_s_request(render: Render, out: Path) -> None:
    options = {"--prompt": "p", "--negative": "n", "--seed": "3", "--steps": "4", "--size": "72x64", "--cfg": "5.5"}
    options |= {"--sampler": "euler a", "--scheduler": "exponential"}
    assert render(A_TO_B, *(part for pair in options.items() for part in pair)) == 0
    _, manifest = the_manifest(out)
    assert manifest["plan"]["request"] == {
        "prompt": "p",
        "negative_prompt": "n",
        "seed": 3,
        "steps": 4,
        "width": 72,
        "height": 64,
        "sampler_name": "Euler a",
        "scheduler": "Exponential",
        "cfg_scale": 5.5,
    }
    assert [own["end_step"] for own in manifest["images"][0]["passes"]] == [2, 4]


# --- how a run ends ---------------------------------------------------------------------------------------------------


def stop_at(monkeypatch: pytest.MonkeyPatch, evaluation: int, error: BaseException) -> None:
    real, count = engine._unet, iter(range(1000))

    def unet(*arguments: Any) -> Any:
        if next(count) == evaluation:
            raise error
        return real(*arguments)

    monkeypatch.setattr(engine, "_unet", unet)


@pytest.mark.parametrize(
    ("evaluation", "images"),
    [(0, []), (4, [(7, None, 1)]), (6, [(7, "00000-7.png", 2)]), (10, [(7, "00000-7.png", 2), (8, None, 1)])],
)
@pytest.mark.parametrize(
    ("error", "code", "status", "told"),
    [
        (RuntimeError("out of luck"), 1, "failed", "RuntimeError: out of luck"),
        (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
    ],
    ids=["fault", "ctrl-c"],
)
def test_a_run_that_is_stopped_says_so_and_keeps_what_it_has(
    *,
    render: Render,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: int,
    images: list[tuple[int, str | None, int]],
    error: BaseException,
    code: int,
    status: str,
    told: str,
) -> None:
    stop_at(monkeypatch, evaluation, error)
    assert render(A_TO_B, "--count", "2") == code
    folder, manifest = the_manifest(out)
    assert (manifest["status"], manifest["error"]) == (status, told)
    assert [(image["seed"], image["picture"], len(image["passes"])) for image in manifest["images"]] == images
    kept = {image["picture"] for image in manifest["images"]} - {None}
    kept |= {own["picture"] for image in manifest["images"] for own in image["passes"]}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == kept | {MANIFEST_NAME}


def test_until_the_run_ends_the_manifest_does_not_say_done(
    render: Render, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = engine._unet

    def unet(*arguments: Any) -> Any:
        seen.append(the_manifest(out)[1]["status"])
        return real(*arguments)

    monkeypatch.setattr(engine, "_unet", unet)
    assert render(A_TO_B) == 0
    assert set(seen) == {"interrupted"}
    assert the_manifest(out)[1]["status"] == "done"


def test_a_picture_of_nothing_is_a_failure(render: Render, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine._unet
    monkeypatch.setattr(engine, "_unet", lambda *arguments: real(*arguments) * float("nan"))
    assert render(A_TO_B) == 1
    folder, manifest = the_manifest(out)
    assert manifest["status"] == "failed"
    assert "not-a-number" in manifest["error"]
    assert not list(folder.glob("*.png"))


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing on stdout."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("\n")
    (line,) = said.err.splitlines()
    assert line.startswith("multipass")
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "plan.json: not JSON"),
        ("{", "plan.json: not JSON"),
        ("[]", "plan.json: "),
        ({"version": 2, "passes": [{}]}, "version: expected 1, got 2"),
        ({"version": 1, "passes": []}, "passes: "),
        ({"version": 1, "passes": [{"checkpoint": "a"}] * 17}, "passes: "),
        ({"version": 1, "passes": [{"checkpint": "a"}]}, "passes[0].checkpint: unknown field"),
        (plan({"checkpoint": "a"}, {"switch_at": 1.5}), "passes[1].switch_at: expected a number from 0 to 1, got 1.5"),
        (plan({"checkpoint": "a"}, {"switch_at": 0.7}, {"switch_at": 0.2}), "passes[2].switch_at: "),
        (plan({"checkpoint": "nope"}), "passes[0].checkpoint: no checkpoint 'nope'"),
        (plan({"checkpoint": "a"}, {"switch_at": 0.5, "checkpoint": "xl"}), "passes[1].checkpoint: xl (SDXL"),
        (
            plan({"checkpoint": "a"}, {"kind": "refine", "checkpoint": "b"}),
            "passes[1].denoising_strength: a refine pass needs it: a number from 0 to 1",
        ),
        (plan({"checkpoint": "a"}, REFINE | {"upscaler": "ESRGAN"}), "passes[1].upscaler: the command has no upscaler"),
        (plan({"checkpoint": "a"}, REFINE | {"sampler_name": "Heun"}), "passes[1].sampler_name: the command has no"),
        (plan({"checkpoint": "a"}, REFINE | {"scheduler": "beta"}), "passes[1].scheduler: the command has no schedule"),
        (
            plan({"checkpoint": "a"}, REFINE | {"sampler_name": "DDIM"}, scheduler="Karras"),
            "passes[1].scheduler: DDIM has a schedule of its own: Automatic, not Karras",
        ),
        (
            plan({"checkpoint": "a"}, REFINE | {"sampler_name": "DDIM", "steps": 2}),
            "passes[1].steps: DDIM redraws in two steps less than asked, as in the webui: expected at least 3, got 2",
        ),
        (
            plan({"checkpoint": "a"}, REFINE | {"sampler_name": "DDIM", "denoising_strength": 0.001}),
            "passes[1].steps: 6 steps at a strength of 0.001 are the last of 6000, DDIM has 1000",
        ),
        (plan({"checkpoint": "a"}, REFINE | {"denoising_strength": 1e-9}), "passes[1].steps: 6 steps at a strength of"),
        (
            plan({"checkpoint": "a"}, REFINE, REFINE | {"scale": 8, "denoising_strength": 0.5}, width=4096),
            "passes[2].scale: 4096x64 would become 32768x512, expected sides from 8 to 16384",
        ),
        (
            plan({"checkpoint": "a"}, REFINE | {"scale": 0.25}, height=8),
            "passes[1].scale: 64x8 would become 16x0",
        ),
        (
            plan({"checkpoint": "a"}, REFINE, {"switch_at": 0.5, "checkpoint": "xl"}),
            "passes[2].checkpoint: xl (SDXL",
        ),
        (
            plan({"checkpoint": "a"}, REFINE, {"switch_at": 0.5}, {"switch_at": 0.2}),
            "passes[3].switch_at: Pass 4 would begin at step 3, before Pass 3 at step 4",
        ),
        (plan({"checkpoint": "a"}, REFINE | {"vae": "x"}), "passes[1].vae: "),
        (
            plan({"checkpoint": "a", "denoising_strength": 0.5}, REFINE),
            "passes[0].denoising_strength: the command begins",
        ),
        (
            plan({"checkpoint": "a"}, {"kind": "subject", "target": "hand", "denoising_strength": 0.5}),
            'passes[1].target: the command finds person and face, got "hand"',
        ),
        (plan({"checkpoint": "a", "vae": "x"}), "passes[0].vae: "),
        (plan({"checkpoint": "a", "sampler_name": "Heun"}), "passes[0].sampler_name: the command has no sampler"),
        (plan({"checkpoint": "a", "scheduler": "beta"}), "passes[0].scheduler: the command has no schedule type"),
        (plan({"checkpoint": "a", "prompt": "<lora:x:1>"}), "passes[0].prompt: the command does not apply LoRAs yet"),
        (plan({"checkpoint": "a"}, prompt="[a:b:0.5]"), "request.prompt: the command does not do prompt editing"),
        (plan({"checkpoint": "a"}) | {"common": {"negative_prompt": "a AND b"}}, "common.negative_prompt: "),
        (plan({"checkpoint": "a"}, sampler_name="Heun"), "request.sampler_name: the command has no sampler 'Heun'"),
        (plan({"checkpoint": "a"}, width=100), "request.width: expected a multiple of 8, got 100"),
    ],
)
@pytest.mark.parametrize("command", ["render", "validate"])
def test_a_plan_that_is_refused(
    *,
    command: str,
    content: object,
    reason: str,
    write: Callable[[object], str],
    checkpoints: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--out", str(out)] if command == "render" else []
    assert main([command, write(content), "--checkpoints", str(checkpoints), *options]) == 2
    assert reason in refused(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--size", "512"], "--size: expected WIDTHxHEIGHT, as in 512x512, got 512"),
        (["--size", "4x64"], "--size: expected a whole number from 8 to 16384, got 4"),
        (["--size", "65x64"], "--size: expected a multiple of 8, got 65"),
        (["--steps", "0"], "--steps: expected a whole number from 1 to 1000, got 0"),
        (["--cfg", "nan"], "--cfg: "),
        (["--cfg", "0.5"], "--cfg: expected a number from 1 to 100, got 0.5"),
        (["--seed", "-2"], "--seed: "),
        (["--sampler", "Nope"], "--sampler: the command has no sampler 'Nope'"),
        (["--sampler", "DDIM", "--scheduler", "karras"], "--scheduler: DDIM has a schedule of its own"),
        (["--prompt", "<lora:x:1>"], "--prompt: the command does not apply LoRAs yet"),
        (["--checkpoints", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_an_option_that_is_refused(
    render: Render, out: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(A_TO_B, *options) == 2
    assert reason in refused(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["render"],
        ["render", "plan.json"],
        ["render", "plan.json", "--checkpoints", ".", "--steps", "many"],
        ["render", "plan.json", "--checkpoints", ".", "--count", "0"],
        ["render", "plan.json", "--checkpoints", ".", "--ram", "-1"],
        ["render", "plan.json", "--checkpoints", ".", "--ram", "inf"],
        ["demo", "--ram", "much"],
        ["validate", "plan.json", "--nonsense"],
    ],
)
def test_wrong_usage_is_one_line_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    refused(capsys)


def test_files_that_cannot_be_read_or_written(
    write: Callable[[object], str], checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file or directory" in refused(capsys)
    assert main(["validate", str(tmp_path)]) == 2
    assert "Is a directory" in refused(capsys)
    plan_file = write(A_TO_B)
    assert main(["render", plan_file, "--checkpoints", str(checkpoints), "--out", plan_file]) == 2
    assert f"cannot write to {plan_file}: Not a directory" in refused(capsys)


# --- validate, schema -------------------------------------------------------------------------------------------------


def test_validate_says_the_steps(write: Callable[[object], str], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(A_TO_B)
    assert main(["validate", path]) == 0
    assert capsys.readouterr().out == "composition 1-3; style 4-6\n"
    assert main(["validate", path, "--steps", "20", "--json"]) == 0
    passes = [
        {"name": "composition", "first_step": 0, "end_step": 10},
        {"name": "style", "first_step": 10, "end_step": 20},
    ]
    assert json.loads(capsys.readouterr().out) == {"ok": True, "passes": passes}


def test_validate_counts_every_trajectory_s_steps(
    write: Callable[[object], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", write(ALL_KINDS)]) == 0
    assert capsys.readouterr().out == "composition 1-3; style 4-6; photo 1-2; Pass 4 3; larger no steps\n"


def test_validate_says_the_errors_in_json(write: Callable[[object], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", write(plan({"checkpoint": "a"}, {"switch_at": 2})), "--json"]) == 2
    errors = [{"path": "passes[1].switch_at", "message": "expected a number from 0 to 1, got 2"}]
    assert json.loads(capsys.readouterr().out) == {"ok": False, "errors": errors}


def test_what_validate_announces_is_what_runs(
    render: Render, out: Path, write: Callable[[object], str], capsys: pytest.CaptureFixture[str]
) -> None:
    for unit, where, sampler in (("timestep", 0.3, "DDIM"), ("sigma", 3.0, "DPM++ 2M"), ("step", 2, "Euler a")):
        raw = plan({"checkpoint": "a"}, {"switch_at": where, "checkpoint": "b"}, unit=unit, sampler_name=sampler)
        assert main(["validate", write(raw), "--json"]) == 0
        announced = json.loads(capsys.readouterr().out)["passes"]
        assert render(raw) == 0
        capsys.readouterr()
        folder, manifest = the_manifest(out)
        ran = [{key: own[key] for key in ("name", "first_step", "end_step")} for own in manifest["images"][0]["passes"]]
        assert ran == announced
        assert len(ran) == 2
        folder.rename(out.parent / unit)


def test_presets_are_listed_and_printed_to_be_filled_in(
    render: Render, mask: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["presets"]) == 0
    listed = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(presets.SHIPPED)
    for name in listed:
        assert main(["presets", name]) == 0
        preset = json.loads(capsys.readouterr().out)
        for own, checkpoint in zip(preset["passes"], "abab", strict=False):
            own["checkpoint"] = checkpoint
        request = {"seed": 7, "steps": 4, "width": 64, "height": 64, "sampler_name": "Euler"}
        request["prompt"] = "a beach BREAK photorealistic BREAK an astronaut"
        subjects = (n for n, own in enumerate(preset["passes"]) if own.get("kind") == "subject")
        options = (("--mask", f"passes[{index}]={mask}") for index in subjects)
        assert render({**preset, "request": request}, *chain.from_iterable(options)) == 0
        capsys.readouterr()
    assert main(["presets", "Toon to foto"]) == 2
    assert 'did you mean "Toon to photo"?' in capsys.readouterr().err


def test_schema_accepts_a_plan_and_not_another_thing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(A_TO_B, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(A_TO_B | {"passes": []}, schema)


def run_without(modules: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a Python where these cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(modules)!r}));"
        f"from multipass.hosts.standalone.cli import main; sys.exit(main({list(arguments)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_checking_a_plan_needs_no_torch_nor_anything_else(write: Callable[[object], str]) -> None:
    heavy = ["torch", "diffusers", "transformers", "safetensors", "yaml", "PIL", "numpy"]
    assert run_without(heavy, "schema").returncode == 0
    done = run_without(heavy, "validate", write(A_TO_B))
    assert (done.returncode, done.stdout) == (0, "composition 1-3; style 4-6\n"), done.stderr


def test_what_is_not_installed_is_one_line(write: Callable[[object], str], checkpoints: Path) -> None:
    done = run_without(["diffusers"], "render", write(A_TO_B), "--checkpoints", str(checkpoints))
    assert done.returncode == 2
    assert re.fullmatch(r"multipass: diffusers\S* is not installed: pip install .*\n", done.stderr), done.stderr


def test_who_reads_only_the_beginning_is_no_failure() -> None:
    command = f"{sys.executable} -m multipass.hosts.standalone.cli schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_saved_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(A_TO_B), encoding="utf-8-sig")
    assert main(["validate", str(path)]) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_for_every_pass(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    photo = {"name": "photo", "kind": "refine", "checkpoint": "a", "denoising_strength": 0.4, "steps": 2, "scale": 2}
    assert render({**A_TO_B, "passes": [*A_TO_B["passes"], photo | {"upscaler": "Lanczos"}]}) == 0
    bars = [bar.split("\r") for bar in terminal.getvalue().strip().split("\n")]
    assert [bar[-1].split(":")[0] for bar in bars] == ["Loading a", "Pass 1 of 3", "Pass 2 of 3", "Pass 3 of 3"]
    names = ("composition", "style", "photo")
    steps = ("3/3", "3/3", "2/2")
    doings = (["loading a", "decoding"], ["loading b", "decoding"], ["upscaling", "encoding", "loading a", "decoding"])
    for bar, name, count, wanted in zip(bars[1:], names, steps, doings, strict=True):
        assert f": {name}: 100%" in bar[-1]
        assert count in bar[-1]
        said = [next((doing for doing in ALL_DOINGS if doing in state), None) for state in bar]
        assert [doing for doing, _ in groupby(filter(None, said))] == wanted


ALL_DOINGS = ("loading a", "loading b", "upscaling", "encoding", "decoding")


SUBJECT = {"kind": "subject", "target": "person", "denoising_strength": 0.6, "checkpoint": "b", "mask_blur": 0}


def test_a_mask_on_the_command_line_is_what_is_repainted_and_is_in_the_run(
    render: Render, out: Path, mask: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = {"name": "scene", "checkpoint": "a"}
    raw = plan(scene, SUBJECT | {"name": "person", "which": 1}, {"switch_at": 0.5, "checkpoint": "c"}, seed=7)
    assert render(raw, "--mask", f"passes[1]={mask}", "--count", "2") == 0
    folder, manifest = the_manifest(out)
    assert manifest["plan"]["passes"][1].keys() == SUBJECT.keys() - {"target"} | {"name", "mask"}
    for number, image in enumerate(manifest["images"]):
        first, *others = image["passes"]
        name = f"{number:05}-{7 + number}"
        assert (first["subjects"], first["mask"]) == (None, None)
        assert [(own["subjects"], own["mask"]) for own in others] == [(1, f"pass_1/{name}-mask.png")] * 2
        kept = Image.open(folder / others[0]["mask"])
        assert (kept.size, kept.getbbox()) == ((64, 64), (0, 0, 24, 64))
        before, repainted, after = (np.asarray(Image.open(folder / own["picture"])) for own in image["passes"])
        for picture in (repainted, after):
            assert (picture[:, 24:] == before[:, 24:]).all()
            assert (picture[:, :24] != before[:, :24]).any(axis=-1).mean() > 0.9
        assert (after == np.asarray(Image.open(folder / image["picture"]))).all()
    capsys.readouterr()
    again = out.parent / "again"
    assert main(["render", str(folder / MANIFEST_NAME), "--checkpoints", str(checkpoints), "--out", str(again)]) == 0
    repeated = [Image.open(file).tobytes() for file in sorted(again.glob("multipass/*/*/*.png"))]
    assert repeated == [Image.open(folder / image["picture"]).tobytes() for image in manifest["images"]]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("people.png", "--mask: expected passes[N]=FILE, as in passes[1]=people.png, got people.png"),
        ("passes[7]=people.png", "--mask: there is no passes[7], the plan has 2"),
        ("passes[1]=nosuch.png", "cannot read nosuch.png: No such file or directory"),
        ("passes[0]={mask}", "passes[0].mask: the first pass does not have it"),
        ("passes[1]={plan}", "passes[1].mask: expected a picture in base64"),
    ],
)
def test_a_mask_that_will_not_do_is_refused(
    render: Render, out: Path, mask: Path, option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(plan({"checkpoint": "a"}, SUBJECT), "--mask", option.format(mask=mask, plan=__file__)) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_sweep_reaches_the_fields_of_a_subject_pass(
    write: Callable[[object], str], checkpoints: Path, out: Path, mask: Path
) -> None:
    asked = ["sweep", write(plan({"checkpoint": "a"}, SUBJECT, seed=7)), "--mask", f"passes[1]={mask}"]
    axis = ["--axis", "passes[1].mask_blur=0,4", "--axis", "passes[1].invert=false,true"]
    assert main([*asked, *axis, "--checkpoints", str(checkpoints), "--out", str(out)]) == 0
    pictures = {Image.open(path).tobytes() for path in out.glob("multipass/*/*/*.png")}
    assert len(pictures) == 4


def test_the_prompt_s_parts_become_passes(
    write: Callable[[object], str], mask: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = {**plan({"checkpoint": "a"}, SUBJECT), "prompt_syntax": "scene-break"}
    asked = ["validate", write(scene), "--mask", f"passes[1]={mask}", "--prompt"]
    assert main([*asked, "a beach BREAK photo BREAK an astronaut"]) == 0
    assert len(capsys.readouterr().out.strip().split("; ")) == 2
    assert main([*asked, "a beach"]) == 2
    assert "--prompt: expected scene BREAK common BREAK subject, got one part" in capsys.readouterr().err
    assert main([*asked, "a BREAK b BREAK c BREAK d"]) == 2
    assert "--prompt: it has more subjects than the plan has passes" in capsys.readouterr().err
