"""The texts of a pass: what it inherits, what it says itself, what all have in common. Pure."""

from __future__ import annotations

import msgspec

from multipass.plan import Plan, PromptMode

SEPARATOR = ", "


class Texts(msgspec.Struct, frozen=True):
    """The prompt and the negative prompt of one pass for one picture, LoRA tags included."""

    prompt: str
    negative_prompt: str


def pass_texts(plan: Plan, inherited: Texts) -> dict[int, Texts]:
    """The texts of every enabled pass, by its index in ``plan.passes``.

    Args:
        inherited: the request's texts for this picture, the host's styles applied: they reach the passes that inherit
            and no other. A switch pass inherits from its head, a head from the head before it. A LoRA tag is part of
            the text it stands in, so it holds for exactly the passes that have this text.
    """
    result: dict[int, Texts] = {}
    head = inherited
    for index, own in plan.running:
        texts = Texts(
            _apply(own.prompt_mode, head.prompt, own.prompt),
            _apply(own.prompt_mode, head.negative_prompt, own.negative_prompt),
        )
        if not result or own.is_head:
            head = texts
        result[index] = Texts(
            _join(texts.prompt, plan.common.prompt), _join(texts.negative_prompt, plan.common.negative_prompt)
        )
    return result


def _apply(mode: PromptMode, inherited: str, own: str | None) -> str:
    if own is None:
        return inherited
    match mode:
        case PromptMode.REPLACE:
            return own
        case PromptMode.APPEND:
            return _join(inherited, own)
        case PromptMode.PREPEND:
            return _join(own, inherited)


def _join(first: str, second: str) -> str:
    return SEPARATOR.join(text for text in (first, second) if text)
