"""Every place where the host is changed, each as something that puts it back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from modules import processing, sd_samplers_common, shared

from multipass.plan import in_words
from multipass.problems import PlanError

ABSENT = object()
"""The value of what is not there."""


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Set attributes for a while; afterwards they are what they were, or absent again, whatever happened."""
    before = {name: vars(owner).get(name, ABSENT) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextmanager
def options(values: Mapping[str, Any]) -> Iterator[None]:
    """Have options of the host for a while, without what it does when they change and without ``config.json``."""
    before = {name: shared.opts.data.get(name, ABSENT) for name in values}
    try:
        shared.opts.data.update(values)
        yield
    finally:
        put_back(shared.opts.data, before)


def put_back(data: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Write what was there before; what was not there is gone again."""
    for name, value in values.items():
        if value is ABSENT:
            data.pop(name, None)
        else:
            data[name] = value


class WithOurs(dict[str, Any]):
    """A request's overridden settings with some of ours, which the host sets as it sets the others.

    What it puts back when the request ends it asks ``keys()`` for: ours it leaves to us, who know whether somebody has
    chosen another value meanwhile, and forget none that is not in its config.json.
    """

    def __init__(self, settings: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        super().__init__({**settings, **ours})
        self._ours = ours.keys()

    def keys(self) -> Any:
        return super().keys() - self._ours


@contextmanager
def before_each_evaluation(p: Any, ask: Callable[..., bool]) -> Iterator[None]:
    """While this lasts, the host calls ``ask(denoiser, ...)`` before each evaluation of the denoiser for ``p``.

    The seam is ``sd_samplers_common.apply_refiner``, which ``CFGDenoiser.forward`` looks up on the module at every
    evaluation, in AUTOMATIC1111 and in the Forge family alike; on True it reads the conditioning again. Another
    request that samples meanwhile gets the host's own function.
    """
    original = sd_samplers_common.apply_refiner

    def apply_refiner(denoiser: Any, *args: Any, **kwargs: Any) -> bool:
        if denoiser.p is not p:
            return original(denoiser, *args, **kwargs)
        return ask(denoiser, *args, **kwargs)

    with replaced(sd_samplers_common, apply_refiner=apply_refiner):
        yield


@contextmanager
def around_each_sampling(p: Any, around: Callable[[Any, Callable[[], Any]], Any]) -> Iterator[None]:
    """While this lasts, the host calls ``around(sampler, sample)`` in place of ``sample()``, which runs a sampler for
    ``p`` from its first evaluation to its last; what it gives are the sampled latents."""
    kind = sd_samplers_common.Sampler
    original = kind.launch_sampling

    def launch_sampling(sampler: Any, steps: int, sample: Callable[[], Any]) -> Any:
        launch = functools.partial(original, sampler, steps, sample)
        return around(sampler, launch) if sampler.p is p else launch()

    with replaced(kind, launch_sampling=launch_sampling):
        yield


@contextmanager
def around_request(p: Any, around: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """While this lasts, the host calls ``around(render)`` in place of ``render()``, which renders all pictures of ``p``
    once its options and its first model are in place. What it gives is the host's ``Processed``."""
    original = processing.process_images_inner

    def process_images_inner(request: Any, *args: Any, **kwargs: Any) -> Any:
        render = functools.partial(original, request, *args, **kwargs)
        return around(render) if request is p else render()

    with replaced(processing, process_images_inner=process_images_inner):
        yield


class Refused(HTTPException):
    """A request that is not rendered. The webui's API answers 422 with the reason, its page shows the text, in which
    places are in words."""

    def __init__(self, reason: str | PlanError, *more: str) -> None:
        super().__init__(status_code=422, detail=" ".join((str(reason), *more)))
        self.reason, self.more = reason, more

    def __str__(self) -> str:
        return " ".join((in_words(self.reason) if isinstance(self.reason, PlanError) else self.reason, *self.more))


class _RefusedSettings(dict[str, Any]):
    """Stands in for ``p.override_settings``, the first thing ``process_images`` reads after ``before_process``."""

    def __init__(self, content: dict[str, Any], reason: Exception) -> None:
        super().__init__(content)
        self._reason = reason

    def keys(self) -> Any:
        raise self._reason


class _RefusedTexts(list[str]):
    """Stands in for ``p.all_prompts``, which X/Y/Z plot asks for the text of its first picture: it has caught what the
    request raised, and would raise something else there."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self._reason = reason

    def __getitem__(self, index: Any) -> Any:
        raise self._reason


def refuse(p: Any, reason: Exception) -> None:
    """From ``before_process``: make the host raise ``reason`` before it loads, changes or renders anything.

    An exception raised by a script's hook would be printed, and the picture rendered without the script. Should another
    extension replace the settings, the request still cannot begin.
    """

    p.override_settings = _RefusedSettings(p.override_settings, reason)
    answer_for_texts(p, reason)
    stop(p, reason)


def answer_for_texts(p: Any, reason: Exception) -> None:
    """Whoever asks for the texts of a request that has none, because it ended before, gets the reason."""
    p.all_prompts = _RefusedTexts(reason)


def stop(p: Any, reason: Exception) -> None:
    """Neither begin nor go on with a request."""

    def fail(*_: Any, **__: Any) -> Any:
        raise reason

    p.init = p.setup_conds = p.sample = fail
