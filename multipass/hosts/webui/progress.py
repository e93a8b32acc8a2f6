"""What the host's bar says of a plan: which pass, what it does, how long it still takes."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from modules import errors, shared

from multipass.progress import Bar, Batch, Kind, Rest, Task, Timings, bars, left, read, rest, told, with_repaints, write

_OFTEN_ENOUGH = 0.1  # seconds: nobody reads faster
_shown: list[Bar] = []  # of the request that is rendered now


def shown() -> list[Bar]:
    """A bar for each pass of the batch that is rendered now; none while no plan is."""
    return [*_shown]


class Progress:
    """How far one request is. What it learns of the pace of things is kept in ``file`` for later requests.

    Does nothing before ``lay_out``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._timings = Timings()
        self._batch: Batch | None = None  # as it was laid out
        self._tasks: tuple[Task, ...] = ()  # of the batch, as it has turned out
        self._at = 0  # the place of the present one
        self._began: float | None = None
        self._done, self._told = 0, 0.0
        self._learned_pace: float | None = None
        self._spared = False  # some of the task was remembered: it teaches nothing
        self._after = self._later = Rest()

    def lay_out(self, batch: Batch, later_batches: int) -> None:
        """A batch begins, and as many like it follow."""
        if self._batch is None:
            self._timings = read(self._file)
        self._batch, self._tasks, self._at = batch, batch.tasks, 0
        self._later = Rest().and_times(rest(self._timings, batch.tasks), later_batches)
        self._began = None

    def doing(self, kind: Kind, index: int | None) -> None:
        """This is done now for a pass, by its index in the plan, and what was done before is over; for ``None``, the
        hires fix is sampled, or all is decoded. What is not among the tasks is not told."""
        if self._batch is None:
            return
        if index is not None:
            number = self._batch.number_of.get(index, 0)
        else:
            number = self._batch.hires if kind is Kind.SAMPLE else self._batch.tasks[-1].pass_number
        self._do(kind, number)

    def doing_alone(self, kind: Kind, index: int) -> None:
        """The same, for the first trajectory by that pass alone."""
        if self._batch is not None:
            self._do(kind, self._batch.alone[index])

    def expect(self, trajectory: int, times: int) -> None:
        """The subjects that the trajectory is to repaint were looked for, and so many found."""
        if self._batch is not None:
            self._tasks = with_repaints(self._tasks, self._batch.repaint[trajectory], times)

    def pause(self) -> None:
        """What was done is over, and its pace is learned; what follows is not told."""
        if self._began is None:
            return
        task, took, self._began = self._tasks[self._at], time.perf_counter() - self._began, None
        # the last step is told when it begins
        stopped = shared.state.interrupted or shared.state.skipped or self._done + 1 < task.amount
        amount = self._done if task.kind is Kind.SAMPLE and stopped else task.amount
        if amount and not self._spared:
            self._timings = self._timings.learned(msgspec.structs.replace(task, amount=amount), took)

    def stepping(self, done: int) -> None:
        """So many of the steps of what is being sampled are done, and the next one begins."""
        if self._began is not None and self._tasks[self._at].kind is Kind.SAMPLE:
            self._done = done
            if time.perf_counter() - self._told > _OFTEN_ENOUGH:
                self._tell()

    def spared(self) -> None:
        """An evaluation of what is being sampled was remembered, and took no time."""
        self._spared = True

    def rest(self) -> None:
        """The batch is done; what others do with it is not told."""
        self.pause()
        self._tasks = ()
        _shown.clear()
        shared.state.textinfo = None

    def end(self) -> None:
        """The request has ended, however; a file that cannot be written is reported."""
        if self._batch is None:
            return
        self.rest()
        try:
            write(self._timings, self._file)
        except OSError:
            errors.report(f"Multipass could not write {self._file}", exc_info=True)

    def _do(self, kind: Kind, pass_number: int) -> None:
        self.pause()
        places = range(self._at, len(self._tasks))
        found = (n for n in places if (self._tasks[n].kind, self._tasks[n].pass_number) == (kind, pass_number))
        at = next(found, None)
        if at is None:
            return
        self._at = at
        self._learned_pace = self._timings.pace(self._tasks[at])
        self._after = rest(self._timings, self._tasks[at + 1 :]).and_times(self._later, 1)
        self._began, self._done, self._spared = time.perf_counter(), 0, False
        self._tell()

    def _tell(self) -> None:
        task, done, self._told = self._tasks[self._at], self._done, time.perf_counter()
        assert self._began is not None
        assert self._batch is not None
        passes = max(own.pass_number for own in self._batch.tasks)
        pace = (self._told - self._began) / done if done and not self._spared else self._learned_pace
        seconds = left(task, done, pace, self._after)
        _shown[:] = bars(self._tasks, self._at, done)
        step = min(done + 1, int(task.amount)) if task.kind is Kind.SAMPLE else None
        shared.state.textinfo = told(task, passes, step, int(task.amount), seconds)
