"""The script's hooks, host free of surprises: read the arguments, refuse or attach, and never fail in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import errors

from multipass.hosts.webui import checkpoints, compat, hooks, sampling
from multipass.hosts.webui.rendering import Rendering
from multipass.plan import Pass, PassKind, Plan, decode
from multipass.problems import PlanError, Problem

_ATTRIBUTE = "multipass_rendering"


def before_process(p: Any, enabled: object = False, plan: object = None) -> None:
    """Attach the plan to the request, or refuse the request with the reason, or, without a plan, touch nothing."""
    if getattr(p, "_ad_inner", False):  # ADetailer's own picture inside ours
        return
    _detach(p)
    try:
        decoded = read_arguments(enabled, plan)
        if decoded is not None:
            rendering = check(p, decoded)
            rendering.attach(p)
            setattr(p, _ATTRIBUTE, rendering)
    except PlanError as error:
        hooks.refuse(p, hooks.Refused(str(error)))
    except Exception as error:  # noqa: BLE001 - the host would print it and render without us
        errors.report("Multipass failed before the picture was begun", exc_info=True)
        hooks.refuse(p, error)


def process(p: Any) -> None:
    _hold(p, lambda rendering: rendering.begin(p))


def before_process_batch(p: Any) -> None:
    _hold(p, lambda rendering: rendering.begin_batch(p))


def read_arguments(enabled: object, plan: object) -> Plan | None:
    """The plan of ``args: [enabled, plan]`` or ``args: [plan]``; ``None`` for off.

    Raises:
        PlanError: if there is something and it is not a plan.
    """
    if not isinstance(enabled, bool) and enabled is not None:
        enabled, plan = True, enabled
    if not enabled or plan is None or plan == "":
        return None
    return decode(plan)


def check(p: Any, plan: Plan) -> Rendering:
    """Everything that can be known before anything is loaded. Raises PlanError."""
    problems = [
        problem for index, own in enumerate(plan.passes) if own.enabled for problem in _not_yet(f"passes[{index}]", own)
    ]
    if getattr(p, "refiner_checkpoint", None) not in (None, "", "None", "none"):
        problems.append(
            Problem("refiner_checkpoint", "the built-in Refiner is on too; turn it off, a plan replaces it")
        )
    if problems:
        raise PlanError(*problems)
    sampling.check(p.sampler_name)
    named = checkpoints.resolve_all(plan)
    if plan.request is not None:
        p.comment("Multipass: the plan's `request` is for the multipass command and was not used here")
    return Rendering(plan, named, compat.loaded(), sampling.sampling_steps(p))


def _not_yet(place: str, own: Pass) -> list[Problem]:
    """What the format knows and this host adapter does not do yet; said, never skipped in silence."""
    found = []
    if own.kind in (PassKind.REFINE, PassKind.SUBJECT):
        found.append(Problem(f"{place}.kind", f"{own.kind.value} passes are not there yet in the webui"))
    else:
        fields = ("vae", "cfg_scale", "clip_skip", "steps", "sampler_name", "scheduler", "denoising_strength")
        found += [
            Problem(f"{place}.{name}", "not there yet in the webui; it is the request's for all passes")
            for name in fields
            if getattr(own, name) is not None
        ]
    return found


def _hold(p: Any, act: Callable[[Rendering], None]) -> None:
    """Run a later hook of an attached request. What goes wrong is raised where the host cannot overlook it."""
    rendering: Rendering | None = getattr(p, _ATTRIBUTE, None)
    if rendering is None or getattr(p, "_ad_inner", False):
        return
    try:
        act(rendering)
    except Exception as error:  # noqa: BLE001 - kept, and raised before sampling
        rendering.failed = error


def _detach(p: Any) -> None:
    """A copy of a request (XYZ plot makes them) still carries the rendering of the one it was copied from."""
    rendering: Rendering | None = getattr(p, _ATTRIBUTE, None)
    if rendering is not None:
        rendering.detach(p)
        delattr(p, _ATTRIBUTE)
