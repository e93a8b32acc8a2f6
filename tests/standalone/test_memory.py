"""What is kept of the checkpoints, what is read ahead, and what the manifest says of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from multipass.cache import reader, weights
from multipass.cache.store import Budget, Tier
from multipass.hosts.standalone import demo, engine
from multipass.hosts.standalone.checkpoints import CheckpointFile, CheckpointFolder
from multipass.hosts.standalone.cli import main
from multipass.hosts.standalone.memory import Checkpoints, at_most
from multipass.hosts.standalone.models import Checkpoint, Component, Place
from multipass.hosts.standalone.runs import Run
from multipass.manifest import MANIFEST_NAME, Manifest, Source, Status, read
from tests.standalone.helpers import job, plan

# no pass's picture is kept: so only the last one's VAE is needed
A_TO_B = plan({"checkpoint": "a"}, {"switch_at": 0.5, "checkpoint": "b"}) | {"save_passes": False}
A_B_A = plan({"checkpoint": "a"}, {"switch_at": 0.3, "checkpoint": "b"}, {"switch_at": 0.7, "checkpoint": "a"}) | {
    "save_passes": False
}
CPU = Place("cpu", torch.float32)
EVERYTHING = at_most(1)
NOTHING = at_most(1e-9)


class Rendered:
    """A run of three pictures."""

    def __init__(self, raw: dict[str, Any], checkpoints: Path, out: Path, ram: Budget) -> None:
        self.said: list[str] = []
        self.store = Checkpoints(CPU, ram, self.said.append)
        run = Run(job(raw, checkpoints), out)
        self.pictures = [path.read_bytes() for path in run.render(self.store, [1, 2, 3], demo._Quiet())]
        self.manifest: Manifest = read(run.manifest_path)

    @property
    def sources(self) -> list[list[Source]]:
        return [[own.load.source for own in image.passes] for image in self.manifest.images]


@pytest.fixture
def names_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every tensor that is read: its file and its name."""
    found: list[tuple[str, str]] = []
    real = reader.read

    def spied(path: Any, names: Any = None, **rest: Any) -> Any:
        found.extend((Path(path).stem, name) for name in names)
        return real(path, names, **rest)

    monkeypatch.setattr(reader, "read", spied)
    return found


def bytes_of(store: Checkpoints, folder: Path, name: str, *components: Component) -> int:
    checkpoint = store.get(CheckpointFolder(folder).find(name, ""))
    return sum(checkpoint.nbytes(component) for component in components)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_batch_with_room_for_both_reads_each_tensor_once(
    checkpoints: Path, tmp_path: Path, names_read: list[tuple[str, str]]
) -> None:
    rendered = Rendered(A_B_A, checkpoints, tmp_path, EVERYTHING)
    assert len(set(names_read)) == len(names_read)
    (disk, ahead, back), *later = rendered.sources
    assert (disk, back) == (Source.DISK, Source.RESIDENT)
    assert ahead in {Source.RAM, Source.DISK}  # in time or not
    assert later == [[Source.RESIDENT] * 3] * 2
    assert {own.load.seconds for image in rendered.manifest.images[1:] for own in image.passes} == {0.0}
    assert rendered.said == []
    # only the last pass's checkpoint decodes: b's VAE is never read
    a, b = (Component.TEXT, Component.UNET, Component.VAE), (Component.TEXT, Component.UNET)
    assert rendered.store.cache.ram.held == (
        bytes_of(rendered.store, checkpoints, "a", *a) + bytes_of(rendered.store, checkpoints, "b", *b)
    )


@pytest.mark.parametrize("raw", [A_TO_B, A_B_A], ids=["a-b", "a-b-a"])
def test_a_budget_for_nothing_renders_the_same_and_says_so_once(
    checkpoints: Path, tmp_path: Path, raw: dict[str, Any]
) -> None:
    much = Rendered(raw, checkpoints, tmp_path, EVERYTHING)
    little = Rendered(raw, checkpoints, tmp_path, NOTHING)
    assert little.pictures == much.pictures
    assert {source for own in little.sources for source in own} == {Source.DISK}
    (line,) = little.said
    assert "read again" in line
    assert little.store.cache.ram.held == 0


def test_with_room_for_one_unet_the_one_that_leaves_makes_room(checkpoints: Path, tmp_path: Path) -> None:
    measure = Checkpoints(CPU)
    unet = bytes_of(measure, checkpoints, "a", Component.UNET)
    small = bytes_of(measure, checkpoints, "a", Component.TEXT) + bytes_of(
        measure, checkpoints, "b", Component.TEXT, Component.VAE
    )
    budget = unet + small
    held: list[int] = []
    rendered = Rendered(A_TO_B, checkpoints, tmp_path, lambda now: (held.append(now), budget)[1])
    assert rendered.pictures == Rendered(A_TO_B, checkpoints, tmp_path, EVERYTHING).pictures
    assert max(held) <= budget
    assert {source for own in rendered.sources for source in own} == {Source.DISK}


def test_modules_hold_no_tensors_that_the_cache_does_not(checkpoints: Path, tmp_path: Path) -> None:
    store = Rendered(A_TO_B, checkpoints, tmp_path, EVERYTHING).store
    for name in "ab":
        checkpoint = store.get(CheckpointFolder(checkpoints).find(name, ""))
        assert all(p.is_meta for component in Component for p in checkpoint.module(component).parameters())


