"""The script's hooks: read the arguments, refuse or attach, and never fail in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modules import errors, shared

from multipass.hosts.webui import architecture, attached, checkpoints, compat, heads, hooks, masks, rendering, xyz
from multipass.hosts.webui.conditioning import first_texts
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.passes import steps_of
from multipass.hosts.webui.rendering import Rendering
from multipass.masks import misshapen
from multipass.plan import Pass, Plan, decode
from multipass.problems import PlanError, Problem
from multipass.prompts import expanded


def before_process(p: Any, enabled: object = False, plan: object = None) -> None:
    """Attach the plan to the request, or refuse the request with the reason, or, without a plan, touch nothing."""
    if _is_inside_another(p):
        return
    try:
        is_cell = xyz.is_cell(p)
        decoded = read_arguments(enabled, plan, always=is_cell)
        rendering.end_what_is_left(of_this_task_too=decoded is not None or is_cell)
        if is_cell:
            decoded = xyz.plan_of_cell(p, decoded, check)
        if decoded is not None:
            check(p, decoded).attach()
    except PlanError as error:
        hooks.refuse(p, xyz.stop_after(p, hooks.Refused(error)))
    except Exception as error:  # noqa: BLE001 - the host would print it and render without us
        errors.report("Multipass failed before the picture was begun", exc_info=True)
        hooks.refuse(p, xyz.stop_after(p, error))


def process(p: Any) -> None:
    """The request's texts are set up."""
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


def read_arguments(enabled: object, plan: object, *, always: bool = False) -> Plan | None:
    """The plan of ``args: [enabled, plan]`` or ``args: [plan]``; ``None`` for off, unless it is ``always`` on, and
    where there is none.

    Raises:
        PlanError: if there is something and it is not a plan.
    """
    if not isinstance(enabled, bool) and enabled is not None:
        enabled, plan = True, enabled
    if not (enabled or always) or plan is None or plan == "":
        return None
    return decode(plan)


def check(p: Any, plan: Plan) -> Rendering:
    """Everything that can be known before anything is loaded. Raises PlanError."""
    texts = first_texts(p)
    plan = expanded(plan, texts.prompt, texts.negative_prompt)
    problems = [
        problem for index, own in enumerate(plan.passes) if own.enabled for problem in _not_yet(f"passes[{index}]", own)
    ]
    if getattr(p, "refiner_checkpoint", None) not in (None, "", "None", "none"):
        reason = "the built-in Refiner is on too; turn it off, a plan replaces it"
        problems.append(Problem("refiner_checkpoint", reason))
    problems += heads.problems(p, plan)
    if problems:
        raise PlanError(*problems)
    plan = masks.normalised(plan)
    problems = list(masks.too_long(p, plan, texts, is_plotted=xyz.is_cell(p)))
    if problems:
        raise PlanError(*problems)
    if heads.knows_sizes(p):
        problems = list(misshapen(plan, heads.sizes(plan, Size(p.width, p.height))))
        if problems:
            raise PlanError(*problems)
    named = checkpoints.resolve_all(plan)
    infos = checkpoints_of(p, named)
    checkpoints.check_together(plan, infos)
    problems = list(heads.between_latent_spaces(plan, infos))
    if problems:
        raise PlanError(*problems)
    if plan.request is not None:
        p.comment("Multipass: the plan's `request` is for the multipass command and was not used here")
    with compat.scheduled_for(p):
        steps = [steps_of(p, plan, number) for number in range(len(plan.trajectories))]
    return Rendering(p, plan, named, steps)


def checkpoints_of(p: Any, named: Mapping[int, checkpoints.Named]) -> dict[int, Any]:
    """The ``CheckpointInfo`` of each running pass, as far as it can be told before the request begins."""
    of_request = compat.of_request(p)
    infos = {index: own.checkpoint or of_request for index, own in named.items()}
    return {index: info for index, info in infos.items() if info is not None}


def _not_yet(place: str, own: Pass) -> list[Problem]:
    """What the format knows and this host adapter does not do; said, never skipped in silence."""
    problems: list[Problem] = []
    if own.vae is not None and not architecture.suits(shared.sd_model):
        kept = "this webui cannot change it with the pass (the Forge family, --lowvram, --medvram, fp8, an SD Unet)"
        problems.append(Problem(f"{place}.vae", kept))
    return problems


def _is_inside_another(p: Any) -> bool:
    """Whether ``p`` is what something (ADetailer, say) renders in the middle of an attached request.

    Such a picture is not the plan's. A copy made from a request that has ended, or a request that is rendered again
    (loopback), is a request like any other.
    """
    carried = attached.of(p)
    if carried is not None and carried.p is p:
        carried.end()
    elif rendering.is_under_way() or (carried is not None and not carried.ended):
        return True
    if carried is not None:
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
        carried.fail(error)
        errors.report("Multipass failed between the host's steps", exc_info=True)
