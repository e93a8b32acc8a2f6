"""The panel: a checkbox accordion around a form that `javascript/` draws, and the one hidden plan field.

The form is plain HTML elements, not gradio components: the same in Gradio 3.41 and 4.40, and every keystroke is in the
plan field at once, so that Generate pressed right after typing uses what was typed.
"""

from __future__ import annotations

import html
import json
from typing import Any, NamedTuple

import gradio as gr
import msgspec
from modules import shared
from modules.ui_components import InputAccordion

from multipass import subjects
from multipass.hosts.webui import heads
from multipass.infotext import PLAN_KEY
from multipass.plan import MAX_PASSES, OnMissing, Pass, PassKind, Plan, PromptMode, SwitchUnit, Which, fields_of, flat

FIRST = "first"
_ENUMS = {own.__name__: own for own in (OnMissing, PassKind, PromptMode, SwitchUnit, Which)}
# which list of `GET choices` a field is chosen from
_CHOICES = {
    "checkpoint": "checkpoints",
    "vae": "vaes",
    "sampler_name": "samplers",
    "scheduler": "schedulers",
    "upscaler": "upscalers",
    "target": "detectors",
}


class Panel(NamedTuple):
    """What the script hands to the host."""

    enabled: Any
    plan: Any
    infotext_fields: list[Any]


def build(tab: str) -> Panel:
    """Create the panel's components for ``txt2img`` or ``img2img`` in the current gradio context."""
    prefix = f"multipass_{tab}"
    with InputAccordion(False, label="Multipass", elem_id=prefix) as enabled:
        declared, whole = (html.escape(json.dumps(own)) for own in (fields(tab), checkboxes()))
        told = f'data-fields="{declared}" data-checkboxes="{whole}" data-most-passes="{MAX_PASSES}"'
        gr.HTML(f'<div id="{prefix}_form" class="multipass-form" {told}></div>')
        # in the page but not seen: an invisible gradio component is not in the page at all
        plan = gr.Textbox("", label="Multipass plan", elem_id=f"{prefix}_plan", elem_classes=["multipass-hidden"])
        plan.do_not_save_to_config = True
    # a programmatic change of the field (a pasted picture) reaches the form this way
    in_page = "js" if gr.__version__.startswith("4") else "_js"
    plan.change(fn=None, inputs=[], outputs=[], **{in_page: f"() => {{ multipass.planChanged('{tab}'); }}"})
    # gradio itself has to be told what the browser kept: it would show what a script writes that early, and not send it
    page = gr.context.Context.root_block
    page.load(fn=None, inputs=[], outputs=[enabled, plan], **{in_page: f"() => multipass.restored('{tab}')"})
    return Panel(enabled, plan, infotext_fields=[(enabled, lambda params: PLAN_KEY in params), (plan, PLAN_KEY)])


def fields(tab: str) -> list[dict[str, Any]]:
    """What a pass can have, as the form wants it, from the plan's own declaration.

    Each has ``name``, ``title``, ``description``, ``kinds`` (of passes that may have it, ``"first"`` among them) and
    ``type`` as in JSON Schema; where they apply ``minimum``, ``maximum``, ``enum``, ``choices`` and ``default``.
    """
    properties = msgspec.json.schema(Pass)["$defs"]["Pass"]["properties"]
    return [{"name": name, "kinds": _kinds(tab, name), **_declared(name, own)} for name, own in properties.items()]


def checkboxes() -> list[dict[str, Any]]:
    """What is on or off for the whole plan; each has ``default`` and else what ``fields`` says."""
    properties = msgspec.json.schema(Plan)["$defs"]["Plan"]["properties"]
    return [
        {"name": name, "default": own["default"], **_declared(name, own)}
        for name, own in properties.items()
        if own.get("type") == "boolean"
    ]


def _kinds(tab: str, name: str) -> list[str]:
    kinds = [kind.value for kind in PassKind if name in fields_of(kind)]
    may_begin = name in fields_of(None) and not (tab == "txt2img" and name in heads.OF_A_HEAD)
    return [FIRST, *kinds] if may_begin else kinds


def _declared(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """What the form wants of it. Enums keep their own order."""
    merged = flat(schema)
    keys = ("title", "description", "type", "minimum", "maximum")
    found: dict[str, Any] = {key: merged[key] for key in keys if key in merged}
    if "description" in found:
        # as a tooltip has it: plain text, about a field of the form
        found["description"] = found["description"].replace("`", "").replace("Absent:", "By default:")
    if "$ref" in merged:  # beside it `which` can be a number, which its widget knows
        found |= {"type": "string", "enum": [own.value for own in _ENUMS[merged["$ref"].rpartition("/")[2]]]}
    # as the host's hires fix has them, and its inpainting
    defaults = {"scale": 1, "upscaler": shared.latent_upscale_default_mode, **subjects.DEFAULTS}
    if name in defaults:
        found["default"] = defaults[name]
    if name in _CHOICES:
        found["choices"] = _CHOICES[name]
    return found
