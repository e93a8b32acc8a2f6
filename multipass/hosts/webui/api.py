"""The endpoints under ``/multipass/v1/``, there with and without ``--api``; shapes as in ``docs/plan.md``."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from secrets import compare_digest
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response
from modules import processing, sd_models, shared
from modules.call_queue import queue_lock
from starlette.concurrency import run_in_threadpool

from multipass import folders
from multipass.hosts.webui import compat, keys, models, script, settings
from multipass.plan import Steps, Strength, decode, json_schema
from multipass.problems import PlanError, Problem, explain

PREFIX = "/multipass/v1"
_NUMBER = re.compile("[0-9]{1,6}")


class ValidateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


def register(_: Any, app: FastAPI) -> None:
    """From ``on_app_started``: add the routes."""
    guard = [Depends(_guard(app))]
    app.add_api_route(f"{PREFIX}/schema", json_schema, methods=["GET"], dependencies=guard)

    async def validate_route(request: Request) -> dict[str, Any]:
        # waits for a picture in the making, which must not keep the server from answering others
        return await run_in_threadpool(validate, await request.body())

    app.add_api_route(f"{PREFIX}/validate", validate_route, methods=["POST"], dependencies=guard)
    app.add_api_route(f"{PREFIX}/cache", tell_cache, methods=["GET"], dependencies=guard)
    app.add_api_route(f"{PREFIX}/cache/clear", clear_cache, methods=["POST"], dependencies=guard)
    # plain strings: what is not a number is not there
    app.add_api_route(f"{PREFIX}/runs/{{run}}", tell_run, methods=["GET"], dependencies=guard)
    picture = f"{PREFIX}/runs/{{run}}/{{of_pass}}/{{image}}"
    app.add_api_route(picture, tell_picture, methods=["GET"], dependencies=guard)


def validate(body: bytes) -> dict[str, Any]:
    """The steps of each enabled pass, half-open and counted from 0 within its trajectory, or what is wrong. Nothing is
    rendered.

    A pass that gets no step has an empty range. Asks the host's own sampler, so it waits while a picture is made.
    """
    try:
        asked = _read(body)
        plan = decode(asked.plan)
        with queue_lock:
            compat.have_a_model()
            rendering = script.check(_request(asked), plan)
    except PlanError as error:
        return {"ok": False, "errors": [{"path": p.path, "message": p.message} for p in error.problems]}
    parts = {part.pass_index: part for part in rendering.parts}
    passes: list[dict[str, Any]] = []
    for trajectory in plan.trajectories:
        reached = 0
        for index, _ in trajectory.passes:
            part = parts.get(index)
            first, end = (part.first_step, part.end_step) if part else (reached, reached)
            passes.append({"name": plan.label(index), "first_step": first, "end_step": end})
            reached = end
    return {"ok": True, "passes": passes}


def tell_cache() -> dict[str, Any]:
    """What is kept where. ``checkpoint`` is its title; ``held`` counts the host's own model too, while a plan runs."""
    cache = models.cache
    tiers = {"vram": cache.vram, "ram": cache.ram}
    titles = {info.filename: info.title for info in sd_models.checkpoints_list.values()}
    return {
        "budgets": {f"{name}_bytes": tier.budget for name, tier in tiers.items()},
        "held": {f"{name}_bytes": tier.held for name, tier in tiers.items()},
        "entries": [
            {
                "checkpoint": titles.get(file := keys.file_of(entry.key), file),
                "component": entry.component,
                "tier": name,
                "nbytes": entry.nbytes,
                "leased": entry.leased,
                "lossy": isinstance(entry.key, keys.Lossy),
            }
            for name, tier in tiers.items()
            for entry in tier.entries()
        ],
        "loads_from_disk": cache.loads,
        "bytes_read": cache.bytes_read,
        "hits": cache.hits,
        "evictions": sum(tier.evicted for tier in tiers.values()),
    }


def clear_cache() -> dict[str, Any]:
    """Let go of all that is not in use, once no picture is being made; what is kept then."""
    with queue_lock:
        models.clear()
    return tell_cache()


def tell_run(run: str) -> Response:
    """A run's manifest; ``latest`` is the one that was written to last."""
    try:
        content = (_run(run) / folders.MANIFEST_NAME).read_bytes()
    except FileNotFoundError:  # a temporary one, that has just had to go
        raise _no_run(run) from None
    return Response(content, media_type="application/json")


def tell_picture(run: str, of_pass: str, image: str) -> Response:
    """A pass's picture, both counted from 0, as in the manifest."""
    if not (_NUMBER.fullmatch(of_pass) and _NUMBER.fullmatch(image)):
        raise HTTPException(404, f"a pass and an image are numbers, got {of_pass}/{image}")
    found = list(_run(run).glob(f"pass_{int(of_pass)}/{int(image):05}-*.png"))
    if not found:
        raise HTTPException(404, f"run {run} has no picture of pass {of_pass}, image {image}")
    try:
        return Response(found[0].read_bytes(), media_type="image/png")
    except FileNotFoundError:
        raise _no_run(run) from None


def _run(run: str) -> Path:
    found = folders.find((settings.saved_folder(), settings.temporary_folder()), run)
    if found is None:
        raise _no_run(run)
    return found


def _no_run(run: str) -> HTTPException:
    return HTTPException(404, "there is no run yet" if run == folders.LATEST else f'there is no run "{run}"')


def _read(body: bytes) -> ValidateBody:
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PlanError(Problem("", f"not JSON: {error}")) from None
    try:
        return msgspec.convert(raw, ValidateBody)
    except msgspec.ValidationError as error:
        raise PlanError(explain(str(error), msgspec.inspect.type_info(ValidateBody), raw)) from None


def _request(asked: ValidateBody) -> Any:
    """A request as the host would make it, that is only looked at."""
    named = compat.sampler(asked.sampler_name, asked.scheduler)
    if named is None:
        raise PlanError(Problem("sampler_name", f'the webui has no sampler "{asked.sampler_name}"'))
    common = {"steps": asked.steps, "width": asked.width, "height": asked.height, **named}
    common["denoising_strength"] = asked.denoising_strength
    if asked.img2img:
        return processing.StableDiffusionProcessingImg2Img(**common)
    return processing.StableDiffusionProcessingTxt2Img(**common, enable_hr=asked.enable_hr)


def _guard(app: FastAPI) -> Callable[[Request], None]:
    """Opened by the host's ``--api-auth`` or by a gradio login, and where neither is set, by nothing."""

    def guard(request: Request) -> None:
        open_to_all = not shared.cmd_opts.api_auth and getattr(app, "auth", None) is None
        if not (open_to_all or _has_api_credentials(request) or _is_logged_in(app, request)):
            raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Basic"})

    return guard


def _has_api_credentials(request: Request) -> bool:
    if not shared.cmd_opts.api_auth:
        return False
    kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    known = [pair.strip().encode() for pair in shared.cmd_opts.api_auth.split(",")]
    return kind.lower() == "basic" and any([compare_digest(given, pair) for pair in known])  # noqa: C419 - no early end


def _is_logged_in(app: FastAPI, request: Request) -> bool:
    """Gradio 3 calls its cookie ``access-token``, gradio 4 adds an id to that."""
    tokens: dict[str, str] = getattr(app, "tokens", {})
    return any(value in tokens for name, value in request.cookies.items() if name.startswith("access-token"))
