"""A pass's own CFG scale.

A sampler hands the scale to the denoiser with every evaluation, from a dict that can be changed for the next ones. For
the evaluation that a pass begins with, the host has taken the old scale out of it already when we are asked: that one
time the host is made to use the new one on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from multipass.hosts.webui import compat, hooks

_SCALE = 5  # where the scale stands among the arguments of `sampling_function`


class Guidance:
    """Changes the scale of one request while it is sampled."""

    def __init__(self) -> None:
        self._multiplier: tuple[Any, float] | None = None  # the denoiser, and what its multiplier was
        self._due: tuple[float, float] | None = None  # the scale the host was given, the scale to use

    def change(self, denoiser: Any, scale: float) -> None:
        """From the evaluation that is about to be made on, ``scale`` holds (at least 1)."""
        given = denoiser.sampler.sampler_extra_args["cond_scale"]
        if scale == given:
            return
        denoiser.sampler.sampler_extra_args["cond_scale"] = scale
        if compat.IS_FORGE_FAMILY:
            self._due = given, scale
        else:
            before = denoiser.cond_scale_miltiplier  # the host's spelling
            self._multiplier = denoiser, before
            denoiser.cond_scale_miltiplier = before * (scale / given)

    def settle(self) -> None:
        """Before the next evaluation: it is handed the new scale."""
        if self._multiplier is not None:
            denoiser, before = self._multiplier
            denoiser.cond_scale_miltiplier = before
        self._multiplier = self._due = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Needed around the sampling. Forge has no multiplier: there the scale is exchanged where it is used."""
        if not compat.IS_FORGE_FAMILY:
            yield
            return
        home = compat.sampling_function_home()
        original = home.sampling_function

        def sampling_function(*args: Any, **kwargs: Any) -> Any:
            if self._due is not None:
                given, scale = self._due
                if kwargs.get("cond_scale") == given:  # Forge
                    kwargs["cond_scale"] = scale
                elif len(args) > _SCALE and args[_SCALE] == given:  # Forge Classic, reForge
                    args = (*args[:_SCALE], scale, *args[_SCALE + 1 :])
            return original(*args, **kwargs)

        with hooks.replaced(home, sampling_function=sampling_function):
            yield
