"""A request that carries its rendering: of a class of its own, whose methods are the rendering's for the request itself
and its class's for the copies that other extensions make of it."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multipass.hosts.webui.rendering import Rendering

_ATTRIBUTE = "multipass_rendering"
_READ_LAST = "override_settings_restore_afterwards"


def of(p: Any) -> Rendering | None:
    """The rendering attached to a request, or to the request that it is a copy of."""
    return getattr(p, _ATTRIBUTE, None)


def carry(p: Any, rendering: Rendering) -> None:
    """From now on ``of(p)`` is the rendering, and that of each copy of ``p``."""
    setattr(p, _ATTRIBUTE, rendering)


def drop(p: Any) -> None:
    """Carry it no longer."""
    delattr(p, _ATTRIBUTE)


@functools.cache
def planned(kind: type) -> type:
    """The class of an attached request. Methods of a class, not functions on the instance: a copy calls them with
    itself."""
    methods: dict[str, Any] = {"setup_conds": _setup_conds, "sample": _sample, "close": _close}
    methods["iteration"] = property(_iteration, _set_iteration)
    methods[_READ_LAST] = property(_read_last, _set_what_is_read_last)
    if hasattr(kind, "sample_hr_pass"):
        methods["sample_hr_pass"] = _sample_hr_pass
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


# --- the methods that an attached request has -------------------------------------------------------------------------


def _sample(self: Any, *args: Any, **kwargs: Any) -> Any:
    rendering = of(self)
    assert rendering is not None
    if rendering.p is self and rendering.may_sample:
        return rendering.sample(*args, **kwargs)
    return rendering.plain(self, "sample")(*args, **kwargs)


def _setup_conds(self: Any) -> None:
    rendering = of(self)
    assert rendering is not None
    if rendering.p is self:
        return rendering.setup_conds()
    return rendering.plain(self, "setup_conds")()


def _sample_hr_pass(self: Any, samples: Any, decoded_samples: Any, *args: Any) -> Any:
    rendering = of(self)
    assert rendering is not None
    if rendering.p is self and not rendering.ended:
        rendering.keep_before_hires(decoded_samples)
    return rendering.plain(self, "sample_hr_pass")(samples, decoded_samples, *args)


def _iteration(self: Any) -> int:
    return vars(self).get("iteration", 0)


def _set_iteration(self: Any, number: int) -> None:
    """The first thing that the host does for the next batch, before it loads the checkpoint that its options name."""
    vars(self)["iteration"] = number
    rendering = of(self)
    assert rendering is not None
    if rendering.p is self and not rendering.ended:
        rendering.begin_iteration()


def _read_last(self: Any) -> bool:
    """The host reads it however a request ends, also of one that nobody closes: a copy that X/Y/Z plot renders."""
    rendering, error = of(self), sys.exc_info()[1]
    if rendering is not None and rendering.p is self and error is not None:
        rendering.end(error)
    return vars(self)[_READ_LAST]


def _set_what_is_read_last(self: Any, value: bool) -> None:
    vars(self)[_READ_LAST] = value


def _close(self: Any) -> None:
    """The host calls it however a request ends."""
    rendering = of(self)
    assert rendering is not None
    if rendering.p is self:
        rendering.end(sys.exc_info()[1])
        return self.close()
    return rendering.plain(self, "close")()
