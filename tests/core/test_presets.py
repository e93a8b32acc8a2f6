"""Presets: those that come along are plans; those that people save stay in their folder, whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from multipass import presets
from multipass.plan import PassKind, Plan, PromptSyntax, decode, encode
from multipass.presets import ShippedPresetError, UnknownPresetError
from multipass.problems import PlanError
from tests.core.strategies import plans

ROOT = Path(__file__).parents[2]
PLAN = decode({"version": 1, "passes": [{"checkpoint": "a"}]})
NO_NAMES = [
    "", " ", ".", "..", ".hidden", "a/b", "../a", "a\\b", "C:a", "a\nb", "a?", "a*", "con", "NUL.old", "COM1", "lpt³",
    " a", "a ", "x" * 201, "ü" * 101, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", presets.SHIPPED)
def test_what_comes_along_names_no_checkpoint_and_is_not_written_to(tmp_path: Path, name: str) -> None:
    plan = presets.read(tmp_path, name)
    assert len(plan.passes) > 1
    assert all(own.name and own.checkpoint is None and own.vae is None for own in plan.passes)
    for written in (name, name.upper()):
        with pytest.raises(ShippedPresetError):
            presets.write(tmp_path, written, PLAN)
        with pytest.raises(ShippedPresetError):
            presets.delete(tmp_path, written)
    assert presets.names(tmp_path) == []


def test_every_file_that_comes_along_is_told_of_and_packed() -> None:
    files = {path.relative_to(ROOT / "multipass") for path in (ROOT / "multipass/shipped_presets").iterdir()}
    assert {path.stem for path in files} == set(presets.SHIPPED)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["multipass"]
    assert all(any(path.match(pattern) for pattern in packed) for path in files)


def test_the_workflows_are_as_they_are_known() -> None:
    strengths = {
        name: [own.denoising_strength for own in presets.shipped(name).passes if own.kind is PassKind.REFINE]
        for name in presets.SHIPPED
    }
    assert strengths["Style transfer chain"] == [0.7, 0.15]
    assert strengths["Progressive detail"] == [0.8, 0.4, 0.2]
    assert presets.shipped("Pony to Animagine").passes[1].switch_at == 0.4
    assert presets.shipped("Subject on scene").prompt_syntax is PromptSyntax.SCENE_BREAK


@given(plans(), st.text(max_size=60) | st.sampled_from(NO_NAMES))
def test_a_name_is_a_file_in_the_folder_or_refused(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, name: str
) -> None:
    folder = tmp_path_factory.mktemp("data") / "presets"
    try:
        is_new = presets.write(folder, name, plan)
    except PlanError as error:
        assert [problem.path for problem in error.problems] == ["name"]
        assert [*folder.parent.iterdir()] == []
    else:
        assert is_new
        assert not presets.write(folder, name, plan)
        assert [path.parent for path in folder.iterdir()] == [folder]
        assert presets.names(folder) == [name]
        assert presets.read(folder, name) == plan
        presets.delete(folder, name)
        assert presets.names(folder) == []


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_told_so(tmp_path: Path, name: str) -> None:
    for act in (lambda: presets.read(tmp_path, name), lambda: presets.delete(tmp_path, name)):
        with pytest.raises(PlanError) as caught:
            act()
        assert not isinstance(caught.value, UnknownPresetError)
        assert caught.value.problems[0].path == "name"


OTHER = decode({"version": 1, "passes": [{"checkpoint": "b"}]})


def test_names_that_differ_in_case_are_one_preset_s(tmp_path: Path) -> None:
    assert presets.write(tmp_path, "Mine", PLAN)
    assert not presets.write(tmp_path, "mine", OTHER)
    assert presets.names(tmp_path) == ["mine"]
    assert presets.read(tmp_path, "mine") == OTHER
    with pytest.raises(UnknownPresetError):
        presets.delete(tmp_path, "Mine")
    assert presets.read(tmp_path, "mine") == OTHER
    presets.delete(tmp_path, "mine")
    assert [*tmp_path.iterdir()] == []


def test_those_that_somebody_has_put_there_stay_apart(tmp_path: Path) -> None:
    for name in ("Mine", "mine"):
        (tmp_path / f"{name}.json").write_text(encode(PLAN))
    if len(presets.names(tmp_path)) < 2:
        pytest.skip("this file system ignores case")
    assert not presets.write(tmp_path, "mine", OTHER)
    assert presets.read(tmp_path, "Mine") == PLAN
    presets.delete(tmp_path, "mine")
    assert presets.names(tmp_path) == ["Mine"]


def test_what_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert presets.names(tmp_path / "not there") == []
    for act in (presets.read, presets.delete):
        with pytest.raises(UnknownPresetError, match='there is no preset "mine"'):
            act(tmp_path, "mine")


def test_a_file_that_is_no_plan_is_listed_and_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"version": 1, "passes": []}')
    assert presets.names(tmp_path) == ["mine"]
    with pytest.raises(PlanError, match="passes: expected a list of 1 to 16 passes, got 0 of them"):
        presets.read(tmp_path, "mine")


@pytest.mark.parametrize("name", ["mine", "Mine"])
def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    presets.write(tmp_path, "mine", PLAN)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        presets.write(tmp_path, name, OTHER)
    assert presets.read(tmp_path, "mine") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
