"""Prompt editing by hand, ``[a:b:0.5]``, as passes: the same picture with the same checkpoint.

The host's own grammar says what is editing in a text, so what it takes for something else (emphasis, alternation, a
bracket that nobody closed) stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import lark
from modules import extra_networks, prompt_parser, sd_samplers, shared

from multipass.plan import MAX_PASSES
from multipass.problems import PlanError, Problem
from multipass.prompts import Texts

_AND = re.compile(r"(\bAND\b)")  # where the host splits a prompt before it looks for editing


class Part(NamedTuple):
    """A pass's texts, and the fraction of the steps from which on they hold; ``None``: from the beginning."""

    texts: Texts
    switch_at: float | None


class _Change(NamedTuple):
    """Where a text changes: the last evaluation, counted from 0, with what was before; and that as it was written."""

    last: int
    fraction: Fraction


def split(texts: Texts, steps: int, sampler_name: str) -> list[Part]:
    """The passes that hand-made editing stands for, in order, at least one; ``switch_at`` in the unit ``steps``.

    The host's editing acts one evaluation later than a switch, and may act inside a step: a pass begins with the next
    one. Tags of networks hold for the whole picture, wherever they stand: every pass gets them.

    Args:
        steps: of the request.
        sampler_name: some ask twice in a step, and a whole number counts that; an unknown one asks once.

    Raises:
        PlanError: where there are more than a plan may have, or where a text without its editing would be read as
            another one.
    """
    config = sd_samplers.find_sampler_config(sampler_name)
    count = config.total_steps(steps) // steps * steps if config is not None else steps
    tags = "".join(found[0] for found in re.finditer(extra_networks.re_extra_net, texts.prompt))
    bare = Texts(extra_networks.parse_prompt(texts.prompt)[0], texts.negative_prompt)
    prompt, negative = _read(_AND.split(bare.prompt)), _read([bare.negative_prompt])
    changes: dict[int, Fraction] = {}
    for change in [*_changes(prompt, count), *_changes(negative, count)]:
        changes[change.last] = max(change.fraction, changes.get(change.last, change.fraction))
    parts: list[Part] = []
    for begin, end in zip([None, *sorted(changes)], [*sorted(changes), max(1, count - 1)], strict=True):
        own = Texts(_written(prompt, end, count), _written(negative, end, count))
        _check(own, bare, range(0 if begin is None else begin + 1, min(end + 1, count)), count)
        tagged = Texts(own.prompt + tags, own.negative_prompt)
        if not parts or tagged != parts[-1].texts:
            if len(parts) == MAX_PASSES:
                reason = f"these texts change more than {MAX_PASSES - 1} times, and a plan has {MAX_PASSES} passes"
                raise PlanError(Problem("", reason))
            parts.append(Part(tagged, None if begin is None else _just_above(changes[begin], (begin + 1) / count)))
    return parts


def _read(pieces: Iterable[str]) -> Any:
    """A text as the host's grammar has it: a ``lark.Tree``."""
    return lark.Tree("start", [_parsed(piece) for piece in pieces])


def _parsed(text: str) -> Any:
    try:
        return prompt_parser.schedule_parser.parse(text)
    except lark.exceptions.LarkError:  # the host takes it as it is
        return text


def _changes(read: Any, count: int) -> Iterator[_Change]:
    """Those that are reached."""
    for editing in read.find_data("scheduled"):
        last, written = _last(editing, count), Fraction(str(editing.children[-2]))
        if 1 <= last <= count - 2:
            yield _Change(last, written if int(written * count) == last else Fraction(last, count))


def _last(editing: Any, count: int) -> int:
    """As in the host's ``get_learned_conditioning_prompt_schedules``."""
    text = str(editing.children[-2])
    value = float(text)
    is_fraction = value < 1 if shared.opts.use_old_scheduling else "." in text
    return min(count, int(value * count if is_fraction else value))


def _written(node: Any, evaluation: int, count: int) -> str:
    """The text with its editing resolved, as it holds at an evaluation that is not the first."""
    if node is None:
        return ""
    if isinstance(node, str):  # a token too
        return str(node)
    if node.data == "scheduled":
        before, after = node.children[:2]
        return _written(before if evaluation <= _last(node, count) else after, evaluation, count)
    inner = [_written(child, evaluation, count) for child in node.children]
    return f"[{'|'.join(inner)}]" if node.data == "alternate" else "".join(inner)


def _just_above(fraction: Fraction, up_to: float) -> float:
    """A number of few decimals that other numbers of steps, too, make the same of as the host of the fraction."""
    for decimals in range(2, 17):
        found = (int(fraction * 10**decimals) + 1) / 10**decimals
        if found <= up_to:
            return found
    return up_to


def _check(own: Texts, whole: Texts, evaluations: Iterable[int], count: int) -> None:
    """That the host reads a pass's texts as it reads the whole ones there."""
    ours, theirs = _scheduled(own, count), _scheduled(whole, count)
    if any(_at(ours, evaluation) != _at(theirs, evaluation) for evaluation in evaluations):
        raise PlanError(Problem("", f'the webui would read "{own.prompt}" otherwise than within these texts'))


def _scheduled(texts: Texts, count: int) -> list[tuple[float, Any]]:
    """The weight and the schedule of each text that the host encodes."""
    (indexes,), prompts, _ = prompt_parser.get_multicond_prompt_list([texts.prompt])
    *schedules, negative = prompt_parser.get_learned_conditioning_prompt_schedules(
        [*prompts, texts.negative_prompt], count, None, shared.opts.use_old_scheduling
    )
    return [*((weight, schedules[index]) for index, weight in indexes), (1.0, negative)]


def _at(scheduled: list[tuple[float, Any]], evaluation: int) -> list[tuple[float, str]]:
    return [(weight, next(text for end, text in own if evaluation <= end)) for weight, own in scheduled]
