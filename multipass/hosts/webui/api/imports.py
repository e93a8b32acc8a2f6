"""Plans out of what people have: a prompt with editing by hand, a picture, a file."""

from __future__ import annotations

import codecs
import io
import struct
from typing import Any

import msgspec
from modules import images, infotext_utils
from PIL import Image, UnidentifiedImageError

from multipass.hosts.webui import editing
from multipass.hosts.webui.api.bodies import Body, read
from multipass.infotext import PLAN_KEY
from multipass.manifest import plan_in
from multipass.plan import Plan, Steps, SwitchUnit, decode
from multipass.problems import PlanError, Problem
from multipass.prompts import Texts

# as Pillow has it, and then what the host's reader of EXIF makes of a damaged block
_UNREADABLE = (
    OSError, ValueError, SyntaxError, Image.DecompressionBombError, struct.error, TypeError, AttributeError
)  # fmt: skip


class PromptBody(Body, frozen=True, kw_only=True):
    """What ``POST import/prompt`` is asked: the request's texts, and what their editing counts over."""

    prompt: str = ""
    negative_prompt: str = ""
    steps: Steps = 20
    sampler_name: str = ""


def prompt(body: bytes) -> dict[str, Any]:
    """The texts of each pass, and where it begins. Raises PlanError."""
    asked = read(body, PromptBody)
    parts = editing.split(Texts(asked.prompt, asked.negative_prompt), asked.steps, asked.sampler_name)
    return {
        "passes": [msgspec.to_builtins(texts) | ({} if at is None else {"switch_at": at}) for texts, at in parts],
        "switch_unit": SwitchUnit.STEPS.value,
    }


def file(body: bytes) -> dict[str, Any]:
    """The plan in a picture's infotext, in a run's manifest, or that the file is. Raises PlanError."""
    content = body.removeprefix(codecs.BOM_UTF8)
    plan = plan_in(content) if content.lstrip()[:1] == b"{" else _in_picture(content)
    return {"plan": msgspec.to_builtins(plan)}


def _in_picture(content: bytes) -> Plan:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            infotext, _ = images.read_info_from_image(picture)
    except UnidentifiedImageError:  # whose text is of a Python object
        raise PlanError(Problem("", "neither JSON nor a picture")) from None
    except _UNREADABLE as error:
        raise PlanError(Problem("", f"neither JSON nor a picture that can be read: {error}")) from None
    told = infotext_utils.parse_generation_parameters(infotext or "", [])
    if PLAN_KEY not in told:
        raise PlanError(Problem("", "this picture was not made by a plan: its text has none"))
    return decode(told[PLAN_KEY])
