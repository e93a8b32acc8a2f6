"""Runs on disk: found by their names and by nothing else, the oldest removed, files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass import folders


def a_run(root: Path, written_at: int, label: str = "", manifest: str = "{}") -> Path:
    folder = folders.begin(root, label)
    path = folder / folders.MANIFEST_NAME
    path.write_text(manifest)
    os.utime(path, ns=(written_at, written_at))
    return folder


def test_a_run_has_a_folder_of_its_own_by_day_and_time(tmp_path: Path) -> None:
    ones = {folders.begin(tmp_path), folders.begin(tmp_path), folders.begin(tmp_path, "soft-ink")}
    assert len(ones) == 3
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\d/\d{6}-[0-9a-f]{4}(-soft-ink)?", str(o.relative_to(tmp_path))) for o in ones
    )


def test_a_run_is_found_by_its_name_in_any_root(tmp_path: Path) -> None:
    roots = tmp_path / "saved", tmp_path / "temporary", tmp_path / "not there"
    one, other = a_run(roots[0], 1), a_run(roots[1], 2, "b")
    assert folders.find(roots, one.name) == one
    assert folders.find(roots, other.name) == other
    assert folders.find(roots, "000000-0000") is None


def test_the_latest_is_the_one_written_to_last(tmp_path: Path) -> None:
    roots = tmp_path / "saved", tmp_path / "temporary"
    assert folders.find(roots, "latest") is None
    ones = [a_run(roots[number % 2], at) for number, at in enumerate([30, 10, 20, 40, 5])]
    (roots[0] / "2999-01-01" / "empty").mkdir(parents=True)
    assert folders.find(roots, "latest") == ones[3]


@given(st.integers(0, 99999), st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_a_pass_s_picture_is_found_by_its_image_whatever_its_seed(
    tmp_path_factory: pytest.TempPathFactory, image: int, seed: int, index: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    name = folders.picture_name(image, seed)
    others = folders.picture_name(image + 1, seed), folders.picture_name(image, seed)
    places = [folders.of_mask(index, name), folders.of_pass(index, others[0]), folders.of_pass(index + 1, others[1])]
    for place in places:
        (run / place).parent.mkdir(exist_ok=True)
        (run / place).touch()
    assert folders.picture_of(run, index, image) is None
    (run / folders.of_pass(index, name)).touch()
    assert folders.picture_of(run, index, image) == run / folders.of_pass(index, name)


@given(
    st.one_of(
        st.text(max_size=40), st.sampled_from(["..", "../secret", "*", "?" * 11, ".", "", "a/../secret", "[0-9]*"])
    )
)
def test_no_name_leads_anywhere_else(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("runs")
    run = a_run(root / "multipass", 1)
    (root / folders.MANIFEST_NAME).write_text("secret")
    (root / "multipass" / folders.MANIFEST_NAME).write_text("secret")
    assert folders.find([root / "multipass"], name) == (run if name in (run.name, "latest") else None)


@given(st.lists(st.integers(1, 10**9), max_size=8, unique=True), st.integers(1, 9))
def test_the_newest_are_kept(tmp_path_factory: pytest.TempPathFactory, times: list[int], keep: int) -> None:
    root = tmp_path_factory.mktemp("runs")
    runs = {at: a_run(root, at) for at in times}
    folders.prune(root, keep)
    assert {at for at, folder in runs.items() if folder.is_dir()} == set(sorted(times)[-keep:])
    assert times or not any(root.iterdir())


def test_nothing_but_runs_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "2020-01-01" / "mine"
    kept.mkdir(parents=True)
    old, new = a_run(tmp_path, 1), a_run(tmp_path, 2)
    folders.prune(tmp_path, 1)
    assert (kept.is_dir(), old.exists(), new.is_dir()) == (True, False, True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with folders.whole(target) as aside:
        aside.write_text("one")
        assert not target.exists()

    def fail() -> None:
        with folders.whole(target) as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "one")]


@pytest.mark.parametrize("refused", [0, 2, 99])
def test_a_file_that_is_held_is_replaced_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """As in Windows, while somebody reads it."""
    target = tmp_path / "file"
    target.write_text("one")
    replace, asked = Path.replace, []

    def held(path: Path, to: Path) -> Path:
        asked.append(to)
        if len(asked) <= refused:
            raise PermissionError("somebody reads it")
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(PermissionError) if refused == 99 else contextlib.nullcontext(), folders.whole(target) as aside:
        aside.write_text("two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("file", "one" if refused == 99 else "two")
    ]


def test_the_newest_come_first_from_all_roots_and_no_more_than_asked(tmp_path: Path) -> None:
    roots = tmp_path / "saved", tmp_path / "temporary", tmp_path / "not there"
    made = [a_run(roots[number % 2], number + 1) for number in range(5)]
    older = roots[0] / "2001-02-03" / "000000-0000"
    older.mkdir(parents=True)
    (older / folders.MANIFEST_NAME).write_text("{}")
    os.utime(older / folders.MANIFEST_NAME, ns=(0, 0))
    assert folders.newest(roots, 3) == made[:1:-1]
    assert folders.newest(roots, 9) == [*reversed(made), older]


def test_a_file_is_one_of_the_folder_s_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "pass_0").mkdir(parents=True)
    own = run / "pass_0/00000-7.png"
    for path in (own, tmp_path / "x", tmp_path / "running"):
        path.touch()
    (run / "link").symlink_to(tmp_path / "x")
    assert folders.inside(run, "pass_0/00000-7.png") == own.resolve()
    assert folders.inside(run, "pass_0/../pass_0/00000-7.png") == own.resolve()
    for place in ("../x", "pass_0/../../x", str(tmp_path / "x"), "link", "../running", "pass_0", "none", "", "a\0b"):
        assert folders.inside(run, place) is None
