"""Checkpoints are found by name and hash, recognised, and loaded: all of what they hold, from the file alone."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multipass.hosts.standalone.checkpoints import CheckpointFile, CheckpointFolder
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.job import prepare
from multipass.hosts.standalone.layout import lay_out_plan
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Checkpoint, Place
from multipass.hosts.standalone.originals import ORIGINALS
from multipass.kinds import Family
from multipass.plan import PlanError, decode
from tests import ldm_layout as layout
from tests.standalone.helpers import draw, job, plan


@pytest.fixture(scope="module")
def folder(checkpoints: Path) -> CheckpointFolder:
    return CheckpointFolder(checkpoints)


@pytest.mark.parametrize("asked", ["sub/wide", "sub\\wide", "wide", "wide.safetensors", "sub/wide.safetensors"])
def test_a_name(folder: CheckpointFolder, asked: str) -> None:
    assert folder.find(asked, "").name == "sub/wide"


def test_a_hash_decides_and_finds_a_renamed_file(folder: CheckpointFolder) -> None:
    a = folder.find("a", "")
    assert len(a.short_hash) == 10
    assert a.title == f"a [{a.sha256[:10]}]"
    for asked in (a.title, f"renamed since [{a.short_hash}]", f"b [{a.short_hash}]", a.short_hash, a.sha256):
        assert folder.find(asked, "").name == "a"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("nothing like it", "no checkpoint 'nothing like it' ("),
        ("inpain", "did you mean 'inpaint'?"),
        ("wid", "did you mean 'sub/wide'?"),
        ("", "no checkpoint ''"),
        ("../checkpoints0/a", "no checkpoint '../checkpoints0/a'"),
        ("a [0123456789]", "no checkpoint has the hash of 'a [0123456789]', a is a ["),
        ("0123456789", "no checkpoint '0123456789'"),
    ],
)
def test_no_other_checkpoint_is_taken_instead(folder: CheckpointFolder, asked: str, reason: str) -> None:
    with pytest.raises(PlanError) as refused:
        folder.find(asked, "passes[3].checkpoint")
    (problem,) = refused.value.problems
    assert problem.path == "passes[3].checkpoint"
    assert reason in problem.message


def test_two_different_files_of_one_name(checkpoints: Path, tmp_path: Path) -> None:
    for place, name in (("one", "a"), ("two", "b"), ("three", "a")):
        (tmp_path / place).mkdir()
        shutil.copy(checkpoints / f"{name}.safetensors", tmp_path / place / "same.safetensors")
    with pytest.raises(PlanError, match=r"'same' could be any of one/same \[.*\], three/same \[.*\], two/same \["):
        CheckpointFolder(tmp_path).find("same", "p")
    (tmp_path / "two" / "same.safetensors").unlink()
    assert CheckpointFolder(tmp_path).find("same", "p").name == "one/same"  # copies


def test_the_config_is_its_own_or_the_one_that_is_nobody_s(folder: CheckpointFolder, tmp_path: Path) -> None:
    configs = {file.name: file.config_path and file.config_path.name for file in folder.files}
    assert configs["a"] == configs["b"] == "tiny.yaml"
    assert configs["sub/wide"] == "wide.yaml"
    assert configs["xl"] == "xl.yaml"
    (tmp_path / "x.safetensors").touch()
    lonely = CheckpointFolder(tmp_path).find("x", "")
    assert lonely.config_path is None
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"one\.yaml, two\.yaml\? Name one x\.yaml"):
        _ = CheckpointFolder(tmp_path).find("x", "").config_path


@pytest.mark.parametrize("content", ["", "[1, 2]", "model: 3", "model: {}", "a: b: c", "\x00"])
def test_a_config_that_is_none(checkpoints: Path, tmp_path: Path, content: str) -> None:
    shutil.copy(checkpoints / "a.safetensors", tmp_path)
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=r"passes\[0\]\.checkpoint: .*a\.yaml is not a"):
        job(plan({"checkpoint": "a"}), tmp_path)


@pytest.mark.parametrize("length", [0, 7, 500, -1])
def test_a_file_that_is_not_whole_is_refused_before_anything_is_loaded(
    checkpoints: Path, tmp_path: Path, length: int
) -> None:
    whole = (checkpoints / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole[:length])
    with pytest.raises(PlanError, match=r"passes\[1\]\.checkpoint: .*cut\.safetensors is not a readable safetensors"):
        job(plan({"checkpoint": "a"}, {"switch_at": 0.5, "checkpoint": "cut"}), tmp_path)


@pytest.mark.parametrize(
    ("names", "place", "reason"),
    [
        (("a", "xl"), "passes[1].checkpoint", "xl (SDXL, 4 UNet channels) cannot continue what a (SD 1.x, 4 UNet ch"),
        (("xl", "a"), "passes[1].checkpoint", "a (SD 1.x, 4 UNet channels) cannot continue what xl (SDXL"),
        (("a", "inpaint"), "passes[1].checkpoint", "inpaint (SD 1.x, 9 UNet channels) cannot continue what a ("),
        (("inpaint",), "passes[0].checkpoint", "inpaint is not a text-to-image model: SD 1.x, 9 UNet channels"),
    ],
)
def test_another_latent_space_is_refused_with_both_names(
    checkpoints: Path, names: tuple[str, ...], place: str, reason: str
) -> None:
    first, *others = ({"checkpoint": name} for name in names)
    with pytest.raises(PlanError) as refused:
        job(plan(first, *({"switch_at": 0.5, **other} for other in others)), checkpoints)
    (problem,) = refused.value.problems
    assert problem.path == place
    assert problem.message.startswith(reason)


def test_a_pass_without_a_step_is_not_loaded_but_must_exist(checkpoints: Path) -> None:
    made = job(plan({"checkpoint": "a"}, {"switch_at": 1, "checkpoint": "b"}), checkpoints)
    assert {index: file.name for index, file in made.checkpoints.items()} == {0: "a"}
    with pytest.raises(PlanError, match="no checkpoint 'gone'"):
        job(plan({"checkpoint": "a"}, {"switch_at": 1, "checkpoint": "gone"}), checkpoints)


def test_a_checkpoint_left_out_is_the_pass_before_s(checkpoints: Path) -> None:
    passes = ({"checkpoint": "b"}, {"switch_at": 0.2, "enabled": False, "checkpoint": "a"}, {"switch_at": 0.5})
    made = job(plan(*passes), checkpoints)
    assert {index: file.name for index, file in made.checkpoints.items()} == {0: "b", 2: "b"}
    with pytest.raises(PlanError, match=r"passes\[0\]\.checkpoint: the first pass needs one \(.* has a, b, c, "):
        job(plan({}), checkpoints)


@pytest.mark.parametrize(("name", "clip_skip"), [("a", 4), ("xl", 3)])
def test_a_clip_skip_the_text_encoder_does_not_have(checkpoints: Path, name: str, clip_skip: int) -> None:
    with pytest.raises(PlanError, match=r"passes\[0\]\.clip_skip: "):
        job(plan({"checkpoint": name, "clip_skip": clip_skip}), checkpoints)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        (("unet_config", "params", "context_dim"), 48, "UNet .* is .* in the file"),
        (("unet_config", "params", "num_res_blocks"), 2, "UNet .* tensors are missing"),
        (("first_stage_config", "params", "ddconfig", "ch"), 64, "VAE .* is .* in the file"),
        (("cond_stage_config", "params", "version"), "nowhere", "no config.json there"),
        (("unet_config", "params"), {}, "does not describe a model"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_config_that_does_not_fit_is_an_error_not_random_weights(
    checkpoints: Path, tmp_path: Path, field: tuple[str, ...], value: object, what: str
) -> None:
    config = copy.deepcopy(layout.TINY_SD1)
    inner: Any = config["model"]["params"]
    for key in field[:-1]:
        inner = inner[key]
    inner[field[-1]] = value
    layout.save_config(tmp_path / "a.yaml", config)
    shutil.copy(checkpoints / "a.safetensors", tmp_path)
    shutil.copytree(checkpoints / "clip", tmp_path / "clip")
    with pytest.raises(InputError, match=what):
        draw(plan({"checkpoint": "a"}), tmp_path, Checkpoints(Place("cpu", torch.float32)))


def test_the_older_names_of_clip_s_tensors(checkpoints: Path, tmp_path: Path, store: Checkpoints) -> None:
    old = {
        k.replace("transformer.text_model.", "transformer."): v
        for k, v in load_file(checkpoints / "a.safetensors").items()
    }
    save_file(old, tmp_path / "old.safetensors")
    layout.save_config(tmp_path / "old.yaml", layout.TINY_SD1)
    shutil.copytree(checkpoints / "clip", tmp_path / "clip")
    assert draw(plan({"checkpoint": "old"}), tmp_path, store).equals(
        draw(plan({"checkpoint": "a"}), checkpoints, store)
    )


# --- the usual sizes, by their shapes alone ---------------------------------------------------------------------------

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
VOCABULARY = 49408


def shapes_only(shapes: Mapping[str, tuple[int, ...]], tmp_path: Path) -> Checkpoint:
    """A checkpoint file of which only the tensors' shapes are there."""
    file = CheckpointFile(tmp_path / "usual.safetensors", "usual")
    file.__dict__["header"] = dict(shapes)
    return Checkpoint(file, Place("meta", torch.float32))


