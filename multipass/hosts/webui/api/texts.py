"""What a pass's texts are once they are joined, and how long."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from modules import ui

from multipass.hosts.webui import compat
from multipass.hosts.webui.api.bodies import Body, read
from multipass.plan import Steps, decode
from multipass.prompts import Texts, expanded, pass_texts

_COUNT = re.compile(r">(\d+)/(\d+)<")  # in what the host writes beside its prompts


class TextsBody(Body, frozen=True, kw_only=True):
    """What ``POST texts`` is asked: a plan, and the request's texts."""

    plan: Any
    prompt: str = ""
    negative_prompt: str = ""


class TokensBody(Body, frozen=True, kw_only=True):
    """What ``POST tokens`` is asked: texts, the steps over which prompt editing counts, and whether they are negative
    prompts, in which the host knows no ``AND``."""

    texts: tuple[str, ...]
    steps: Steps = 20
    negative: bool = False


def of_passes(body: bytes) -> dict[str, Any]:
    """Each enabled pass's whole texts, and the plan that they are of: with the passes that the prompt adds to it.
    Styles, which the host puts into the request's texts, are not in them, and comments are left out as it does.
    Raises PlanError."""
    asked = read(body, TextsBody)
    texts = Texts(compat.uncommented(asked.prompt), compat.uncommented(asked.negative_prompt))
    plan = expanded(decode(asked.plan), texts.prompt, texts.negative_prompt)
    found = pass_texts(plan, texts)
    return {
        "passes": [
            {"index": index, "prompt": texts.prompt, "negative_prompt": texts.negative_prompt}
            for index, texts in found.items()
        ],
        "plan": msgspec.to_builtins(plan),
    }


def tokens(body: bytes) -> dict[str, Any]:
    """How many tokens each text has, and into how many it is filled up, by the host's own counter and the model in
    place; ``None`` of both while there is no model. Raises PlanError."""
    asked = read(body, TokensBody)
    return {"tokens": [_counted(text, asked) for text in asked.texts]}


def _counted(text: str, asked: TokensBody) -> dict[str, int | None]:
    told = _COUNT.search(ui.update_token_counter(text, asked.steps, [], is_positive=not asked.negative))
    count, limit = map(int, told.groups()) if told else (None, None)
    return {"count": count, "limit": limit}
