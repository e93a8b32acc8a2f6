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
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_SPAN = re.compile(
    rf"\s*(?P<first>{_NUMBER})\s*-\s*(?P<last>{_NUMBER})"
    rf"\s*(?:\(\s*(?P<step>{_NUMBER})\s*\)|\[\s*(?P<count>\d+)\s*\])?\s*",
    re.ASCII,
)


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
    """Read ``first:last:step``, both ends included, or a list with commas, each as JSON or else as the text it is; an
    item may be a range as the webui's X/Y/Z plot has them, ``0.2-0.8 (+0.1)`` or ``0.2-0.8 [5]``.

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
    return tuple(value for item in _listed(text) for value in _read(item, place))


def numbers_between(text: str, place: str, *, step: str = "") -> tuple[int | float, ...] | None:
    """The numbers of ``first-last (+step)`` or ``first-last [count]``, decimal as in ``parse_values``; ``None`` where
    the text is neither.

    Args:
        step: of ``first-last``, which without one is no range.

    Raises:
        PlanError: with ``place``, for a range that never comes to its end or has too many values.
    """
    found = _SPAN.fullmatch(text)
    if found is None or not (found["step"] or found["count"] or step):
        return None
    first, last = Decimal(found["first"]), Decimal(found["last"])
    if found["count"]:
        return _spread(first, last, int(found["count"]), place)
    numbers = _range(first, last, Decimal(found["step"] or step), place)
    if not found["step"] and numbers[-1] != last:
        raise PlanError(
            Problem(place, f"{text.strip()} needs a step, as in {text.strip()} (+0.1), or a count, as in [5]")
        )
    return numbers


def with_values(plan: Plan, values: Mapping[str, Scalar]) -> Plan:
    """The plan with a value at each of these places; ``None`` is what the place has when it is left out.

    Raises:
        PlanError: where there is no such place, or the plan is none with these values.
    """
    raw: Any = msgspec.to_builtins(plan)
    for path, value in values.items():
        set_value(raw, path, value)
    return decode(raw)


def set_value(raw: Any, path: str, value: Scalar) -> None:
    """Put the value at a place of a plan that is plain objects, or take away what is there for ``None``.

    Raises:
        PlanError: where there is no such place.
    """
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


def _range(first: Decimal, last: Decimal, step: Decimal, place: str) -> tuple[int | float, ...]:
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


def _spread(first: Decimal, last: Decimal, count: int, place: str) -> tuple[int | float, ...]:
    """So many numbers at equal distances, both ends included; one is the first. They are whole where all are."""
    if not 1 <= count <= MOST_VALUES:
        raise PlanError(Problem(place, f"expected from 1 to {MOST_VALUES} values, got {count}"))
    numbers = [first + (last - first) * k / max(1, count - 1) for k in range(count)]
    whole = all(number == int(number) for number in numbers)
    return tuple(int(number) if whole else float(number) for number in numbers)


def _read(item: str, place: str) -> tuple[Scalar, ...]:
    return numbers_between(item, place) or (_scalar(item),)


def _listed(text: str) -> Iterator[str]:
    end = -1
    while end < len(text):
        found = _ITEM.match(text, end + 1)
        assert found is not None, "anything is an item, if only nothing"
        yield found["item"]
        end = found.end()


def _scalar(text: str) -> Scalar:
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
    return text if isinstance(value, (list, dict)) else cast("Scalar", value)