def test_what_the_demo_s_pair_shares_is_held_once() -> None:
    store = Checkpoints(CPU, EVERYTHING)
    soft, ink = (
        store.get(CheckpointFile(demo.CHECKPOINTS / f"{name}.safetensors", name))
        for name in (demo.DEMO.first, demo.DEMO.second)
    )
    assert soft is not ink
    shared = Component.TEXT, Component.VAE
    for component in shared:
        with store.using(soft, component), store.using(ink, component):
            one, other = (weights.held(checkpoint.module(component)) for checkpoint in (soft, ink))
            assert all(one[name].data_ptr() == other[name].data_ptr() for name in of_checkpoint(one))
    assert store.cache.ram.held == sum(soft.nbytes(component) for component in shared)
    assert len(store.cache.ram.entries()) == 4
    store.cache.ram.discard(store.cache.ram.entries()[0].key)
    assert store.cache.ram.held == sum(soft.nbytes(component) for component in shared)  # the other's still


def of_checkpoint(held: weights.Weights) -> list[str]:
    return [name for name in held if not name.endswith("position_ids")]  # which the module makes


def test_with_a_second_memory_the_copy_there_is_resident(checkpoints: Path) -> None:
    """The device without numbers stands for a GPU: it is another than where the file is read to."""
    store = Checkpoints(Place("meta", torch.float32), EVERYTHING)
    store.cache.vram = Tier(EVERYTHING)
    a = store.get(CheckpointFolder(checkpoints).find("a", ""))
    sources: list[Source] = []
    for _ in range(2):
        with store.using(a, Component.UNET) as load:
            sources.append(load.source)
    store.cache.vram.clear()
    with store.using(a, Component.UNET) as load:
        sources.append(load.source)
    store.cache.ram.clear()
    with store.using(a, Component.UNET) as load:
        sources.append(load.source)
    store.cache.clear()
    with store.using(a, Component.UNET) as load:
        sources.append(load.source)
    assert sources == [Source.DISK, Source.RESIDENT, Source.RAM, Source.RESIDENT, Source.DISK]


# --- what is read ahead -----------------------------------------------------------------------------------------------

Act = Callable[[threading.Event | None], None]


@pytest.fixture
def when_b_is_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], list[str]]:
    """Do something when b's UNet is about to be read; what comes back fills with the threads that read it."""

    def install(act: Act) -> list[str]:
        threads: list[str] = []
        real = Checkpoint.read

        def spied(
            self: Checkpoint, component: Component, cancelled: threading.Event | None = None, advanced: Any = None
        ) -> Any:
            if self.file.name == "b" and component is Component.UNET:
                threads.append(threading.current_thread().name)
                act(cancelled)
            return real(self, component, cancelled, advanced)

        monkeypatch.setattr(Checkpoint, "read", spied)
        return threads

    return install


def run_command(raw: dict[str, Any], folder: Path, tmp_path: Path) -> tuple[int, Manifest]:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    code = main(["render", str(path), "--checkpoints", str(folder), "--out", str(tmp_path / "out"), "--seed", "7"])
    (manifest,) = (tmp_path / "out").glob(f"multipass/*/*/{MANIFEST_NAME}")
    return code, read(manifest)


@pytest.fixture
def own_checkpoints(checkpoints: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copytree(checkpoints / "clip", folder / "clip")
    for name in ("a.safetensors", "b.safetensors", "tiny.yaml"):
        shutil.copy(checkpoints / name, folder)
    return folder


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "its tensors take"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: shutil.copy(path.with_name("a.safetensors"), path), "was changed since"),
    ],
    ids=["cut", "gone", "another"],
)
def test_damage_that_is_found_while_reading_ahead_is_told(
    own_checkpoints: Path,
    tmp_path: Path,
    when_b_is_read: Callable[[Act], list[str]],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    reason: str,
) -> None:
    path = own_checkpoints / "b.safetensors"

    def once(_: object) -> None:
        if not damaged:
            damage(path)
            damaged.append(path)

    damaged: list[Path] = []
    threads = when_b_is_read(once)
    code, manifest = run_command(A_TO_B, own_checkpoints, tmp_path)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"multipass: {path} cannot be read: ")
    assert reason in line
    assert threads[0].startswith("multipass-reader")
    assert manifest.status is Status.FAILED
    assert manifest.error is not None
    assert reason in manifest.error
    assert [len(image.passes) for image in manifest.images] == [1]


def test_ctrl_c_stops_what_is_read_ahead(
    own_checkpoints: Path,
    tmp_path: Path,
    when_b_is_read: Callable[[Act], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, stopped = threading.Event(), threading.Event()

    def wait(unwanted: threading.Event | None) -> None:
        assert unwanted is not None
        reading.set()
        if unwanted.wait(30):
            stopped.set()

    def interrupted(*_: Any) -> Any:
        assert reading.wait(30)
        raise KeyboardInterrupt

    threads = when_b_is_read(wait)
    monkeypatch.setattr(engine, "_unet", interrupted)
    code, manifest = run_command(A_TO_B, own_checkpoints, tmp_path)
    assert (code, manifest.status) == (130, Status.INTERRUPTED)
    assert stopped.is_set()
    assert len(threads) == 1


def test_the_next_unet_is_there_when_its_pass_begins(
    own_checkpoints: Path,
    tmp_path: Path,
    when_b_is_read: Callable[[Act], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = when_b_is_read(lambda _: None)
    real = engine._unet

    def unhurried(job: Any, checkpoint: Checkpoint, *rest: Any) -> Any:
        threading.Event().wait(0.1)
        return real(job, checkpoint, *rest)

    monkeypatch.setattr(engine, "_unet", unhurried)
    code, manifest = run_command(A_TO_B, own_checkpoints, tmp_path)
    assert code == 0
    assert [own.load.source for own in manifest.images[0].passes] == [Source.DISK, Source.RAM]
    (thread,) = threads
    assert thread.startswith("multipass-reader")
