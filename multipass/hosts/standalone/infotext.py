"""A picture's text in the webui's format, so that the webui (and what reads its pictures) reads it back."""

from __future__ import annotations

import json

import msgspec

from multipass.hosts.standalone.job import Job
from multipass.infotext import infotext_values
from multipass.schedule import Segment

PNG_KEY = "parameters"
PASS_KEY = "Multipass pass"


def infotext(job: Job, seed: int, part: Segment | None = None) -> str:
    """Prompt, negative prompt and a line of fields; the plan is its last.

    The texts are the request's, which the plan's passes inherit: both together render the picture again.

    Args:
        part: the pass whose picture it is, where it is not the final one.
    """
    first = job.parts[0].pass_index
    settings, file = job.settings, job.checkpoints[first]
    plan = msgspec.structs.replace(job.plan, request=None)  # the other fields say the same
    fields: dict[str, object] = {
        "Steps": settings.steps,
        "Sampler": settings.sampler_name,
        "Schedule type": settings.scheduler,
        "CFG scale": f"{settings.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{job.size.width}x{job.size.height}",
        "Model hash": file.short_hash,
        "Model": file.path.stem,
        **({} if part is None else {PASS_KEY: job.plan.label(part.pass_index)}),
        **infotext_values(plan, job.parts, job.titles),
    }
    line = ", ".join(f"{key}: {quote(str(value))}" for key, value in fields.items())
    negative = f"Negative prompt: {settings.negative_prompt}" if settings.negative_prompt else ""
    return "\n".join(text for text in (settings.prompt, negative, line) if text)


def quote(text: str) -> str:
    """As the webui's ``infotext_utils.quote``: a JSON string where it would not be read back as it is."""
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
