"""``multipass demo``: two small checkpoints that come along, eight subjects, five ways to divide the work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import yaml
from PIL import Image
from tqdm import tqdm

from multipass.cache import MEMO_MB
from multipass.drawing import bundled_font, draw_grid
from multipass.hosts.standalone.checkpoints import CheckpointFile, CheckpointFolder
from multipass.hosts.standalone.errors import InputError
from multipass.hosts.standalone.job import Job, prepare
from multipass.hosts.standalone.layout import lay_out_plan
from multipass.plan import Pass, Plan, Request
from multipass.schedule import Segment

CHECKPOINTS = Path(__file__).parent / "checkpoints"


class Demo(msgspec.Struct, frozen=True):
    """Everything there is to tune.

    Attributes:
        subjects: what is drawn, with its seed: a row each.
        switches: where the second checkpoint takes over, as a fraction of the steps, in the range that is useful for
            this pair: too early is the second alone, too late the first. A column each.
    """

    first: str = "soft"
    second: str = "ink"
    side: int = 128
    steps: int = 25
    sampler_name: str = "Euler"
    cfg_scale: float = 4.0
    prompt: str = "{}"
    subjects: tuple[tuple[str, int], ...] = (
        ("fox", 20),
        ("koala", 21),
        ("butterfly", 42),
        ("strawberry", 23),
        ("avocado", 28),
        ("automobile", 25),
        ("flying saucer", 46),
        ("palm tree", 30),
    )
    switches: tuple[float, ...] = (0.3, 0.5, 0.7)


DEMO = Demo()


class Done(msgspec.Struct, frozen=True):
    """Where the demo left what it made: two folders and a file."""

    pictures: Path
    manifests: Path
    grid: Path


class Cell(msgspec.Struct, frozen=True):
    """One picture of the grid: what its column is called, and its plan."""

    column: str
    slug: str
    plan: Plan


def render(out: Path, demo: Demo = DEMO, checkpoints: Path = CHECKPOINTS, *, ram_gb: float = 0) -> Done:
    """Render all cells, write the pictures, their manifests and the labelled grid under ``out``, and say where.

    Args:
        ram_gb: RAM in which checkpoints are kept; 0: what is free.

    Raises:
        InputError: where a bundled file is missing or ``out`` cannot be written.
    """
    folder = _folder(demo, checkpoints)
    rows = [[(cell, prepare(lay_out_plan(cell.plan), folder)) for cell in _row(demo, *s)] for s in demo.subjects]

    import torch

    from multipass.hosts.standalone.memory import Checkpoints, at_most
    from multipass.hosts.standalone.remembering import new_memo
    from multipass.hosts.standalone.runs import Run

    # these networks are so small that handing work to a second thread costs more than it saves
    torch.set_num_threads(1)
    store, memo = Checkpoints(ram=at_most(ram_gb)), new_memo(MEMO_MB)
    pictures = out / "pictures"
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from None
    drawn: list[list[Image.Image]] = []
    manifests = out / "multipass"
    with tqdm(total=sum(map(len, rows)), unit="picture", disable=None) as bar:
        for (subject, seed), row in zip(demo.subjects, rows, strict=True):
            drawn.append([])
            for cell, job in row:
                bar.set_description(f"{subject}: {cell.column}")
                run = Run(job, out, f"{_slug(subject)}-{cell.slug}")
                (file,) = run.render(store, [seed], _Quiet(), memo)
                kept = shutil.copyfile(file, pictures / f"{_slug(subject)}-{cell.slug}.png")
                drawn[-1].append(Image.open(kept).convert("RGB"))
                manifests = run.folder.parent
                bar.update()
    grid = out / "grid.png"
    columns = [cell.column for cell, _ in rows[0]]
    draw_grid(drawn, columns, [subject for subject, _ in demo.subjects], bundled_font()).save(grid)
    return Done(pictures, manifests, grid)


def export(target: Path, demo: Demo = DEMO, checkpoints: Path = CHECKPOINTS) -> list[Path]:
    """Copy the two checkpoints into a webui's checkpoint folder, each with a config it understands.

    A webui takes a checkpoint's config from the ``.yaml`` of the same name, and a relative folder in it from wherever
    it was started: so each checkpoint gets one that names the text encoder's folder, copied along, absolutely.

    Raises:
        InputError: where a bundled file is missing or ``target`` cannot be written.
    """
    folder = _folder(demo, checkpoints)
    files = [folder.find(name, name) for name in (demo.first, demo.second)]
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [path for file in files for path in _export(file, target.resolve())]
    except OSError as error:
        raise InputError(f"cannot write to {target}: {error.strerror or error}") from None


def _export(file: CheckpointFile, target: Path) -> Iterator[Path]:
    config = file.config
    if config is None or file.config_path is None:
        raise InputError(f"{file.path} has no config beside it")
    stage = config["model"]["params"]["cond_stage_config"]["params"]
    clip = file.config_path.parent / stage["version"]
    # the name says whose it is, in a folder that is not ours
    copied = target / "multipass-demo-clip"
    shutil.copytree(clip, copied, dirs_exist_ok=True)
    stage["version"] = str(copied)
    checkpoint = target / file.path.name
    shutil.copyfile(file.path, checkpoint)
    described = checkpoint.with_suffix(".yaml")
    described.write_text(yaml.safe_dump(config), encoding="utf-8")
    yield checkpoint
    yield described


def _folder(demo: Demo, checkpoints: Path) -> CheckpointFolder:
    missing = [n for n in (demo.first, demo.second) if not (checkpoints / f"{n}.safetensors").is_file()]
    if missing:
        raise InputError(f"the demo's checkpoints are missing: no {missing[0]}.safetensors in {checkpoints}")
    return CheckpointFolder(checkpoints)


def _row(demo: Demo, subject: str, seed: int) -> Iterator[Cell]:
    request = Request(
        prompt=demo.prompt.format(subject),
        seed=seed,
        steps=demo.steps,
        width=demo.side,
        height=demo.side,
        sampler_name=demo.sampler_name,
        cfg_scale=demo.cfg_scale,
    )

    def plan(*passes: Pass) -> Plan:
        return Plan(version=1, passes=passes, request=request, save_passes=False)

    first = Pass(name="composition", checkpoint=demo.first)
    yield Cell(f"{demo.first} alone", demo.first, plan(first))
    for at in demo.switches:
        second = Pass(name="style", switch_at=at, checkpoint=demo.second)
        yield Cell(f"{demo.second} from {at:.0%}", f"{demo.first}-{demo.second}-{at:g}", plan(first, second))
    yield Cell(f"{demo.second} alone", demo.second, plan(Pass(name="style", checkpoint=demo.second)))


class _Quiet:
    """No bars: the demo has one for all its pictures."""

    def loading(self, _name: str, _number: int, _total: int, /) -> None: ...

    def loaded(self) -> None: ...

    @contextmanager
    def picture(self, _job: Job, _number: int, _total: int, /) -> Iterator[_Quiet]:
        yield self

    def pass_begins(self, _part: Segment, _subject: str = "", /) -> None: ...

    def say(self, _text: str, /) -> None: ...

    def doing(self, _what: str, /) -> None: ...

    def step_done(self, _index: int, _latent: object, /) -> None: ...


def _slug(text: str) -> str:
    return text.replace(" ", "-")
