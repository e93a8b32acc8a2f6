"""The trajectories after the first: what was sampled is enlarged and sampled again, whole or a subject of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from modules import shared
from PIL import Image

from multipass.hosts.webui import checkpoints, compat, heads, hooks, pixels, refining
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.passes import Passes
from multipass.hosts.webui.subjects import Subjects
from multipass.manifest import Through
from multipass.plan import PassKind
from multipass.progress import Kind
from multipass.schedule import starts_with


def sampled(passes: Passes, latent: Any, beside: Callable[[], None], until_next_batch: ExitStack) -> Any:
    """What the first trajectory of a batch left, as the last one leaves it, or as far as it came when it was stopped: a
    latent or, behind a subject pass, what the host need not decode.

    Args:
        beside: renders what stands beside the first trajectory's pictures in a triptych; called as late as may be.
        until_next_batch: is given what is to be as before then.
    """
    subjects = Subjects(passes, until_next_batch)
    p = passes.p
    times, size = int(getattr(p, "enable_hr", False)), Size(p.width, p.height)
    finished: list[Image.Image] | None = None  # instead of the latent, behind a subject pass
    if times:
        passes.networks.forget()  # the host has activated those of its hires fix
    for number, trajectory in enumerate(passes.trajectories[1:], start=1):
        if shared.state.interrupted or shared.state.skipped:
            passes.record.stopped_before(passes.plan.label(trajectory.index))
            break
        head = trajectory.head
        if head.kind is PassKind.SUBJECT:
            beside()  # while the request's own inpainting still acts
            finished = subjects.finished(latent, finished, size)
            finished = subjects.repainted(number, finished, times)
            size, latent = passes.sizes[number], None
        else:
            size = passes.sizes[number]
            subjects.forget()
            pictures = _handed_over(passes, number, latent, finished)
            with heads.sampled_as(p, head, size):
                sample = _redrawn if heads.redraws(p, head) else _enlarged
                latent, finished = sample(passes, number, latent, pictures, times), None
            if not refining.enlarges_pixels(head):
                size = size.cut
        times += heads.redraws(p, head)
    beside()
    if finished is not None:
        return pixels.already_decoded(finished)
    if not subjects.scene_is_done:
        until_next_batch.enter_context(hooks.replaced(p, **refining.overlays(p, size)))
    return latent


def _handed_over(passes: Passes, number: int, latent: Any, finished: Sequence[Image.Image] | None) -> Any:
    """The pictures, decoded, if the trajectory begins with them, else ``None``. The pass that has ended goes on
    record with them. ``finished`` are those that subjects were repainted in, for which there is no latent."""
    if finished is not None:
        pictures = pixels.decoded_as(finished)
        passes.record.keep_decoded(pictures)
        return pictures
    first, head = starts_with(passes.plan, number), passes.trajectories[number].head
    crosses = heads.redraws(passes.p, head) and _takes_other_latents(passes, first)
    if not crosses and not refining.enlarges_pixels(head):
        passes.record.keep_latents(latent)
        return None
    pictures = refining.decoded(passes.p, latent)
    passes.record.keep_decoded(pictures)
    return pictures


def _redrawn(passes: Passes, number: int, latent: Any, pictures: Any, times: int) -> Any:
    """The latent, or the pictures where they are given, enlarged for the trajectory, and sampled by it."""
    p = passes.p
    head, first = passes.trajectories[number].head, starts_with(passes.plan, number)
    shared.state.nextjob()
    passes.progress.doing(Kind.LOAD, first)
    passes.put(first)  # the levels of noise are its
    run = passes.lay_out(number)
    passes.put(run.current.pass_index)
    passes.progress.doing(Kind.UPSCALE, run.current.pass_index)
    latent, pictures = refining.enlarged(p, latent, pictures, head, passes.sizes[number])
    # not earlier: networks that are read draw from the generator that the encoding of a picture draws from
    passes.enter(run.current)
    compat.merge_tokens(p)
    sample = functools.partial(refining.sampled, p, latent, pictures, times)
    samples = passes.hold_over(run, sample, _through(pictures))
    passes.check_that_all_ran(run)
    return samples


def _enlarged(passes: Passes, number: int, latent: Any, pictures: Any, _: int) -> Any:
    """The same by the model that is in place, on record without a step: a pass that samples nothing is none to be
    loaded for."""
    trajectory = passes.trajectories[number]
    enlarged = refining.enlarged(passes.p, latent, pictures, trajectory.head, passes.sizes[number])[0]
    passes.record.enlarged(passes.idle(trajectory.index, compat.loaded(), through=_through(pictures)))
    return enlarged


def _takes_other_latents(passes: Passes, index: int) -> bool:
    """Whether the pass's checkpoint cannot read what the one in place has made; if so, it is told."""
    before, here = compat.loaded(), passes.checkpoints[index]
    one, other = checkpoints.latents(before), checkpoints.latents(here)
    if one is None or other is None or one is other:
        return False
    way = f"from {before.name_for_extra} ({one.value}) to {here.name_for_extra} ({other.value})"
    passes.p.comment(f"Multipass: {way} the picture was decoded and encoded again")
    return True


def _through(pictures: Any) -> Through:
    """As what a refine pass is given the picture before, by what ``_handed_over`` gave."""
    return Through.LATENT if pictures is None else Through.PIXELS
