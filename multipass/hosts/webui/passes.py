"""The passes of one request while it is rendered: what each has in place, and the switches between them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modules import shared

from multipass.hosts.webui import checkpoints, compat, heads, hooks, runs, sampling, settings
from multipass.hosts.webui.conditioning import Conditioning, Encoded
from multipass.hosts.webui.guidance import Guidance
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.memo import Remembering
from multipass.hosts.webui.models import Models
from multipass.hosts.webui.networks import Networks
from multipass.hosts.webui.progress import Progress
from multipass.hosts.webui.vaes import Vae
from multipass.manifest import Load, Source, Through
from multipass.masks import misshapen
from multipass.plan import PassKind, Plan
from multipass.problems import PlanError
from multipass.progress import TIMINGS_NAME, Kind
from multipass.run import PlanRun
from multipass.schedule import SamplingSteps, Segment, segments, starts_with

HIRES = "Hires fix"


def steps_of(p: Any, plan: Plan, number: int) -> SamplingSteps | None:
    """The steps of one of the plan's trajectories, for a request or one that is only looked at; ``None`` where the host
    cannot tell yet, and where a refine or subject pass runs none, because it only enlarges. Raises PlanError."""
    head, refines = plan.trajectories[number].head, number > 0
    if refines and not heads.redraws(p, head):
        return None
    own = heads.fields(p, head)
    return sampling.sampling_steps(p, own, head=plan.trajectories[number].index, refines=refines)


class Passes:
    """What is rendered, and by which model it is rendered just now: a request's plan, and what it takes to have a pass
    in place.

    Args:
        p: the request, as it came: what passes change of it is noted now.
        plan: already checked against this host.
        named: what the passes name, by index.
        announced: the steps of each trajectory, from ``steps_of``.
        setup_conds: the request's own, as its class has it.

    Attributes:
        trajectories: the plan's.
        laid: the segments of each trajectory, as far as they are known.
        first: the pass that the request begins with.
        last: the pass that the first trajectory ends with; as announced until ``settle``.
        checkpoints: by pass index; of a pass that names none, from ``settle`` on.
        vaes: by pass index; ``None`` for the checkpoint's or the host's.
        own: the fields of the request that are others while the first trajectory is sampled.
        requested: the request's fields that passes change, as it came with them.
        refiner_checkpoint: the request's, likewise.
        sizes: of each trajectory's picture, for the batch.
        sampled_sizes: the same of what its model sees.
        hires_ran: whether the host's hires fix was the last that was sampled.
        placed: the pass whose model is in place.
        place: of the batch's picture that is being rendered by itself, as a subject's is; ``None`` for all. May be set.
        failed: what went wrong in a hook, where the host would only have printed it. May be set.
        progress, memo, models, networks, conditioning: the request's.

    Raises:
        PlanError: where the plan does not fit the announced steps.
    """

    def __init__(
        self,
        p: Any,
        plan: Plan,
        named: Mapping[int, checkpoints.Named],
        announced: Sequence[SamplingSteps | None],
        setup_conds: Callable[[], None],
    ) -> None:
        self.p, self.plan, self.trajectories = p, plan, plan.trajectories
        self.laid: list[tuple[Segment, ...]] = [
            segments(plan, steps, number) if steps is not None else () for number, steps in enumerate(announced)
        ]
        parts = self.laid[0]  # and what follows is of the first trajectory, which the host samples
        self.first = parts[0].pass_index if parts else starts_with(plan)
        self.last = parts[-1].pass_index if parts else self.trajectories[0].passes[-1][0]
        self.checkpoints = {index: own.checkpoint for index, own in named.items() if own.checkpoint is not None}
        self.vaes = {index: own.vae for index, own in named.items()}
        self.own = heads.fields(p, self.trajectories[0].head)
        self.requested = {name: getattr(p, name) for name in ("cfg_scale", *self.own)}
        self.refiner_checkpoint = p.refiner_checkpoint
        self.sizes: tuple[Size, ...] = ()
        self.sampled_sizes: tuple[Size, ...] = ()
        self.hires_ran = False
        self.placed = self.first
        self.place: int | None = None
        self.failed: Exception | None = None
        self._settings_of = dict(plan.running)
        self._guidance = Guidance()
        self._record: runs.Run | None = None
        self.progress = Progress(settings.data_folder() / TIMINGS_NAME)
        self.memo = Remembering(self.progress.spared)
        self.models = Models(p)
        self.networks = Networks(p, self.models)
        self.conditioning = Conditioning(p, plan, self.networks, setup_conds)

    @property
    def parts(self) -> tuple[Segment, ...]:
        """What is sampled, in order, as far as it is known; steps are counted within each trajectory."""
        return tuple(part for parts in self.laid for part in parts)

    def settle(self) -> None:
        """The request's own model is in place: what only that could tell is known from now on. Raises PlanError."""
        for index, _ in self.plan.running:
            self.checkpoints.setdefault(index, compat.loaded())
        # again: the request's may be another than was foretold, if an extension chose it
        checkpoints.check_together(self.plan, self.checkpoints)
        self.put(self.first)
        for number, trajectory in enumerate(self.trajectories):
            if not self.laid[number] and (number == 0 or heads.redraws(self.p, trajectory.head)):
                self.lay_out(number)
        self.last = self.laid[0][-1].pass_index

    def titles(self) -> dict[int, str]:
        """Of the checkpoints, by pass index. A pass that gets no step is not loaded, nor its file hashed to be
        named."""
        running = {self.first, *(part.pass_index for part in self.parts)}
        return {index: checkpoints.title(info) for index, info in self.checkpoints.items() if index in running}

    # --- on record ---------------------------------------------------------------------------------------------------

    def begin(self, record: runs.Run) -> None:
        """From now on what the passes do goes on record."""
        self._record = record

    @property
    def has_begun(self) -> bool:
        """Whether there is a record."""
        return self._record is not None

    @property
    def record(self) -> runs.Run:
        """Of the request, which has begun."""
        assert self._record is not None
        return self._record

    def idle(
        self, index: int, info: Any = None, *, part: Segment | None = None, through: Through | None = None
    ) -> runs.Passing:
        """A pass that nothing is loaded for. ``info``: of the checkpoint that is in place, if it is not its own."""
        kind = "first" if index == self.plan.running[0][0] else (self._settings_of[index].kind or PassKind.SWITCH).value
        load = Load(Source.RESIDENT, 0.0)
        return runs.Passing(self.plan.label(index), kind, info or self.checkpoints[index], load, part, through)

    def _passing(self, part: Segment, through: Through | None = None) -> runs.Passing:
        load = self.models.took(self.checkpoints[part.pass_index])
        return self.idle(part.pass_index, part=part, through=through)._replace(load=load)

    def _hires_pass(self) -> runs.Passing:
        info = compat.loaded()
        return runs.Passing(HIRES, "hires", info, self.models.took(info))

    # --- what is in place --------------------------------------------------------------------------------------------

    def enter(self, part: Segment) -> None:
        """Put the pass's weights, extra networks and conditioning in place, in this order."""
        index = part.pass_index
        self.progress.doing(Kind.LOAD, index)
        self.put(index)
        self.condition(index, self.conditioning.of(index, self.sampled_sizes))
        self.read_ahead(part)

    def put(self, index: int) -> None:
        """A pass's checkpoint and VAE."""
        self.placed = index
        self.put_model(self.checkpoints[index], self.vaes[index])

    def put_model(self, info: Any, vae: Vae | None) -> None:
        """The same, whosever they are."""
        if not self.models.put(info, vae):
            self.networks.forget()
            # not None: so ControlNet knows of a change in the middle, and patches the UNet anew for every picture
            self.p.refiner_checkpoint = self.refiner_checkpoint or ""

    def condition(self, index: int, encoded: Encoded) -> None:
        """A pass's texts, by the model that is in place."""
        p = self.p
        self.networks.activate(encoded.networks)
        if self.place is not None:
            encoded = encoded.of_picture(self.place)
        p.c, p.uc = encoded.c, encoded.uc
        compat.tell_controlnet(p)
        p.cfg_scale = self.scale_of(index)

    def scale_of(self, index: int) -> float:
        """The pass's CFG scale. While it holds it is also the request's: the host reads it there for the hires pass."""
        own = self._settings_of[index].cfg_scale
        return self.requested["cfg_scale"] if own is None else own

    def read_ahead(self, part: Segment) -> None:
        """The checkpoint of the pass after this one; after the last, of the first, for the next picture."""
        later = self.parts[self.parts.index(part) + 1 :]
        if later or getattr(self.p, "iteration", 0) + 1 < self.p.n_iter:
            index = later[0].pass_index if later else self.first
            self.models.read_ahead(self.checkpoints[index], self.vaes[index])

    # --- a trajectory ------------------------------------------------------------------------------------------------

    def lay_out_sizes(self) -> None:
        """Of the pictures of the batch that begins, and of what is sampled. Raises PlanError for masks of another
        shape."""
        p = self.p
        self.sizes = heads.sizes(self.plan, heads.first_size(p), heads.pasted_size(p))
        problems = list(misshapen(self.plan, self.sizes))
        if problems:
            raise PlanError(*problems)
        families = {index: checkpoints.family(info) for index, info in self.checkpoints.items()}
        self.sampled_sizes = heads.sampled_sizes(self.plan, self.sizes, families)

    def lay_out(self, number: int) -> PlanRun:
        """The plan over the steps of the trajectory that is about to be sampled. Raises PlanError where it does not fit
        them, and what went wrong in an earlier hook."""
        if self.failed is not None:
            raise self.failed
        steps = steps_of(self.p, self.plan, number)
        assert steps is not None, "the host has a model by now"
        self.laid[number] = segments(self.plan, steps, number)
        return PlanRun(self.laid[number], steps)

    def hold_over(self, run: PlanRun, sample: Callable[[], Any], through: Through | None = None) -> Any:
        """What ``sample`` returns, while the trajectory's switches happen in it; ``through`` is how it began."""
        ask, sampled = functools.partial(self._before_evaluation, run), functools.partial(self._sampled, run, through)
        with (
            hooks.before_each_evaluation(self.p, ask),
            hooks.around_each_sampling(self.p, sampled),
            self._guidance.installed(),
            self.memo.installed(),
        ):
            return sample()

    def check_that_all_ran(self, run: PlanRun) -> None:
        """Raises RuntimeError if the trajectory ended, by nobody's wish, before its last pass began."""
        stopped = shared.state.interrupted or shared.state.skipped or shared.state.stopping_generation
        if not stopped and run.current != run.last:
            raise RuntimeError(f"{self.p.sampler_name} ended before {self.plan.label(run.last.pass_index)} began")

    def _sampled(self, run: PlanRun, through: Through | None, sampler: Any, sample: Callable[[], Any]) -> Any:
        """In place of ``sample()``, for the trajectory and for the host's hires pass: the same, on record."""
        p, record = self.p, self.record
        is_hires = getattr(p, "is_hr_pass", False)
        self.memo.renew()
        with record.watching(sampler.model_wrap_cfg, None if is_hires else run.steps, self.memo.was_spared):
            self.hires_ran = is_hires
            record.begin_pass(self._hires_pass() if is_hires else self._passing(run.current, through))
            self.progress.doing(Kind.SAMPLE, None if is_hires else run.current.pass_index)
            samples = sample()
        enlarges_latents = getattr(p, "enable_hr", False) and p.latent_scale_mode is not None
        if not is_hires and enlarges_latents and not shared.state.interrupted:
            record.keep_latents(samples)  # which else the host decodes
        return samples

    def _before_evaluation(self, run: PlanRun, denoiser: Any, noise_level_or_x: Any = None, *_: Any) -> bool:
        """Whether the conditioning changed. The argument is the host's: a sigma in A1111, x in Forge."""
        switched = self._switch_if_due(run, denoiser, noise_level_or_x)
        if switched:
            self.memo.renew()
        self.memo.before_evaluation(denoiser)
        return switched

    def _switch_if_due(self, run: PlanRun, denoiser: Any, noise_level_or_x: Any) -> bool:
        self._guidance.settle()
        if getattr(self.p, "is_hr_pass", False):
            self.progress.stepping(shared.state.sampling_step)
            return False
        self.progress.stepping(run.steps.step_of(denoiser.step) - run.current.first_step)
        upcoming = run.before_evaluation(denoiser.step)
        if upcoming is None:
            return False
        self.progress.pause()
        self.record.switch()
        with compat.swapping(noise_level_or_x):
            self.enter(upcoming)
            denoiser.update_inner_model()
        self.record.begin_pass(self._passing(upcoming))
        self.progress.doing(Kind.SAMPLE, upcoming.pass_index)
        self._guidance.change(denoiser, self.p.cfg_scale)
        return True
