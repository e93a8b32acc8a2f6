"""The subjects of a batch's pictures: each found, and repainted by itself, by the whole of a trajectory."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from modules import shared
from PIL import Image

from multipass.hosts.webui import compat, heads, hooks, masks, pixels, refining, repainting, runs, scene, tasks
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.passes import Passes
from multipass.manifest import Through
from multipass.plan import OnMissing
from multipass.problems import PlanError, Problem
from multipass.progress import Kind
from multipass.schedule import starts_with
from multipass.subjects import Region


class Subjects:
    """Of one batch.

    Args:
        until_next_batch: is given what is to be as before then.

    Attributes:
        scene_is_done: whether the request's own inpainting is over.
    """

    def __init__(self, passes: Passes, until_next_batch: ExitStack) -> None:
        self._passes, self._until_next_batch = passes, until_next_batch
        self._finder = masks.Finder()
        self.scene_is_done = False

    def forget(self) -> None:
        """The pictures become others than what subjects were found in."""
        self._finder.forget()

    def finished(self, latent: Any, finished: list[Image.Image] | None, size: Size) -> list[Image.Image]:
        """The pictures that a subject pass begins with; the pass that has ended goes on record with them. From the
        first such pass on the request's own inpainting is over: a subject may be repainted outside of it.

        Args:
            latent: what the pass has left, where that are no pictures.
            finished: the pictures that it has left.
            size: of them.
        """
        p, record = self._passes.p, self._passes.record
        if finished is not None:
            record.keep_decoded(pixels.decoded_as(finished))
            return finished
        decoded = refining.decoded(p, latent)
        record.keep_decoded(decoded)
        if self.scene_is_done:
            return pixels.images_of(decoded)
        whole = scene.finished(p, latent, decoded, size)
        self._until_next_batch.enter_context(scene.inpainting_withdrawn(p))
        self.scene_is_done = True
        return whole

    def repainted(self, number: int, pictures: list[Image.Image], times: int) -> list[Image.Image]:
        """The same, each with its subjects repainted by the trajectory of that number, as far as that came when it was
        stopped; ``times`` as in ``refining.sampled``. Raises PlanError."""
        passes, record = self._passes, self._passes.record
        p, trajectory = passes.p, passes.trajectories[number]
        head, index = trajectory.head, trajectory.index
        if head.scale is not None:
            pictures = repainting.enlarged(pictures, head, passes.sizes[number])
            self.forget()
        if not heads.redraws(p, head):
            record.enlarged(passes.idle(index, compat.loaded(), through=Through.PIXELS), subjects=0)
            return pictures
        passes.progress.doing(Kind.FIND, index)
        region = Region.of(head)
        found = [self._finder.masks(place, picture, region) for place, picture in enumerate(pictures)]
        self._tell_found(number, [len(own) for own in found])
        if any(found):  # the steps that go on record
            passes.put(starts_with(passes.plan, number))  # the levels of noise are its
            passes.lay_out(number)
        passings = [passes.idle(part.pass_index, part=part, through=Through.PIXELS) for part in passes.laid[number]]
        painted = [*pictures]
        with heads.sampled_as(p, head, passes.sampled_sizes[number]), record.repainting(passings) as repaints:
            for place, own in enumerate(found):
                for mask in own:
                    if shared.state.interrupted or shared.state.skipped:
                        record.stopped_before(f"a subject of {passes.plan.label(index)}")
                        return painted
                    repaints.place = place
                    painted[place] = self._repaint(number, painted[place], mask, times=times, repaints=repaints)
        return painted

    def _repaint(
        self, number: int, picture: Image.Image, mask: Image.Image, *, times: int, repaints: runs.Repaints
    ) -> Image.Image:
        """One subject of one picture."""
        passes, p = self._passes, self._passes.p
        first = starts_with(passes.plan, number)
        shared.state.nextjob()
        passes.progress.doing(Kind.LOAD, first)
        passes.put(first)  # again: the subject before may have ended with another
        run = passes.lay_out(number)
        with self._of_one_picture(repaints.place), scene.controls_withdrawn(p):
            passes.enter(run.current)
            compat.merge_tokens(p)
            repaint = repainting.Repaint(p, picture, mask, Region.of(passes.trajectories[number].head))
            if repaint.mask is None:
                label = passes.plan.label(run.current.pass_index)
                p.comment(f"Multipass: {label}: blurred, the mask leaves nothing to repaint")
                return picture
            repaints.paste = repaint.pasted
            samples = passes.hold_over(run, functools.partial(repaint.sampled, times), Through.PIXELS)
            passes.check_that_all_ran(run)
            painted = repaint.pasted(samples)
        repaints.done(repaint.mask)
        return painted

    @contextmanager
    def _of_one_picture(self, place: int) -> Iterator[None]:
        """While this lasts, the request's batch, and what its texts are encoded to, is one of its pictures."""
        with repainting.alone(self._passes.p, place), hooks.replaced(self._passes, place=place):
            yield

    def _tell_found(self, number: int, counts: Sequence[int]) -> None:
        """How many subjects the pictures of the batch have. Raises PlanError where they must have one."""
        passes, p = self._passes, self._passes.p
        trajectory = passes.trajectories[number]
        missing = [place + 1 for place, count in enumerate(counts) if not count]
        if missing:
            of_batch = f" in picture {', '.join(map(str, missing))} of {len(counts)}" if len(counts) > 1 else ""
            told = f'nothing was found for "{trajectory.head.target}"{of_batch}'
            if trajectory.head.on_missing is OnMissing.ERROR:
                raise PlanError(Problem(f"passes[{trajectory.index}].target", told))
            p.comment(f"Multipass: {passes.plan.label(trajectory.index)}: {told}, so nothing was repainted")
        shared.state.job_count += sum(counts) - tasks.jobs(passes, trajectory)
        passes.progress.expect(number, sum(counts))
