"""The webui's prompt syntax, as far as the command has it: emphasis and BREAK. Pure.

``(word)`` weighs 1.1 times as much, ``[word]`` 1.1 times as little, ``(word:1.3)`` 1.3 times; they nest, and a
backslash makes a bracket ordinary. ``BREAK`` starts a new chunk of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from multipass.plan import Problem

_STRONGER = 1.1
_WEAKER = 1 / 1.1
_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|[\\:])"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*", re.DOTALL)

_LORA = re.compile(r"<(?:lora|lyco|hypernet):", re.IGNORECASE)
_EDITING = re.compile(r"(?<!\\)\[[^\[\]]*(?:(?<!\\)\||:\s*\d*\.?\d+\s*(?<!\\)\])")
_AND = re.compile(r"\bAND\b")


class Weighted(msgspec.Struct, frozen=True):
    """A piece of a prompt and how much it counts."""

    text: str
    weight: float


def parts(prompt: str) -> tuple[tuple[Weighted, ...], ...]:
    """The prompt's weighted pieces, one tuple for each stretch between BREAKs. Any text is a prompt."""
    pieces = _weigh(prompt)
    stretches: list[list[Weighted]] = [[]]
    for piece in pieces:
        first, *others = _BREAK.split(piece.text)
        stretches[-1].append(Weighted(first, piece.weight))
        stretches += [[Weighted(text, piece.weight)] for text in others]
    return tuple(tuple(piece for piece in stretch if piece.text) for stretch in stretches)


def _weigh(prompt: str) -> list[Weighted]:
    pieces: list[Weighted] = []
    opened: list[tuple[str, int]] = []

    def scale(start: int, factor: float) -> None:
        pieces[start:] = [Weighted(piece.text, piece.weight * factor) for piece in pieces[start:]]

    for token in _TOKEN.finditer(prompt):
        text = token.group()
        if token["escaped"]:
            text = token["escaped"]
        elif token["open"]:
            opened.append((text, len(pieces)))
            continue
        elif token["weight"] and opened and opened[-1][0] == "(":
            scale(opened.pop()[1], float(token["weight"]))
            continue
        elif token["close"] and opened and opened[-1][0] == {")": "(", "]": "["}[text]:
            bracket, start = opened.pop()
            scale(start, _STRONGER if bracket == "(" else _WEAKER)
            continue
        pieces.append(Weighted(text, 1.0))
    for bracket, start in opened:  # what is never closed counts as if it closed at the end, as in the webui
        scale(start, _STRONGER if bracket == "(" else _WEAKER)
    return _merge(pieces)


def _merge(pieces: Sequence[Weighted]) -> list[Weighted]:
    merged: list[Weighted] = []
    for piece in pieces:
        if merged and merged[-1].weight == piece.weight:
            merged[-1] = Weighted(merged[-1].text + piece.text, piece.weight)
        else:
            merged.append(piece)
    return merged


def unsupported(prompt: str, place: str) -> Iterator[Problem]:
    """What a prompt asks for and the command cannot do: it would otherwise be drawn as words."""
    if _LORA.search(prompt):
        yield Problem(place, "the command does not apply LoRAs yet")
    if _EDITING.search(prompt):
        yield Problem(place, "the command does not do prompt editing ([a:b:0.5], [a|b]) yet")
    if _AND.search(prompt):
        yield Problem(place, "the command does not compose prompts with AND yet")
