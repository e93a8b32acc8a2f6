"""What the batches of a request consist of, for the host's bar."""

from __future__ import annotations

from multipass.hosts.webui import checkpoints, heads, triptych
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.passes import HIRES, Passes
from multipass.plan import PassKind, Trajectory
from multipass.progress import Batch, Kind, Task, batch


def of_batch(passes: Passes) -> Batch:
    """The tasks of the batch that begins; its sizes and parts are known."""
    p = passes.p
    sampled = [Size(p.width, p.height), *passes.sampled_sizes[1:]]
    pixels = [
        size.width * size.height * (1 if own.head.kind is PassKind.SUBJECT else p.batch_size)
        for size, own in zip(sampled, passes.trajectories, strict=True)
    ]
    sampler_of = {
        index: own.head.sampler_name or p.sampler_name for own in passes.trajectories for index, _ in own.passes
    }
    subjects = {index: f"{title} {sampler_of[index]}" for index, title in passes.titles().items()}
    return batch(
        passes.plan,
        passes.laid,
        pixels,
        subjects,
        hires=_hires(passes),
        pictures=p.batch_size,
        alone=triptych.alone(passes),
    )


def jobs_of_batch(passes: Passes) -> int:
    """How many samplings of a batch there are beside the host's own, as far as that is known beforehand."""
    return sum(jobs(passes, own) for own in passes.trajectories[1:]) + len(triptych.alone(passes))


def jobs(passes: Passes, trajectory: Trajectory) -> int:
    """The same of one of the trajectories after the first: of one subject in each picture."""
    if not heads.redraws(passes.p, trajectory.head):
        return 0
    return passes.p.batch_size if trajectory.head.kind is PassKind.SUBJECT else 1


def _hires(passes: Passes) -> Task | None:
    p = passes.p
    if not getattr(p, "enable_hr", False):
        return None
    info = p.hr_checkpoint_info or passes.checkpoints[passes.last]
    subject = f"{checkpoints.title(info)} {getattr(p, 'hr_sampler_name', None) or p.sampler_name}"
    pixels = passes.sizes[0].width * passes.sizes[0].height * p.batch_size
    return Task(Kind.SAMPLE, 0, HIRES, subject, p.hr_second_pass_steps or p.steps, pixels)
