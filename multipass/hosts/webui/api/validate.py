"""``POST validate``: which steps would be whose, what it takes, or what is wrong; nothing is rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from modules import processing
from modules.call_queue import queue_lock

from multipass.hosts.webui import checkpoints, compat, costs, heads, script
from multipass.hosts.webui.api.bodies import Body, problems, read
from multipass.hosts.webui.conditioning import first_texts
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.rendering import Rendering
from multipass.plan import Plan, PromptSyntax, Steps, Strength, decode
from multipass.problems import PlanError, Problem
from multipass.prompts import Texts, added, expanded, ignores_request, pass_texts
from multipass.schedule import points

_INHERITED = "\N{OBJECT REPLACEMENT CHARACTER}"  # in place of the request's texts: what nobody writes


class ValidateBody(Body, frozen=True, kw_only=True):
    """What ``POST validate`` is asked: a plan, and the part of a request that decides the steps."""

    plan: Any
    steps: Steps = 20
    sampler_name: str = "Euler a"
    scheduler: str = "Automatic"
    img2img: bool = False
    denoising_strength: Strength = 0.75
    enable_hr: bool = False
    width: Annotated[int, msgspec.Meta(ge=64)] = 512
    height: Annotated[int, msgspec.Meta(ge=64)] = 512
    refiner_checkpoint: str = ""
    prompt: str | None = None
    negative_prompt: str = ""


def validate(body: bytes) -> dict[str, Any]:
    """The steps of each enabled pass, half-open and counted from 0 within its trajectory, or what is wrong.

    A pass that gets no step has an empty range. ``added`` are the places of the passes that a scene-break prompt adds:
    all places are those in the plan that has them. Asks the host's own sampler, with parts of the host that sampling
    uses too, so it waits while a picture is made.
    """
    new = range(0)
    try:
        asked = read(body, ValidateBody)
        plan = given = decode(asked.plan)
        if asked.prompt is None:  # which alone tells the subjects of a scene-break plan
            plan = msgspec.structs.replace(plan, prompt_syntax=PromptSyntax.HOST)
        with queue_lock:
            compat.have_a_model()
            p = _request(asked)
            texts = first_texts(p)
            whole = expanded(plan, texts.prompt, texts.negative_prompt)
            new = added(plan, whole)
            rendering = script.check(p, whole)
            plan = rendering.plan
            infos = script.checkpoints_of(p, checkpoints.resolve_all(plan))
            sampled = {part.pass_index for part in rendering.parts}
            cost = costs.of({index: info for index, info in infos.items() if index in sampled})
    except PlanError as error:
        return {"ok": False, "errors": problems(error), "warnings": [], "added": list(new)}
    warnings = [*_left_out(rendering), *_unused(given), *_alike(plan, infos), *costs.warnings(cost)]
    return {
        "ok": True,
        "passes": [own for number in range(len(plan.trajectories)) for own in _passes(rendering, number)],
        "trajectories": list(_trajectories(p, rendering)),
        "cost": msgspec.to_builtins(cost),
        "warnings": msgspec.to_builtins(warnings),
        "added": list(new),
    }


def _trajectories(p: Any, rendering: Rendering) -> Iterator[dict[str, int]]:
    """With the size of each one's picture where it is known before the host has prepared anything."""
    count = len(rendering.announced)
    known = heads.sizes(rendering.plan, Size(p.width, p.height)) if heads.knows_sizes(p) else [None] * count
    for steps, size in zip(rendering.announced, known, strict=True):
        yield {"steps": steps.count if steps else 0} | (size.cut._asdict() if size is not None else {})


def _passes(rendering: Rendering, number: int) -> Iterator[dict[str, Any]]:
    """Those of one trajectory."""
    plan, steps = rendering.plan, rendering.announced[number]
    parts = {part.pass_index: part for part in rendering.parts}
    reached = 0
    for place, (index, own) in enumerate(plan.trajectories[number].passes):
        part = parts.get(index)
        first, reached = (part.first_step, part.end_step) if part else (reached, reached)
        told = {"name": plan.label(index), "index": index, "trajectory": number}
        told |= {"first_step": first, "end_step": reached}
        yield told | ({"switch_at": points(plan.unit_of(own), steps)} if place else {})


def _left_out(rendering: Rendering) -> Iterator[Problem]:
    plan, sampled = rendering.plan, {part.pass_index for part in rendering.parts}
    for trajectory, steps in zip(plan.trajectories, rendering.announced, strict=True):
        for place, (index, _) in enumerate(trajectory.passes):
            only_enlarges = steps is None and place == 0
            if index not in sampled and not only_enlarges:
                where = f"passes[{index}].switch_at" if place else f"passes[{index}]"
                yield Problem(where, f"{plan.label(index)} gets no step and is left out")


def _unused(plan: Plan) -> Iterator[Problem]:
    if ignores_request(plan):
        where = f"passes[{plan.running[0][0]}].prompt"
        yield Problem(where, "every pass has a prompt of its own: the webui's prompt is not used")
    if plan.request is not None:
        yield Problem("request", "it is for the multipass command and is not used here")


def _alike(plan: Plan, infos: Mapping[int, Any]) -> Iterator[Problem]:
    """Where each pass continues the picture exactly as the first one began it."""
    if len(plan.running) == 1 or len(plan.trajectories) > 1:
        return
    texts = pass_texts(plan, Texts(_INHERITED, _INHERITED))
    first, *others = [
        (infos.get(index), own.vae, own.cfg_scale, own.clip_skip, texts[index]) for index, own in plan.running
    ]
    if all(own == first for own in others):
        reason = "all passes do the same: choose another checkpoint, or another prompt, for one of them"
        yield Problem(f"passes[{plan.running[-1][0]}].checkpoint", reason)


def _request(asked: ValidateBody) -> Any:
    """A request as the host would make it, that is only looked at."""
    named = compat.sampler(asked.sampler_name, asked.scheduler)
    if named is None:
        raise PlanError(Problem("sampler_name", f'the webui has no sampler "{asked.sampler_name}"'))
    common = {"steps": asked.steps, "width": asked.width, "height": asked.height, **named}
    common |= {"denoising_strength": asked.denoising_strength, "refiner_checkpoint": asked.refiner_checkpoint}
    common |= {"prompt": asked.prompt or "", "negative_prompt": asked.negative_prompt}
    if asked.img2img:
        return processing.StableDiffusionProcessingImg2Img(**common)
    return processing.StableDiffusionProcessingTxt2Img(**common, enable_hr=asked.enable_hr)
