"""Progress bars on stderr; none where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from multipass.hosts.standalone.engine import Watcher
from multipass.hosts.standalone.job import Job
from multipass.schedule import Segment

if TYPE_CHECKING:
    from torch import Tensor


class Progress(Protocol):
    """Where the runs of a command tell how far they are."""

    def loading(self, name: str, number: int, total: int, /) -> None:
        """A checkpoint is about to be loaded, the ``number``-th (from 1) of ``total``."""
        ...

    def loaded(self) -> None:
        """All checkpoints of the run are there."""
        ...

    @contextmanager
    def picture(self, job: Job, number: int, total: int, /) -> Iterator[Watcher]:
        """Wraps the rendering of a picture, the ``number``-th (from 1) of ``total``."""
        ...


class Bars:
    """A bar for loading and one for every pass: ``Pass 1 of 2: composition``.

    Args:
        prefix: precedes what they say.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._loading: tqdm[Any] | None = None

    def loading(self, name: str, number: int, total: int, /) -> None:
        if self._loading is None:
            self._loading = tqdm(total=total, unit="checkpoint", disable=None)
        self._loading.set_description(f"{self._prefix}Loading {name}")
        self._loading.update(number - 1 - self._loading.n)

    def loaded(self) -> None:
        if self._loading is not None:
            self._loading.update((self._loading.total or 0) - self._loading.n)
            self._loading.close()
            self._loading = None

    @contextmanager
    def picture(self, job: Job, number: int, total: int, /) -> Iterator[Watcher]:
        bars = _PassBars(job, self._prefix + (f"Picture {number} of {total}, " if total > 1 else ""))
        try:
            yield bars
        finally:
            bars.close()


class _PassBars:
    def __init__(self, job: Job, prefix: str) -> None:
        self._job = job
        self._prefix = prefix
        self._bar: tqdm[Any] | None = None

    def pass_begins(self, part: Segment, subject: str = "", /) -> None:
        self.close()
        told = self._job.told(part) + (f", {subject}" if subject else "")
        self._bar = tqdm(
            total=part.end_step - part.first_step,
            desc=f"{self._prefix}Pass {told}",
            unit="step",
            disable=None,
        )

    def doing(self, what: str, /) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str(what)

    def say(self, text: str, /) -> None:
        tqdm.write(f"multipass: {text}", file=sys.stderr)

    def step_done(self, _index: int, _latent: Tensor, /) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("", refresh=False)
            self._bar.close()
            self._bar = None
