"""What stands beside a plan's picture in its triptych: the first trajectory, rendered once more by each checkpoint
alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import errors, shared

from multipass import triptych
from multipass.hosts.webui import compat, hooks, refining
from multipass.hosts.webui.passes import Passes
from multipass.progress import Kind


def alone(passes: Passes) -> tuple[int, ...]:
    """The passes that the first trajectory is rendered with alone, too."""
    return triptych.alone(_told_of(passes), passes.titles()) if passes.plan.triptych else ()


def render(passes: Passes, sample: Callable[..., Any], noise: Any) -> None:
    """For the pictures' triptychs, if the plan asks for them: the first trajectory once more by each of its checkpoints
    alone.

    Afterwards the model that was in place, which has the picture still to decode, is there again. What goes wrong is
    told, and costs the triptych alone.

    Args:
        sample, noise: as ``refining.sampled_again`` takes them: what the trajectory was sampled by and from.
    """
    if not passes.plan.triptych:
        return
    p, indices = passes.p, alone(passes)
    here, placed, found = compat.loaded(), passes.placed, []
    try:
        for index in indices:
            if not (shared.state.interrupted or shared.state.skipped):
                _begin(passes, index)
                with hooks.before_each_evaluation(p, _stepping(passes)), passes.memo.installed():
                    latent = refining.sampled_again(p, sample, noise)
                found.append(refining.decoded(p, latent))
    except Exception as error:  # noqa: BLE001 - whatever it is, the plan's picture is still to be had
        errors.report("Multipass: a triptych failed", exc_info=True)
        p.comment(f"Multipass: no triptych: {type(error).__name__}: {error}")
    vars(p).update(passes.requested)
    passes.put_model(here, passes.vaes[placed] if here is passes.checkpoints[placed] else None)
    if shared.state.interrupted or shared.state.skipped:
        passes.record.stopped_before("the triptych")
    elif len(found) == len(indices):
        passes.record.keep_beside(found, triptych.labels(_told_of(passes), passes.titles()))


def _told_of(passes: Passes) -> list[int]:
    """The passes that a triptych tells of. An init image was encoded for the first trajectory."""
    is_img2img = getattr(passes.p, "init_images", None) is not None
    return [part.pass_index for part in (passes.laid[0] if is_img2img else passes.parts)]


def _begin(passes: Passes, index: int) -> None:
    shared.state.nextjob()
    passes.progress.doing_alone(Kind.LOAD, index)
    vars(passes.p).update(passes.own)
    passes.put(index)
    passes.condition(index, passes.conditioning.alone(index, passes.sizes))
    compat.merge_tokens(passes.p)
    passes.memo.renew()
    passes.progress.doing_alone(Kind.SAMPLE, index)


def _stepping(passes: Passes) -> Callable[..., bool]:
    def before_evaluation(denoiser: Any, *_: Any) -> bool:
        passes.progress.stepping(shared.state.sampling_step)
        passes.memo.before_evaluation(denoiser)
        return False

    return before_evaluation
