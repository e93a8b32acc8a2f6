"""What is wrong with a plan, where, and in words that people read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a plan: where (``passes[1].switch_at``; empty for the whole) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class PlanError(ValueError):
    """A plan that is not run. ``problems`` says where and why; its text is fit for people."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def hint(name: str, known: Sequence[str]) -> str:
    """What follows on ``there is no "name"``: the one that is close to it, else those that there are, or the first."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; it lists {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else "; it lists none"


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(?P<name>.*)`", re.DOTALL)
_TOKEN = re.compile(r"\[(?P<index>\d+)\]|(?P<name>[^.\[\]]+)")


def explain(text: str, declared: Any, raw: object) -> Problem:
    """The place, what was expected and what was there, from msgspec's ``Expected `int` - at `$.passes[1].steps```.

    Args:
        declared: the type that was expected of the whole, from ``msgspec.inspect.type_info``.
        raw: what was read.
    """
    match = _AT.match(text)
    assert match is not None, text
    what, path = match["what"], match["path"] or ""
    field = _FIELD.search(what)
    if field is not None:
        place = f"{path}.{field['name']}" if path else field["name"]
        return Problem(place, "required" if "missing" in what else "unknown field")
    value: Any = raw
    for token in _TOKEN.finditer(path):
        declared = _member(declared, token["name"])
        try:
            value = value[int(token["index"])] if token["index"] else value[token["name"]]
        except (LookupError, TypeError):  # a key of the wrong type, say
            return Problem(path, what[:1].lower() + what[1:])
    return Problem(path, f"expected {_describe(declared)}, got {_show(value)}")


def _member(declared: Any, name: str | None) -> Any:
    """The declared type of a field or, without a name, of a list's items."""
    for option in map(_bare, getattr(declared, "types", (declared,))):
        if name is None and hasattr(option, "item_type"):
            return option.item_type
        for field in getattr(option, "fields", ()):
            if field.encode_name == name:
                return field.type
    return declared


def _bare(declared: Any) -> Any:
    return declared.type if isinstance(declared, msgspec.inspect.Metadata) else declared


def _describe(declared: Any) -> str:  # noqa: PLR0911 - one answer for each type
    types = msgspec.inspect
    match _bare(declared):
        case types.UnionType(types=options):
            described = [_describe(option) for option in options if not isinstance(option, types.NoneType)]
            return " or ".join(described)
        case types.FloatType(ge=low, le=high):
            return f"a number{_between(low, high)}"
        case types.IntType(ge=low, le=high):
            return f"a whole number{_between(low, high)}"
        case types.StrType(min_length=low, max_length=high):
            longest = f" of at most {high} characters" if high else ""
            return ("a text that is not empty" if low else "a text") + longest
        case types.BoolType():
            return "true or false"
        case types.EnumType(cls=cls):
            return "one of " + ", ".join(f'"{member.value}"' for member in cls)
        case types.VarTupleType(min_length=low, max_length=high):
            return f"a list of {low} to {high} passes"
        case _:
            return "an object"


def _between(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return f" from {low} to {high}" if low is not None and high is not None else f" of at least {low}"


def _show(value: object) -> str:
    """What was read, as JSON would write it, cut to a line."""
    if isinstance(value, list):
        return f"{len(cast('list[object]', value))} of them"
    shown = str(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
    return shown if len(shown) <= 60 else shown[:57] + "..."
