"""The axes of an X/Y/Z plot: what people type there, and what the values of a cell make of a plan. Pure.

A field's value may say which pass it is for, ``style: 0.4`` or ``pass 3: 0.4``. Otherwise it is for the first pass that
can have the field and is not the first of the plan, which has what the request says, as the host's own axes try it;
only where there is no other, for that.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from multipass.paths import Scalar, numbers_between, parse_axis, set_value
from multipass.plan import Plan, declared, decode
from multipass.problems import PlanError, Problem, hint

FIELDS = ("switch_at", "checkpoint", "denoising_strength", "cfg_scale", "steps", "sampler_name")
SEARCH_REPLACE, PRESET, BY_PATH = "Prompt S/R", "Preset", "Field by path"
_OF_A_HEAD = ("denoising_strength", "steps", "sampler_name")
_NUMBERED = re.compile(r"(?P<word>pass\s*)?(?P<number>[0-9]{1,4})", re.IGNORECASE)
_TEXTS = ("prompt", "negative_prompt")


class Setting(msgspec.Struct, frozen=True):
    """A field of a pass, and a value for it as it was typed.

    Attributes:
        before: what stands before the colons of the values that were typed before it, the nearest first: what of that
            names a pass is known with the plan, for a checkpoint's name may have a colon in it.
    """

    name: str
    text: str
    before: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        of_pass, value = _split(self.text)
        title = declared(self.name)["title"]
        shown = next(iter(filter(None, (of_pass, *self.before))), None)
        return f"{title} ({shown}): {value}" if shown else f"{title}: {value}"

    def apply(self, raw: Any, plan: Plan) -> None:
        """Change the plan, which is plain objects in ``raw``. Raises PlanError."""
        place = field_label(self.name)
        of_pass, value = _split(self.text)
        index = _find(plan, of_pass, place)
        if index is None and of_pass and _is_number(self.name):
            raise PlanError(_no_pass(plan, of_pass, place))
        if index is None:
            value = self.text
            found = (_find(plan, name, place) for name in self.before)
            index = next((one for one in found if one is not None), None)
        if index is None:
            index = _meant(plan, self.name)
        set_value(raw, f"passes[{index}].{self.name}", _number(value) if _is_number(self.name) else value)


class Place(msgspec.Struct, frozen=True):
    """Any place in a plan, and a value for it; ``None`` is what it has when it is left out."""

    path: str
    value: Scalar

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.path}={self.value if isinstance(self.value, str) else msgspec.json.encode(self.value).decode()}"

    def apply(self, raw: Any, plan: Plan) -> None:  # noqa: ARG002 - as the others
        """Change the plan, which is plain objects in ``raw``. Raises PlanError."""
        set_value(raw, self.path, self.value)


class Replacement(msgspec.Struct, frozen=True):
    """What is looked for in the passes' own texts and in the common ones, or in one pass's (``style: fox``), and what
    stands there instead."""

    search: str
    text: str

    def apply(self, raw: Any, plan: Plan) -> None:
        """Change the plan, which is plain objects in ``raw``. Raises PlanError, also where nothing is found."""
        of_pass, search = _split(self.search)
        index = _find(plan, of_pass, axis_label(SEARCH_REPLACE))
        if index is None:
            search, texts = self.search, [raw.get("common", {}), *(raw["passes"][k] for k, _ in plan.running)]
        else:
            texts = [raw["passes"][index]]
        places = [(own, name) for own in texts for name in _TEXTS if search and search in own.get(name, "")]
        if not places:
            where = "the passes' own texts" if index is None else f"the texts of {plan.label(index)}"
            raise PlanError(Problem(axis_label(SEARCH_REPLACE), f'"{search}" is not in {where}'))
        for own, name in places:
            own[name] = own[name].replace(search, search if self.text == self.search else self.text)


class Whole(msgspec.Struct, frozen=True):
    """Another plan, in which the other axes' values are tried."""

    plan: Plan


Change: TypeAlias = Setting | Place | Replacement | Whole


