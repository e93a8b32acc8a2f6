"""The axes that Multipass adds to the host's X/Y/Z plot.

The host renders every cell as a copy of the request. An axis notes its value on that copy, and ``before_process`` asks
for the plan with the values of all axes: the script's arguments stay as they are.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from modules import scripts, sd_models, sd_samplers, shared

from multipass import axes, presets
from multipass.axes import BY_PATH, PRESET, SEARCH_REPLACE, Change, Replacement, Setting, Whole
from multipass.hosts.webui import checkpoints, hooks, sampling, settings
from multipass.plan import Plan
from multipass.problems import PlanError, Problem

_CELL, _GRID = "multipass_cell", "multipass_grid"
# the host's axes that change nothing which a plan is checked with; of others (an extension's, too) nobody knows
_UNREAD = frozenset(
    {
        "Nothing",
        "Seed",
        "Var. seed",
        "Var. strength",
        "CFG Scale",
        "Distilled CFG Scale",
        "Image CFG Scale",
        "Prompt S/R",
        "Prompt order",
        "Styles",
        "Clip skip",
        "Negative Guidance minimum sigma",
        "Initial noise multiplier",
        "Extra noise",
        "Cond. Image Mask Weight",
        "VAE",
        "Face restore",
        "Token merging ratio",
        "Token merging ratio high-res",
        "RNG source",
    }
)


class _Axis(NamedTuple):
    """What the host is told of an axis.

    Attributes:
        change: what a value, as ``type`` gives it, is in the plan; the second argument are the axis's values.
        cost: of a change, 0..1: the host has the axis with the highest change least often.
    """

    change: Callable[[Any, Sequence[Any]], Change]
    label: Callable[[Any], str]
    type: Callable[[str], Any]
    cost: float
    prepare: Callable[[str], list[Any]] | None = None
    choices: Callable[[], list[str]] | None = None


class _Noted(NamedTuple):
    axis: _Axis
    value: Any
    values: Sequence[Any]

    @property
    def change(self) -> Change:
        return self.axis.change(self.value, self.values)


class _Grid:
    """A plot with an axis of ours, from when its values are read until the request that its cells are copies of is
    closed."""

    def __init__(self, p: Any) -> None:
        self.checked = False
        self.stopped: Exception | None = None
        vars(p)[_GRID] = self
        p.close = functools.partial(self._close, p)

    def _close(self, p: Any) -> None:
        """In place of ``p.close``: the host catches what a cell raises, and nothing follows on the last one."""
        del p.close
        p.close()
        if self.stopped is not None:
            raise self.stopped


# --- from the host's X/Y/Z plot -------------------------------------------------------------------------------------


def register() -> None:
    """From ``on_before_ui``: all scripts are loaded, and their forms are about to be built."""
    known = {loaded.module for loaded in scripts.scripts_data}
    for module in known:
        if hasattr(module, "axis_options"):
            # Forge Classic keeps the list when it loads its scripts again
            theirs = [option for option in module.axis_options if option.label not in _AXES]
            ours = [_option(module.AxisOption, name, axis) for name, axis in _AXES.items()]
            module.axis_options[:] = theirs + ours


def _option(kind: Any, name: str, axis: _Axis) -> Any:
    return kind(
        name,
        axis.type,
        functools.partial(_note, axis),
        format_value=lambda _p, _option, value: axis.label(value),
        confirm=functools.partial(_begin, name),
        cost=axis.cost,
        prepare=axis.prepare,
        choices=axis.choices,
    )


def _begin(name: str, p: Any, values: Sequence[Any]) -> None:
    """The values of an axis are read; ``p`` is the request that the cells will be copies of."""
    if not values:
        raise hooks.Refused(f"{name}: expected a value, or several with commas between them")
    if not hasattr(p, _GRID):
        _Grid(p)


def _note(axis: _Axis, p: Any, value: Any, values: Sequence[Any]) -> None:
    """The cell ``p`` gets a value."""
    grid = _grid(p)
    if grid.stopped is not None:
        raise grid.stopped
    vars(p).pop("close", None)  # which is the whole request's
    setattr(p, _CELL, (*getattr(p, _CELL, ()), _Noted(axis, value, values)))


def _refusing(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same, with what is wrong raised as the host tells it."""

    def reading(text: str) -> Any:
        try:
            return read(text)
        except PlanError as error:
            raise hooks.Refused(error) from None

    return reading


# --- from the script ------------------------------------------------------------------------------------------------


