"""The script's hooks: read the arguments, refuse or attach, and never fail in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import errors, shared

from multipass.hosts.webui import architecture, attached, checkpoints, compat, heads, hooks, rendering
from multipass.hosts.webui.rendering import Rendering
from multipass.plan import Pass, PassKind, Plan, decode
from multipass.problems import PlanError, Problem


def before_process(p: Any, enabled: object = False, plan: object = None) -> None:
    """Attach the plan to the request, or refuse the request with the reason, or, without a plan, touch nothing."""
    if _is_inside_another(p):
        return
    try:
        decoded = read_arguments(enabled, plan)
        rendering.end_what_is_left(of_this_task_too=decoded is not None)
        if decoded is not None:
            check(p, decoded).attach()
    except PlanError as error:
        hooks.refuse(p, hooks.Refused(str(error)))
    except Exception as error:  # noqa: BLE001 - the host would print it and render without us
        errors.report("Multipass failed before the picture was begun", exc_info=True)
        hooks.refuse(p, error)


def process(p: Any) -> None:
    """The request's options and first model are in place."""
    _hold(p, Rendering.begin)


def before_process_batch(p: Any) -> None:
    """The texts of the next batch are about to be encoded."""
    _hold(p, Rendering.begin_batch)


def postprocess_batch(p: Any, images: Any) -> None:
    """The host has decoded a batch: N, 3, height, width from 0 to 1."""
    _hold(p, lambda rendering: rendering.end_batch(images))


def postprocess(p: Any, processed: Any) -> None:
    """All pictures of the request are done."""
    _hold(p, lambda rendering: rendering.finish(processed))


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
        reason = "the built-in Refiner is on too; turn it off, a plan replaces it"
        problems.append(Problem("refiner_checkpoint", reason))
    problems += heads.problems(p, plan)
    if problems:
        raise PlanError(*problems)
    named = checkpoints.resolve_all(plan)
    of_request = compat.of_request(p)
    infos = {index: own.checkpoint or of_request for index, own in named.items()}
    infos = {index: info for index, info in infos.items() if info is not None}
    checkpoints.check_together(plan, infos)
    problems = list(heads.between_latent_spaces(plan, infos))
    if problems:
        raise PlanError(*problems)
    if plan.request is not None:
        p.comment("Multipass: the plan's `request` is for the multipass command and was not used here")
    with compat.scheduled_for(p):
        steps = [rendering.steps_of(p, plan, number) for number in range(len(plan.trajectories))]
    return Rendering(p, plan, named, steps)


def _not_yet(place: str, own: Pass) -> list[Problem]:
    """What the format knows and this host adapter does not do; said, never skipped in silence."""
    problems: list[Problem] = []
    if own.kind is PassKind.SUBJECT:
        problems.append(Problem(f"{place}.kind", "subject passes are not there yet in the webui"))
    if own.vae is not None and not architecture.suits(shared.sd_model):
        kept = "this webui cannot change it with the pass (the Forge family, --lowvram, --medvram, fp8, an SD Unet)"
        problems.append(Problem(f"{place}.vae", kept))
    return problems


def _is_inside_another(p: Any) -> bool:
    """Whether ``p`` is a copy that something (ADetailer, say) renders in the middle of an attached request.

    Such a picture is not the plan's. A copy made from a request that has ended, or a request that is rendered again
    (loopback), is a request like any other.
    """
    if getattr(p, "_ad_inner", False):
        return True
    carried = attached.of(p)
    if carried is None:
        return False
    if carried.p is p:
        carried.end()
    elif not carried.ended:
        return True
    carried.let_go(p)
    return False


def _hold(p: Any, act: Callable[[Rendering], None]) -> None:
    """Run a later hook of an attached request. What goes wrong is raised where the host cannot overlook it."""
    carried = attached.of(p)
    if carried is None or carried.p is not p or carried.ended:
        return
    try:
        act(carried)
    except Exception as error:  # noqa: BLE001 - kept, and raised before sampling
        carried.failed = error
        errors.report("Multipass failed between the host's steps", exc_info=True)