def changed(plan: Plan | None, changes: Sequence[Change]) -> Plan:
    """The plan with the values of a cell.

    Args:
        plan: ``None`` where there is none: then one of the changes has to be a whole one.

    Raises:
        PlanError: for a value that has no place, or with which it is no plan.
    """
    for change in changes:
        if isinstance(change, Whole):
            plan = change.plan
    if plan is None:
        raise PlanError(Problem("", "an axis of Multipass needs a plan: one in the panel, in the API or a preset"))
    raw: Any = msgspec.to_builtins(plan)
    for change in changes:
        if not isinstance(change, Whole):
            change.apply(raw, plan)
    return decode(raw)


def axis_label(axis: str) -> str:
    """The axis's name among the host's, and the place of what is wrong with what was typed there."""
    return f"[Multipass] {axis}"


def field_label(name: str) -> str:
    """The same for a field of a pass."""
    return axis_label(declared(name)["title"])


def read_settings(name: str, text: str) -> list[Setting]:
    """The values of a field's axis, with commas between them, quoted as in CSV. The pass that is named for one is also
    that of those after it; numbers may be ranges, as the host's are: ``2-8``, ``0.2-0.8 (+0.1)``, ``0.2-0.8 [5]``.

    Raises:
        PlanError: for a range that never comes to its end or has too many values.
    """
    found: list[Setting] = []
    before: tuple[str, ...] = ()
    for item in _items(text):
        named, value = _split(item)
        if not _is_number(name):
            found.append(Setting(name, item, before))
            before = (named, *before) if named else before
            continue
        before = (named,) if named else before
        numbers = numbers_between(value, field_label(name), step="1")
        shown = [value] if numbers is None else [_shown(number) for number in numbers]
        found += [Setting(name, f"{before[0]}: {one}" if before else one) for one in shown]
    return found


def read_places(text: str) -> list[Place]:
    """The values of ``passes[2].denoising_strength=0.2, 0.3``, as ``paths.parse_axis`` reads them. Raises PlanError."""
    axis = parse_axis(text)
    return [Place(axis.path, value) for value in axis.values]


def _shown(number: float) -> str:
    return msgspec.json.encode(int(number) if number == int(number) else number).decode()


def _items(text: str) -> list[str]:
    """As the host splits what is typed."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [item.strip() for row in rows for item in row if item.strip()]


def _split(text: str) -> tuple[str | None, str]:
    """What is before the first colon, if anything is, and the rest."""
    before, colon, after = text.partition(":")
    return (before.strip(), after.strip()) if colon and before.strip() else (None, text.strip())


def _find(plan: Plan, name: str | None, place: str) -> int | None:
    """The pass that is called so, by its name or by its number counted from 1 (``3``, ``pass 3``); ``None`` if there is
    none.

    Raises:
        PlanError: with ``place``, for one that is switched off, for a name that two passes have, and for ``pass 9``
            where there are fewer.
    """
    numbered = _NUMBERED.fullmatch(name or "")
    found = [index for index, own in enumerate(plan.passes) if name and own.name.casefold() == name.casefold()]
    if not found and numbered is not None:
        found = [index for index in range(len(plan.passes)) if index + 1 == int(numbered["number"])]
        if not found and numbered["word"]:
            raise PlanError(_no_pass(plan, numbered[0], place))
    if len(found) > 1:
        raise PlanError(Problem(place, f'{len(found)} passes are called "{name}"; say which by its number'))
    if found and not plan.passes[found[0]].enabled:
        raise PlanError(Problem(place, f'the pass "{name}" is switched off'))
    return found[0] if found else None


def _no_pass(plan: Plan, name: str, place: str) -> Problem:
    known = [plan.label(index) for index, _ in plan.running]
    return Problem(place, f'there is no pass "{name}"{hint(name, known)}')


def _meant(plan: Plan, name: str) -> int:
    """The pass that a field's value is for where it names none."""
    (first, _), *others = plan.running
    if name == "switch_at":
        others = [(index, own) for index, own in others if not own.is_head]
        if not others:
            raise PlanError(Problem(field_label(name), "the plan has no switch pass"))
    elif name in _OF_A_HEAD:
        others = [(index, own) for index, own in others if own.is_head]
    return others[0][0] if others else first


def _number(text: str) -> int | float | str:
    """What is none is refused with the plan, where its place is known."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _is_number(name: str) -> bool:
    options = declared(name).get("anyOf", ())
    return any(option.get("type") in ("number", "integer") for option in options)
