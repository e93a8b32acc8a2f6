"""What the host's bar says of a plan: which pass, what it does, how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from modules import errors, shared

from multipass.progress import Kind, Rest, Task, Timings, left, read, rest, told, write

_OFTEN_ENOUGH = 0.1  # seconds: nobody reads faster


class Progress:
    """How far one request is. What it learns of the pace of things is kept in ``file`` for later requests.

    Does nothing before ``lay_out``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._timings = Timings()
        self._passes = 0
        self._tasks: list[Task] = []  # the first is being done
        self._began: float | None = None
        self._done, self._told = 0, 0.0
        self._learned_pace: float | None = None
        self._after = self._later = Rest()

    def lay_out(self, batch: Sequence[Task], later_batches: int) -> None:
        """A batch begins: these are its tasks, in order, and as many batches like it follow."""
        if not self._passes:
            self._timings = read(self._file)
        self._passes = max((task.pass_number for task in batch), default=0)
        self._tasks = [*batch]
        self._later = Rest().and_times(rest(self._timings, batch), later_batches)
        self._began = None

    def doing(self, kind: Kind, pass_number: int) -> None:
        """This is done now, and what was done before is over. What is not among the tasks is not told."""
        self.pause()
        found = (n for n, task in enumerate(self._tasks) if (task.kind, task.pass_number) == (kind, pass_number))
        at = next(found, None)
        if at is None:
            return
        del self._tasks[:at]
        self._learned_pace = self._timings.pace(self._tasks[0])
        self._after = rest(self._timings, self._tasks[1:]).and_times(self._later, 1)
        self._began, self._done = time.perf_counter(), 0
        self._tell()

    def pause(self) -> None:
        """What was done is over, and its pace is learned; what follows is not told."""
        if self._began is None or not self._tasks:
            return
        task, took, self._began = self._tasks[0], time.perf_counter() - self._began, None
        # the last step is told when it begins
        stopped = shared.state.interrupted or shared.state.skipped or self._done + 1 < task.amount
        amount = self._done if task.kind is Kind.SAMPLE and stopped else task.amount
        if amount:
            self._timings = self._timings.learned(msgspec.structs.replace(task, amount=amount), took)

    def stepping(self, done: int) -> None:
        """So many of the steps of what is being sampled are done, and the next one begins."""
        if self._began is not None and self._tasks and self._tasks[0].kind is Kind.SAMPLE:
            self._done = done
            if time.perf_counter() - self._told > _OFTEN_ENOUGH:
                self._tell()

    def end(self) -> None:
        """The request has ended, however; a file that cannot be written is reported."""
        if not self._passes:
            return
        self.pause()
        self._tasks = []
        shared.state.textinfo = None
        try:
            write(self._timings, self._file)
        except OSError:
            errors.report(f"Multipass could not write {self._file}", exc_info=True)

    def _tell(self) -> None:
        task, done, self._told = self._tasks[0], self._done, time.perf_counter()
        assert self._began is not None
        pace = (self._told - self._began) / done if done else self._learned_pace
        seconds = left(task, done, pace, self._after)
        step = min(done + 1, int(task.amount)) if task.kind is Kind.SAMPLE else None
        shared.state.textinfo = told(task, self._passes, step, int(task.amount), seconds)
