"""The memo in the webui: while a plan is sampled, the UNet is asked only what it was not asked before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from modules.call_queue import wrap_queued_call

from multipass.cache.memo import Memo, UnknownError
from multipass.hosts.webui import circumstances, settings

memo = Memo(settings.memo_budget)
_done: WeakSet[Callable[..., Any]] = WeakSet()  # what was around the UNet's method, and does nothing from now on


def register(*_: Any) -> None:
    """From ``on_app_started``: a budget that is smaller now holds at once, not with the next plan."""
    settings.on_memo_budget(wrap_queued_call(memo.rest))


class Remembering:
    """The memo for one request.

    Below guidance, around the one method that evaluates the UNet: what samplers, guidance, previews and other
    extensions do, and the random numbers that they draw, is as without it.

    Args:
        told: is called when an evaluation was spared.

    Attributes:
        off: why nothing is remembered for the rest of this request; ``None`` while it is.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self.off: str | None = None
        self._owner: Any = None  # of the method that is ours now
        self._take_off: Callable[[], None] = lambda: None
        self._code: Hashable = None  # the circumstances that hold until ``renew``
        self._spared = self._made = 0  # in the evaluation of the denoiser that runs, or ran last

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Around one trajectory: ``before_evaluation`` is called before each evaluation of its denoiser."""
        try:
            yield
        finally:
            self._let_go()
            memo.rest()

    def renew(self) -> None:
        """Another sampling begins, or another model, or other networks are in place."""
        self._let_go()

    def before_evaluation(self, denoiser: Any) -> None:
        """The denoiser is about to ask the UNet, once or more often."""
        self._spared = self._made = 0
        if self.off is not None or not memo.budget:
            self._let_go()
        elif self._owner is not circumstances.seam(denoiser)[0]:
            self._let_go()
            self._hold(denoiser)

    def asked(self, denoiser: Any, evaluate: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the UNet answers to these arguments, for which else ``evaluate()`` is called."""
        if self.off is not None:
            return evaluate()
        try:
            if self._code is None:
                self._code = circumstances.of_code(denoiser)
            given = circumstances.of_given(args, kwargs)
            key = memo.key((self._code, circumstances.of_settings()), given)
        except UnknownError as reason:
            self._stop(str(reason))
            return evaluate()
        except Exception as error:  # noqa: BLE001 - extensions put what they like there: no reason to lose the picture
            self._stop(f"what decides it cannot be read: {type(error).__name__}: {error}")
            return evaluate()
        answer = memo.ask(key, args[0].device, evaluate)
        if answer.drew:
            self._stop("the UNet draws random numbers, so something has changed it")
        self._spared += answer.remembered
        self._made += not answer.remembered
        if answer.remembered:
            self._told()
        return answer.tensor

    def was_spared(self) -> bool:
        """Whether the last evaluation of the denoiser was made without the UNet."""
        return self._spared > 0 and self._made == 0

    def _hold(self, denoiser: Any) -> None:
        owner, name = circumstances.seam(denoiser)
        around = vars(owner).get(name)
        if any(around is ours for ours in _done):  # who was around it has put it back, as what it had found
            delattr(owner, name)
        elif around is not None:
            self._stop("an extension has put itself around the denoiser")
            return
        evaluates = getattr(owner, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            evaluate = functools.partial(evaluates, *args, **kwargs)
            return self.asked(denoiser, evaluate, args, kwargs) if self._owner is owner else evaluate()

        def take_off() -> None:
            _done.add(ask)
            if vars(owner).get(name) is ask:  # else somebody is around it
                delattr(owner, name)

        setattr(owner, name, ask)
        self._owner, self._take_off = owner, take_off

    def _let_go(self) -> None:
        if self._owner is not None:
            self._take_off()
        self._owner = self._code = None

    def _stop(self, reason: str) -> None:
        self.off = reason
        print(f"Multipass: what the UNet answers is not remembered: {reason}")  # noqa: T201 - the host's log
