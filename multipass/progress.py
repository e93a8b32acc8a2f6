"""How far a run is, in words and in seconds that are left: what is still to do, at the pace of earlier runs. Pure.

A run is a list of tasks. How long one takes is learned from those that were done before, by what it depends on: the
checkpoint and the size of the picture. What was never done is reckoned from what is most like it; where nothing is, no
time is told rather than a wrong one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from multipass import folders
from multipass.plan import PassKind, Plan
from multipass.schedule import Segment

TIMINGS_NAME = "timings.json"
_REMEMBERED = 400
_WEIGHT_OF_NEW = 0.5


class Kind(enum.Enum):
    """What is done."""

    LOAD = "load"
    ENCODE = "encode"
    SAMPLE = "sample"
    UPSCALE = "upscale"
    FIND = "find"
    DECODE = "decode"


_WORDS = {
    Kind.LOAD: "loading",
    Kind.ENCODE: "reading the texts",
    Kind.UPSCALE: "upscaling",
    Kind.FIND: "looking for the subject",
    Kind.DECODE: "decoding",
}


class Task(msgspec.Struct, frozen=True):
    """One thing that a run does.

    Attributes:
        pass_number: of which pass, counted from 1 among those that run.
        label: the pass's name.
        subject: what its pace depends on beside the size: the checkpoint's name, an upscaler's.
        amount: in units whose pace is learned: evaluations; 1 for what is done at once. More than 0.
        pixels: of all pictures that are made at once; 0 where the size does not matter.
    """

    kind: Kind
    pass_number: int
    label: str
    subject: str
    amount: float = 1.0
    pixels: int = 0


class Batch(msgspec.Struct, frozen=True):
    """What is done for a batch, in order, and of which passes.

    Attributes:
        number_of: the passes' numbers, counted from 1, by their index in ``plan.passes``.
        hires: the number of the host's hires fix.
        repaint: what repainting one subject of one picture is, by the trajectory that does it.
        alone: as ``number_of``, of those that the first trajectory is rendered with alone, too.
    """

    tasks: tuple[Task, ...]
    number_of: Mapping[int, int]
    hires: int
    repaint: Mapping[int, tuple[Task, ...]] = {}
    alone: Mapping[int, int] = {}


def batch(
    plan: Plan,
    laid: Sequence[Sequence[Segment]],
    pixels: Sequence[int],
    subjects: Mapping[int, str],
    *,
    hires: Task | None,
    pictures: int = 1,
    alone: Sequence[int] = (),
) -> Batch:
    """The tasks of a batch.

    Args:
        laid: the segments of each trajectory.
        pixels: of all pictures of the batch, for each trajectory; of one for subjects, each of which is sampled alone.
        subjects: what the pace of sampling depends on, by pass index.
        hires: the host's hires fix, without its number.
        pictures: of the batch. How many subjects there are nobody knows yet: one in each is reckoned with.
        alone: the passes that the first trajectory is rendered with alone afterwards, by their index.
    """
    repaint: dict[int, tuple[Task, ...]] = {}
    tasks: list[Task] = []
    number_of: dict[int, int] = {}
    number = hires_number = 0
    for trajectory, (own, parts, size) in enumerate(zip(plan.trajectories, laid, pixels, strict=True)):
        is_subject = own.head.kind is PassKind.SUBJECT
        sampled: list[Task] = []
        for part in parts:
            number += 1
            index = part.pass_index
            number_of[index] = number
            label, subject = plan.label(index), subjects[index]
            if is_subject and part.first_step == 0:
                tasks.append(Task(Kind.FIND, number, label, own.head.target or ""))
            if number > 1:
                sampled.append(Task(Kind.LOAD, number, label, subject))
            if trajectory and part.first_step == 0 and not is_subject:
                sampled.append(Task(Kind.UPSCALE, number, label, plan.passes[index].upscaler or "", pixels=size))
            sampled.append(Task(Kind.SAMPLE, number, label, subject, _steps(part), size))
        if is_subject:
            repaint[trajectory] = tuple(sampled)
        tasks += sampled * (pictures if is_subject else 1)
        if hires is not None and trajectory == 0:
            number = hires_number = number + 1
            tasks.append(msgspec.structs.replace(hires, pass_number=number))
    encodings = [
        Task(Kind.ENCODE, number_of[part.pass_index], plan.label(part.pass_index), subjects[part.pass_index])
        for parts in laid
        for part in parts
        if number_of[part.pass_index] > 1
    ]
    alone_number: dict[int, int] = {}
    for index in alone:
        number = alone_number[index] = number + 1
        label, subject = f"{plan.label(index)} alone", subjects[index]
        tasks.append(Task(Kind.LOAD, number, label, subject))
        tasks.append(Task(Kind.SAMPLE, number, label, subject, sum(map(_steps, laid[0])), pixels[0]))
    last = tasks[-1]
    decoding = Task(Kind.DECODE, last.pass_number, last.label, "", pixels=last.pixels)
    return Batch((*encodings, *tasks, decoding), number_of, hires_number, repaint, alone_number)


def with_repaints(tasks: Sequence[Task], repaint: Sequence[Task], times: int) -> tuple[Task, ...]:
    """A batch's tasks, once it has turned out how many subjects a pass repaints.

    Args:
        tasks: of a batch; what looks for the subjects is among them.
        repaint: of one subject, as in the batch; not empty.
        times: how many there are, in all pictures.
    """
    looking = (Kind.FIND, repaint[0].pass_number)
    behind = next(place for place, task in enumerate(tasks) if (task.kind, task.pass_number) == looking) + 1
    return (*tasks[:behind], *tuple(repaint) * times, *(task for task in tasks[behind:] if task not in repaint))


def _steps(part: Segment) -> int:
    return part.end_step - part.first_step


class Timings(msgspec.Struct, frozen=True):
    """Seconds for a unit of each kind of task; the last learned is the last in its order."""

    paces: dict[str, float] = {}

    def pace(self, task: Task) -> float | None:
        """Seconds for a unit of the task: as it was, else as of another size or of another subject, by the pixels;
        ``None`` if nothing like it was ever done."""
        exact = self.paces.get(_key(task))
        if exact is not None:
            return exact
        like = [(key.split("|"), pace) for key, pace in reversed(self.paces.items())]
        same_kind = [(parts, pace) for parts, pace in like if parts[0] == task.kind.value]
        for parts, pace in sorted(same_kind, key=lambda one: one[0][1] != task.subject):  # stable: the newest first
            pixels = int(parts[2])
            if bool(pixels) == bool(task.pixels):
                return pace * task.pixels / pixels if pixels else pace
        return None

    def learned(self, task: Task, seconds: float) -> Timings:
        """With what the whole task took now."""
        key, pace = _key(task), max(seconds, 0.0) / task.amount
        before = self.paces.get(key, pace)
        paces = {name: value for name, value in self.paces.items() if name != key}
        paces[key] = before + (pace - before) * _WEIGHT_OF_NEW
        return Timings(dict(list(paces.items())[-_REMEMBERED:]))


class Rest(msgspec.Struct, frozen=True):
    """What is to do after the present task.

    Attributes:
        known: seconds.
        unknown: of samplings whose pace nothing tells, steps times pixels.
    """

    known: float = 0.0
    unknown: float = 0.0

    def and_times(self, other: Rest, times: int) -> Rest:
        """This, and the other so many times."""
        return Rest(self.known + times * other.known, self.unknown + times * other.unknown)


def rest(timings: Timings, tasks: Iterable[Task]) -> Rest:
    """All of these together."""
    known = unknown = 0.0
    for task in tasks:
        pace = timings.pace(task)
        known += (pace or 0.0) * task.amount
        unknown += task.amount * task.pixels if pace is None and task.kind is Kind.SAMPLE else 0.0
    return Rest(known, unknown)


def left(task: Task, done: float, pace: float | None, after: Rest) -> float | None:
    """Seconds until all is done; ``None`` where the pace of sampling cannot be told.

    Args:
        done: of the present task's amount.
        pace: seconds for a unit of it.
        after: what comes then; samplings whose pace nothing tells go by the present one's.
    """
    if after.unknown and (pace is None or task.kind is not Kind.SAMPLE or not task.pixels):
        return None
    if pace is None and task.kind is Kind.SAMPLE:
        return None
    guessed = after.unknown * (pace or 0.0) / task.pixels if after.unknown else 0.0
    return (pace or 0.0) * max(task.amount - done, 0.0) + after.known + guessed


def told(task: Task, passes: int, step: int | None = None, steps: int = 0, seconds: float | None = None) -> str:
    """For people: ``Pass 2 of 3: style, step 7/18, 12 s left``.

    Args:
        passes: how many run.
        step: that is being sampled, counted from 1.
    """
    doing = f"step {step}/{steps}" if step is not None else _WORDS.get(task.kind, "sampling")
    number = f"Pass {task.pass_number} of {passes}"
    name = f"{number}: {task.label}" if task.label and task.label != f"Pass {task.pass_number}" else number
    return ", ".join([name, doing, *([f"{duration(seconds)} left"] if seconds is not None else [])])


class Bar(msgspec.Struct, frozen=True):
    """How far one pass is.

    Attributes:
        name: of the pass.
        steps: of all its samplings: of every subject in every picture.
        done: of its steps.
        doing: what is done for it now: ``sampling``, ``loading``; empty where that is another's turn.
    """

    name: str
    steps: int
    done: int
    doing: str


def bars(tasks: Sequence[Task], at: int, done: int) -> tuple[Bar, ...]:
    """A bar for each pass that is sampled, in order.

    Args:
        tasks: of a batch.
        at: the place of the present one among them.
        done: of its steps, where it is sampled.
    """
    now, found = tasks[at], dict[int, Bar]()
    for place, task in enumerate(tasks):
        if task.kind is not Kind.SAMPLE:
            continue
        steps, number = int(task.amount), task.pass_number
        doing = _WORDS.get(now.kind, "sampling") if now.pass_number == number else ""
        before = found.get(number, Bar(task.label, 0, 0, doing))
        reached = before.done + (steps if place < at else done if place == at else 0)
        found[number] = msgspec.structs.replace(before, steps=before.steps + steps, done=reached)
    return tuple(found.values())


def duration(seconds: float) -> str:
    """``9 s``, ``2 min 05 s``, ``1 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def read(file: Path) -> Timings:
    """What was learned before; nothing where that is not to be read."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Timings)
    except (OSError, msgspec.MsgspecError):
        return Timings()
    return Timings({key: pace for key, pace in found.paces.items() if _is_sound(key, pace)})


def write(timings: Timings, file: Path) -> None:
    """Whole or not at all; the folder is made. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with folders.whole(file) as aside:
        aside.write_bytes(msgspec.json.encode(timings))


def _key(task: Task) -> str:
    return f"{task.kind.value}|{task.subject.replace('|', '/')}|{task.pixels}"


def _is_sound(key: str, pace: float) -> bool:
    parts = key.split("|")
    return len(parts) == 3 and parts[2].isdecimal() and 0 <= pace < float("inf")