def is_cell(p: Any) -> bool:
    """Whether an axis of ours has a value for this request."""
    return hasattr(p, _CELL)


def plan_of_cell(p: Any, plan: Plan | None, check: Callable[[Any, Plan], object]) -> Plan:
    """The plan with the cell's values. With the first cell of a grid all of them are looked at.

    Args:
        plan: the request's, if it has one.
        check: everything about a plan that can be known before anything is loaded. Not asked of all cells where another
            axis may change what it reads of the request: then each is checked when it is rendered.

    Raises:
        PlanError: for this cell and, with the first, for any.
    """
    grid = _grid(p)
    if not grid.checked:
        _check_all(p, plan, check)
        grid.checked = True
    return axes.changed(plan, [noted.change for noted in getattr(p, _CELL)])


def stop_after(p: Any, reason: Exception) -> Exception:
    """The request is not rendered: if it is a cell, nor are those after it, and the plot ends with the reason. What is
    told of a refused one tells which."""
    if is_cell(p):
        grid = _grid(p)
        if grid.checked and isinstance(reason, hooks.Refused):
            reason = hooks.Refused(reason.reason, f"(with {_told(getattr(p, _CELL))})")
        grid.stopped = reason
    return reason


def _check_all(p: Any, plan: Plan | None, check: Callable[[Any, Plan], object]) -> None:
    plotted = [getattr(shared.state, f"xyz_plot_{name}") for name in "xyz"]
    ours = [info for info in plotted if info.axis.label in _AXES]
    all_told = all(info.axis.label in _AXES or info.axis.label in _UNREAD for info in plotted)
    each = ([_Noted(_AXES[info.axis.label], value, info.values) for value in info.values] for info in ours)
    refused: list[tuple[str, PlanError]] = []
    for cell in itertools.product(*each):
        try:
            changed = axes.changed(plan, [noted.change for noted in cell])
            if all_told:
                check(p, changed)
            else:
                checkpoints.resolve_all(changed)
        except PlanError as error:
            refused.append((_told(cell), error))
    if refused:
        told, error = refused[0]
        others = f", and {len(refused) - 1} more of the cells" if len(refused) > 1 else ""
        first, *more = error.problems
        raise PlanError(Problem(first.path, f"{first.message} (with {told}{others})"), *more)


def _told(cell: Sequence[_Noted]) -> str:
    return ", ".join(noted.axis.label(noted.value) for noted in cell)


def _grid(p: Any) -> _Grid:
    return getattr(p, _GRID)


# --- the axes -------------------------------------------------------------------------------------------------------


def _of_field(name: str, cost: float, choices: Callable[[], list[str]] | None = None) -> _Axis:
    return _Axis(
        change=lambda value, _: value,
        label=lambda value: value.label,
        type=lambda value: value if isinstance(value, Setting) else Setting(name, value),
        cost=cost,
        prepare=_refusing(functools.partial(axes.read_settings, name)),
        choices=choices,
    )


def _checkpoints() -> list[str]:
    return sorted((info.short_title for info in sd_models.checkpoints_list.values()), key=str.casefold)


def _samplers() -> list[str]:
    return [name for name in sd_samplers.visible_sampler_names() if name not in sampling.ADAPTIVE]


def _presets() -> list[str]:
    return [*presets.SHIPPED, *presets.names(settings.presets_folder())]


_COSTS = {"checkpoint": 0.9, "sampler_name": 0.2, "steps": 0.2, "denoising_strength": 0.15, "cfg_scale": 0.1}
_CHOICES = {"checkpoint": _checkpoints, "sampler_name": _samplers}
_AXES = {
    **{axes.field_label(name): _of_field(name, _COSTS.get(name, 0.0), _CHOICES.get(name)) for name in axes.FIELDS},
    axes.axis_label(SEARCH_REPLACE): _Axis(
        change=lambda value, values: Replacement(values[0], value), label=str, type=str, cost=0.3
    ),
    axes.axis_label(PRESET): _Axis(
        change=lambda value, _: Whole(presets.read(settings.presets_folder(), value)),
        label=lambda value: f"{PRESET}: {value}",
        type=str,
        cost=0.95,
        choices=_presets,
    ),
    axes.axis_label(BY_PATH): _Axis(
        change=lambda value, _: value,
        label=lambda value: value.label,
        type=lambda value: value,
        cost=0.6,
        prepare=_refusing(axes.read_places),
    ),
}
