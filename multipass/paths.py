"""Places in a plan, and the values that are tried there: ``passes[1].switch_at=0:1:0.1``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec

from multipass.plan import Plan, decode
from multipass.problems import PlanError, Problem

MOST_VALUES = 1000

Scalar = str | int | float | bool | None

_STEP = re.compile(r"(?P<name>[A-Za-z_]\w*)|\[(?P<index>\d+)\]")
_PATH = re.compile(r"[A-Za-z_]\w*(\[\d+\])?(\.[A-Za-z_]\w*(\[\d+\])?)*")
# a JSON string, in which a comma is no end, or anything up to a comma
_ITEM = re.compile(r'\s*(?P<item>"(?:[^"\\]|\\.)*"|[^,]*?)\s*(?=,|\Z)')


class Axis(msgspec.Struct, frozen=True):
    """A place in a plan, as problems tell it (``passes[1].switch_at``), and the values it gets, at least one."""

    path: str
    values: tuple[Scalar, ...]


def parse_axis(text: str) -> Axis:
    """Read ``path=values``.

    Raises:
        PlanError: with the path for its place, or the whole text where there is none.
    """
    path, equals, values = text.partition("=")
    path = path.strip()
    if not equals:
        raise PlanError(Problem(text, "expected PATH=VALUES, as in passes[1].switch_at=0:1:0.1"))
    if not _PATH.fullmatch(path):
        raise PlanError(Problem(path, "expected a place in a plan, as in passes[1].switch_at or common.prompt"))
    return Axis(path, parse_values(values, path))


def parse_values(text: str, place: str) -> tuple[Scalar, ...]:
    """Read ``first:last:step``, both ends included, or a list with commas, each as JSON or else as the text it is.

    Numbers are decimal: ``0:1:0.1`` gives 0.3 and not the sum of three floats. They are whole where all three are.

    Raises:
        PlanError: with ``place``, for a range without an end or with too many values.
    """
    parts = text.split(":")
    if len(parts) == 3:
        try:
            first, last, step = map(Decimal, parts)
        except InvalidOperation:
            pass  # a text with colons
        else:
            return _range(first, last, step, place)
    return tuple(_listed(text))


def with_values(plan: Plan, values: Mapping[str, Scalar]) -> Plan:
    """The plan with a value at each of these places; ``None`` is what the place has when it is left out.

    Raises:
        PlanError: where there is no such place, or the plan is none with these values.
    """
    raw: Any = msgspec.to_builtins(plan)
    for path, value in values.items():
        _set(raw, path, value)
    return decode(raw)


def _range(first: Decimal, last: Decimal, step: Decimal, place: str) -> tuple[Scalar, ...]:
    told = f"{first}:{last}:{step}"
    try:
        steps = (last - first) / step
    except ArithmeticError:  # by nothing, say
        steps = Decimal("nan")
    if not step.is_finite() or steps.is_nan() or steps < 0:
        raise PlanError(Problem(place, f"{told} never comes from {first} to {last}"))
    if steps >= MOST_VALUES:
        raise PlanError(Problem(place, f"{told} are more than {MOST_VALUES} values"))
    whole = all(number == int(number) for number in (first, step)) and "." not in told
    numbers = (first + k * step for k in range(int(steps) + 1))
    return tuple(int(number) if whole else float(number) for number in numbers)


def _listed(text: str) -> Iterator[Scalar]:
    end = -1
    while end < len(text):
        found = _ITEM.match(text, end + 1)
        assert found is not None, "anything is an item, if only nothing"
        yield _scalar(found["item"])
        end = found.end()


def _scalar(text: str) -> Scalar:
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
    return text if isinstance(value, (list, dict)) else cast("Scalar", value)


def _set(raw: Any, path: str, value: Scalar) -> None:
    """Put the value there, or take away what is there for ``None``."""
    steps = [int(step["index"]) if step["index"] else step["name"] for step in _STEP.finditer(path)]
    *way, last = steps
    if isinstance(steps[1] if way else None, str):
        raw.setdefault(steps[0], {})  # an object that is left out, as the request may be
    here = raw
    try:
        for step in way:
            here = here[step]
        if value is None:
            here.pop(last, None)
        else:
            here[last] = value
    except (LookupError, TypeError, AttributeError):
        raise PlanError(Problem(path, f"there is no such place in the plan ({len(raw['passes'])} passes)")) from None
