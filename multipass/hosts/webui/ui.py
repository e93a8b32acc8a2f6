"""The panel: a checkbox accordion around a form that `javascript/multipass.js` draws, and the one hidden plan field.

The form is plain HTML elements, not gradio components: the same in Gradio 3.41 and 4.40, and every keystroke is in the
plan field at once, so that Generate pressed right after typing uses what was typed.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import gradio as gr
import msgspec
from modules import sd_models
from modules.ui_components import InputAccordion

from multipass.infotext import PLAN_KEY
from multipass.plan import Pass

SHOWN = ("checkpoint", "switch_at", "prompt", "negative_prompt")


class Panel(NamedTuple):
    """What the script hands to the host."""

    enabled: Any
    plan: Any
    infotext_fields: list[Any]
    paste_field_names: list[str]


def build(tab: str) -> Panel:
    """Create the panel's components for ``txt2img`` or ``img2img`` in the current gradio context."""
    prefix = f"multipass_{tab}"
    with InputAccordion(False, label="Multipass", elem_id=prefix) as enabled:
        gr.HTML(f'<div id="{prefix}_form" class="multipass-form"></div>')
        plan = _hidden(f"{prefix}_plan", "Multipass plan", "")
        _hidden(f"{prefix}_fields", "Multipass fields", json.dumps(fields()))
        _hidden(f"{prefix}_checkpoints", "Multipass checkpoints", checkpoint_titles)  # asked at each page load
    # a programmatic change of the field (a pasted picture) reaches the form this way
    script = f"() => {{ multipassPlanChanged('{tab}'); }}"
    plan.change(fn=None, inputs=[], outputs=[], **{"js" if gr.__version__.startswith("4") else "_js": script})
    return Panel(
        enabled,
        plan,
        infotext_fields=[(enabled, lambda params: PLAN_KEY in params), (plan, PLAN_KEY)],
        paste_field_names=[PLAN_KEY],
    )


def _hidden(elem_id: str, label: str, value: Any) -> Any:
    """In the page but not seen (an invisible gradio component is not in the page at all), and in no ui-config."""
    field = gr.Textbox(value=value, label=label, elem_id=elem_id, elem_classes=["multipass-hidden"])
    field.do_not_save_to_config = True
    return field


def checkpoint_titles() -> str:
    """The names the form offers, as JSON."""
    return json.dumps([info.short_title for info in sd_models.checkpoints_list.values()])


def fields() -> list[dict[str, Any]]:
    """The declared title and help of the fields the form shows, from the plan's own declaration."""
    properties = msgspec.json.schema(Pass)["$defs"]["Pass"]["properties"]
    return [{"name": name, **_declared(properties[name])} for name in SHOWN]


def _declared(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema nests what is optional; the form wants it flat."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    merged = {**(options[0] if options else {}), **schema}
    return {key: merged[key] for key in ("title", "description") if key in merged}
