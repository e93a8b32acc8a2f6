"""The ADetailer extension beside a plan: its tabs follow one of the passes. Nothing of it is imported, and it need not
be there. What a tab may say is declared in its ``ADetailerArgs``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modules import shared

from multipass.hosts.webui import checkpoints
from multipass.hosts.webui.chosen import Choice
from multipass.hosts.webui.conditioning import first_texts
from multipass.plan import PromptSyntax
from multipass.prompts import Texts

_REQUESTS_TEXT = "[PROMPT]"  # stands in a tab's text for the request's, styles included
_NO_CHOICE = (None, "", "None", "Use same checkpoint", "Use same VAE")
_CHECKPOINTS_OWN_VAE = "none"  # "None" is no choice there; a name that the host does not list is the same to it


def requests_texts(p: Any, syntax: PromptSyntax) -> Texts:
    """What stands for the request's texts in a tab's; the first picture's own, where they are read in parts."""
    styled = bool(p.styles)
    if syntax is PromptSyntax.SCENE_BREAK:
        return first_texts(p)
    prompt, negative = (_REQUESTS_TEXT if styled or text else "" for text in (p.prompt, p.negative_prompt))
    return Texts(prompt, negative)


def told_blank(texts: Texts, requests: Texts) -> Texts:
    """The same, where a text that is empty beside one of the request's is a space: nothing at all means that one."""
    prompt, negative = (
        own or (" " if other else "")
        for own, other in (
            (texts.prompt, requests.prompt),
            (texts.negative_prompt, requests.negative_prompt),
        )
    )
    return Texts(prompt, negative)


def tabs(p: Any, followed: Choice, default: Choice, request: Choice, texts: Texts | None) -> dict[int, dict[str, Any]]:
    """ADetailer's tabs with what they name themselves, and else with ``followed``, by place in the scripts' arguments;
    none where it is off or not there.

    Args:
        default: what the host's options will say when ADetailer begins.
        request: what a tab with a checkpoint of its own has beside that.
        texts: for tabs that have none; without, these use the request's.
    """
    script = next((own for own in getattr(p.scripts, "alwayson_scripts", ()) if own.title() == "ADetailer"), None)
    if script is None:
        return {}
    given = [*p.script_args[script.args_from : script.args_to]]
    found = {place: tab for place, tab in enumerate(given, script.args_from) if isinstance(tab, dict)}
    if not found or given[0] is False:
        return {}
    return {place: _filled(tab, followed, default, request, texts) for place, tab in found.items()}


def name_vae(ours: Mapping[int, dict[str, Any]], p: Any) -> bool:
    """Whether one of these tabs names a VAE that the request's own does not."""
    return any(tab.get("ad_vae") != p.script_args[place].get("ad_vae") for place, tab in ours.items())


@contextmanager
def with_tabs(p: Any, ours: Mapping[int, dict[str, Any]]) -> Iterator[None]:
    """While this lasts, these are ADetailer's tabs."""
    if not ours:
        yield
        return
    before = p.script_args
    p.script_args = type(before)(ours.get(place, argument) for place, argument in enumerate(before))
    try:
        yield
    finally:
        now = p.script_args  # in which somebody may have put others
        p.script_args = type(now)(
            before[place] if place in ours and argument is ours[place] else argument
            for place, argument in enumerate(now)
        )


def _filled(
    tab: dict[str, Any], followed: Choice, default: Choice, request: Choice, texts: Texts | None
) -> dict[str, Any]:
    def leaves(what: str) -> bool:
        return not tab.get(f"ad_use_{what}") or tab.get(f"ad_{what}") in _NO_CHOICE

    told: dict[str, Any] = {}
    if leaves("checkpoint"):
        told = {"ad_use_checkpoint": True, "ad_checkpoint": checkpoints.title(followed.checkpoint)}
    wanted = followed if told else request
    if leaves("vae") and wanted.vae != default.vae:
        vae = wanted.vae or shared.opts.sd_vae
        told |= {"ad_use_vae": True, "ad_vae": _CHECKPOINTS_OWN_VAE if vae == "None" else vae}
    if leaves("clip_skip") and wanted.clip_skip != default.clip_skip:
        told |= {"ad_use_clip_skip": True, "ad_clip_skip": wanted.clip_skip}
    if texts is not None:
        asked = {"ad_prompt": texts.prompt, "ad_negative_prompt": texts.negative_prompt}
        told |= {name: text for name, text in asked.items() if not tab.get(name)}
    return {**tab, **told}