def size(model: Any) -> int:
    return sum(math.prod(tensor.shape) for tensor in model.parameters())


@pytest.fixture
def _standard_vocabulary(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipass.hosts.standalone.models.CLIP_FOLDER", checkpoints / "clip")


@pytest.mark.usefixtures("_standard_vocabulary")
def test_sd15_at_its_true_size(tmp_path: Path) -> None:
    shapes = dict(layout.sd1_shapes(ORIGINALS[Family.SD1] | {}, CLIP_L, VOCABULARY))
    checkpoint = shapes_only(shapes, tmp_path)
    assert checkpoint.file.family is Family.SD1
    assert size(checkpoint.unet) == 859_520_964  # the published sizes
    assert size(checkpoint.vae) == 83_653_863
    (encoder,) = checkpoint.text_encoders
    assert size(encoder.model) == 123_060_480
    assert encoder.model.config.num_attention_heads == 12
    assert checkpoint.vae.config.scaling_factor == 0.18215


@pytest.mark.usefixtures("_standard_vocabulary")
def test_sdxl_at_its_true_size(tmp_path: Path) -> None:
    shapes = dict(layout.sdxl_shapes(ORIGINALS[Family.SDXL], CLIP_L, CLIP_BIG_G, VOCABULARY))
    checkpoint = shapes_only(shapes, tmp_path)
    assert checkpoint.file.family is Family.SDXL
    assert size(checkpoint.unet) == 2_567_463_684
    assert size(checkpoint.vae) == 83_653_863
    first, second = checkpoint.text_encoders
    assert size(first.model) == 123_060_480
    assert size(second.model) == 694_659_840
    assert second.model.config.num_attention_heads == 20
    assert checkpoint.vae.config.scaling_factor == 0.13025


def test_no_folder_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        CheckpointFolder(tmp_path / "nowhere")
    with pytest.raises(PlanError, match=r"has no \.safetensors files"):
        prepare(lay_out_plan(decode(plan({"checkpoint": "a"}))), CheckpointFolder(tmp_path))
