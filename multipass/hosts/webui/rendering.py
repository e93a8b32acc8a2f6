"""One request with a plan, from ``before_process`` until it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from modules import shared

from multipass.hosts.webui import attached, checkpoints, compat, heads, hooks, refining, runs, sampling, settings
from multipass.hosts.webui.conditioning import CLIP_SKIP, Conditioning, texts_of
from multipass.hosts.webui.guidance import Guidance
from multipass.hosts.webui.heads import Size
from multipass.hosts.webui.models import Models
from multipass.hosts.webui.networks import Networks
from multipass.hosts.webui.progress import Progress
from multipass.infotext import as_run, infotext_values
from multipass.manifest import Load, Source, Through
from multipass.plan import PassKind, Plan
from multipass.problems import PlanError
from multipass.progress import TIMINGS_NAME, Batch, Kind, Task, batch
from multipass.run import PlanRun
from multipass.schedule import SamplingSteps, Segment, segments, starts_with

_ABSENT = hooks.ABSENT
_HIRES = "Hires fix"
_attached: list[Rendering] = []  # and not ended


def end_what_is_left(*, of_this_task_too: bool) -> None:
    """End what failed where nobody closes it: a copy of a request, when its picture is decoded, say.

    That has happened if the host's next task begins, or if in the same task a plan begins, because none does inside
    another.
    """
    for rendering in [*reversed(_attached)]:
        if of_this_task_too or rendering.task != shared.state.time_start:
            rendering.end(RuntimeError("it ended in the webui, whose log tells why"))
            # should it be alive after all, it must not go on without its plan
            hooks.stop(rendering.p, RuntimeError("Multipass: another plan began while this request was rendered"))


def steps_of(p: Any, plan: Plan, number: int) -> SamplingSteps | None:
    """The steps of one of the plan's trajectories, for a request or one that is only looked at; ``None`` where the host
    cannot tell yet, and where a refine pass runs none, because it only enlarges. Raises PlanError."""
    head, refines = plan.trajectories[number].head, number > 0
    if refines and not heads.redraws(p, head):
        return None
    own = heads.fields(p, head)
    return sampling.sampling_steps(p, own, head=plan.trajectories[number].index, refines=refines)


class Rendering:
    """What multipass knows and does while the host renders one request.

    A copy of the request, as other extensions make them, carries this along; only ``p`` itself is rendered by the plan.

    Args:
        p: the request; unchanged until ``attach``.
        plan: already checked against this host.
        named: what the passes name, by index.
        announced: the steps of each trajectory, from ``steps_of``.

    Raises:
        PlanError: where the plan does not fit the announced steps.
    """

    def __init__(
        self, p: Any, plan: Plan, named: Mapping[int, checkpoints.Named], announced: Sequence[SamplingSteps | None]
    ) -> None:
        self.p = p
        self.plan = plan
        self._laid: list[tuple[Segment, ...]] = [
            segments(plan, steps, number) if steps is not None else () for number, steps in enumerate(announced)
        ]
        self.failed: Exception | None = None
        self.task = shared.state.time_start  # the host's own note of when the task began that the request belongs to
        self.ended = False
        self._sampling = self._hires_ran = False
        self._trajectories = plan.trajectories
        parts = self._laid[0]  # and what follows is of the first trajectory, which the host samples
        self._first = parts[0].pass_index if parts else starts_with(plan)
        self._last = parts[-1].pass_index if parts else self._trajectories[0].passes[-1][0]
        self._checkpoints = {index: own.checkpoint for index, own in named.items() if own.checkpoint is not None}
        self._vaes = {index: own.vae for index, own in named.items()}
        self._settings_of = dict(plan.running)
        self._number_of = {index: n for n, own in enumerate(self._trajectories) for index, _ in own.passes}
        self._until_next_batch = ExitStack()
        self._guidance = Guidance()
        self._models = Models(p)
        self._record: runs.Run | None = None
        self._progress = Progress(settings.data_folder() / TIMINGS_NAME)
        self._batch: Batch | None = None
        self._networks = Networks(p, self._models)
        self._conditioning = Conditioning(p, plan, self._networks, self._set_up_conds)

    @property
    def parts(self) -> tuple[Segment, ...]:
        """What is sampled, in order, as far as it is known; steps are counted within each trajectory."""
        return tuple(part for parts in self._laid for part in parts)

    # --- in the order in which the host calls ------------------------------------------------------------------------

    def attach(self) -> None:
        """From ``before_process``: from now on the request's methods below are ours, its class's after that.

        The first pass's checkpoint and clip skip go the host's own way, so that all of the request (an init image's
        encoding included) sees them.
        """
        p = self.p
        self._overrides, self._hires_texts_given = p.override_settings, _hires_texts(p)
        self._refiner_checkpoint = p.refiner_checkpoint
        self._own = heads.fields(p, self._trajectories[0].head)
        self._requested = {name: getattr(p, name) for name in ("cfg_scale", *self._own)}
        vars(p).update(self._own)
        first = self._settings_of[self._first]
        ours: dict[str, Any] = {}
        if self._first in self._checkpoints:
            ours["sd_model_checkpoint"] = self._checkpoints[self._first].title
        if first.clip_skip is not None:
            ours[CLIP_SKIP] = first.clip_skip
        # what these are afterwards: the request's where it says that its overrides stay
        self._ours, self._options = ours, {name: shared.opts.data.get(name, _ABSENT) for name in ours}
        if not p.override_settings_restore_afterwards:
            self._options |= {name: p.override_settings[name] for name in ours if name in p.override_settings}
        p.override_settings = hooks.WithOurs(p.override_settings, ours)
        self._class, self._sample_before = type(p), vars(p).pop("sample", None)
        p.__class__ = attached.planned(self._class)
        attached.carry(p, self)
        _attached.append(self)
        self._models.serve()

    def begin(self) -> None:
        """From ``process``: the first pass's model is in place and the request's texts have their styles."""
        p = self.p
        for index, _ in self.plan.running:
            self._checkpoints.setdefault(index, compat.loaded())
        # again: the request's may be another than was foretold, if an extension chose it
        checkpoints.check_together(self.plan, self._checkpoints)
        self._put(self._first)
        for number, trajectory in enumerate(self._trajectories):  # what could not be told before there was a model
            if not self._laid[number] and (number == 0 or heads.redraws(p, trajectory.head)):
                self._lay_out(number)
        self._last = self._laid[0][-1].pass_index
        self._write_infotext()
        self._record = runs.Run(p, self._as_run(), {**runs.said_by(p), **self._requested})
        if getattr(p, "enable_hr", False):
            texts = texts_of(self.plan, p.all_prompts, p.all_negative_prompts)[self._last]
            prompt_given, negative_given = self._hires_texts_given
            if not prompt_given:
                p.all_hr_prompts = [text.prompt for text in texts]
            if not negative_given:
                p.all_hr_negative_prompts = [text.negative_prompt for text in texts]

    def begin_batch(self) -> None:
        """From ``before_process_batch``: the host is about to encode the first pass's texts by itself.

        ``p.all_prompts``, which the picture's text is written from, stays the request's.
        """
        p = self.p
        self._until_next_batch.close()
        vars(p).update(self._own)
        if "denoising_strength" in self._own:  # told by the host when it began, of what the first pass has
            p.extra_generation_params["Denoising strength"] = self._requested["denoising_strength"]
        if self._own:
            heads.tell_seed_delta(p)
        if not getattr(p, "iteration", 0):
            shared.state.job_count += p.n_iter * sum(heads.redraws(p, own.head) for own in self._trajectories[1:])
        self._put(self._first)  # somebody may have chosen another checkpoint for the next picture meanwhile
        self._conditioning.begin_batch(p.prompts, p.negative_prompts)
        p.prompts, p.negative_prompts = self._conditioning.texts(self._first)
        p.cfg_scale = self._scale_of(self._first)
        compat.apply_tiling(p)  # a model that was put down is as it was built
        if self._checkpoints[self._last].filename != self._checkpoints[self._first].filename:
            self._until_next_batch.callback(setattr, p, "hr_checkpoint_info", getattr(p, "hr_checkpoint_info", None))
            compat.keep_for_hires(p, self._checkpoints[self._last])

    def setup_conds(self) -> None:
        """In place of ``p.setup_conds``: the texts of all passes that the live module can hold, the first's last.

        A pass that takes another module is encoded when it begins: building modules to and fro would cost more.
        """
        p = self.p
        self._networks.are(p.extra_network_data)
        try:
            if self.failed is None and not getattr(p, "is_hr_pass", False):
                self._sizes = heads.sizes(self.plan, heads.first_size(p))
                self._lay_out_progress()
                for part in self.parts[1:]:
                    if shared.state.interrupted:
                        break
                    index = part.pass_index
                    self._doing(Kind.ENCODE, index)
                    if self._models.put_in_place(self._checkpoints[index], self._vaes[index], unet=False):
                        self._conditioning.encode(index, self._sizes)
                self._put(self._first)
                self._networks.activate(p.extra_network_data)
            self.plain(p, "setup_conds")()
        except BaseException as error:
            self.end(error)
            raise

    @property
    def may_sample(self) -> bool:
        """Whether the request is about to be sampled by the plan, not within that or after it: one that is rendered
        again (loopback) carries others' wrappers of ``sample``, which call it once more."""
        return not self._sampling and not self.ended

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """In place of ``p.sample``: the same, with the plan held over it, and then the trajectories after the first."""
        original = self._sample_before or functools.partial(self._class.sample, self.p)
        self._sampling, began_with = True, shared.sd_model
        hires_goes_on = refining.hires_returns_its_latent(self.p) if len(self._trajectories) > 1 else nullcontext()
        try:
            run = self._lay_out(0)
            if run.current.pass_index != self._first:  # a sigma that turned out to be reached at once
                self._enter(run.current)
                kwargs["conditioning"], kwargs["unconditional_conditioning"] = self.p.get_conds()
            self._read_ahead(run.current)
            with hires_goes_on:
                samples = self._hold_over(run, functools.partial(original, *args, **kwargs))
            if getattr(self.p, "enable_hr", False) and not self._hires_ran and self._record is not None:
                self._record.stopped_before(_HIRES)
            if getattr(self.p, "firstpass_image", None) is None:  # else the host only upscaled a given picture
                self._check_that_all_ran(run)
            vars(self.p).update(self._requested)
            samples = self._refined(samples)
        except PlanError as error:
            self.end(error)
            raise hooks.Refused(str(error)) from None
        except BaseException as error:
            self.end(error)
            raise
        finally:
            self._sampling = False
            compat.restore_schedule(began_with)
        self._doing(Kind.DECODE, None)
        vars(self.p).update(self._requested)  # which the picture's text tells
        if "sampler_name" in self._own:
            self.p.extra_generation_params.pop("Schedule type", None)
        self._networks.note_hashes()  # after those of the hires pass
        self._write_infotext()
        return samples

    def end_batch(self, pictures: Any) -> None:
        """From ``postprocess_batch``: the host has decoded what the last pass gave."""
        if self._record is not None:
            self._record.finished(pictures)

    def finish(self, processed: Any) -> None:
        """From ``postprocess``: all pictures are done, as ``processed`` tells."""
        self.end(self.failed)
        if self._record is not None:
            self._record.tell(processed)

    def end(self, error: BaseException | None = None) -> None:
        """From ``postprocess``, from ``close`` and, with the error, where something fails: the host is as before the
        request."""
        if self.ended:
            return
        self.ended = True
        _attached.remove(self)
        with ExitStack() as whatever_happens:  # in the reverse order
            if self._record is not None:
                whatever_happens.callback(self._record.end, error)
            whatever_happens.callback(self._progress.end)
            whatever_happens.callback(self._conditioning.forget)
            whatever_happens.callback(self._models.end)
            whatever_happens.callback(self._until_next_batch.close)
            self._put_back()

    def _put_back(self) -> None:
        p = self.p
        p.__class__ = self._class
        p.override_settings = self._overrides
        p.refiner_checkpoint = self._refiner_checkpoint
        vars(p).update(self._requested)
        if self._sample_before is not None:
            p.sample = self._sample_before
        for name, value in self._options.items():
            if self._is_ours(name):  # else somebody has chosen another meanwhile: it stays
                hooks.put_back(shared.opts.data, {name: value})

    def _is_ours(self, option: str) -> bool:
        value = shared.opts.data.get(option, _ABSENT)
        if option == "sd_model_checkpoint":  # whose title the host completes once it has hashed the file
            return checkpoints.same(value, self._ours[option])
        return value == self._ours[option]

    def plain(self, copy_of_p: Any, method: str) -> Any:
        """A method of a copy, as its class had it."""
        return functools.partial(getattr(self._class, method), copy_of_p)

    def _set_up_conds(self) -> None:
        self.plain(self.p, "setup_conds")()

    def let_go(self, copy_of_p: Any) -> None:
        """Make a copy that was made while this was attached a plain request again."""
        copy_of_p.__class__ = self._class
        attached.drop(copy_of_p)

    # --- the trajectories after the first ----------------------------------------------------------------------------

    def _refined(self, latent: Any) -> Any:
        """What the first trajectory left, as the last one leaves it, or as far as it came when it was stopped."""
        p = self.p
        times, size = int(getattr(p, "enable_hr", False)), Size(p.width, p.height)
        if times:
            self._networks.forget()  # the host has activated those of its hires fix
        assert self._record is not None
        for number, trajectory in enumerate(self._trajectories[1:], start=1):
            if shared.state.interrupted or shared.state.skipped:
                self._record.stopped_before(self.plan.label(trajectory.index))
                break
            size, head = self._sizes[number], trajectory.head
            pictures = self._handed_over(number, latent)
            with heads.sampled_as(p, head, size):
                if heads.redraws(p, head):
                    latent = self._redrawn(number, latent, pictures, times)
                    times += 1
                else:
                    latent = self._enlarged(number, latent, pictures)
            if not refining.enlarges_pixels(head):
                size = size.cut
        self._until_next_batch.enter_context(hooks.replaced(p, **refining.overlays(p, size)))
        return latent

    def _handed_over(self, number: int, latent: Any) -> Any:
        """The pictures, decoded, if one of the trajectories after the first begins with them, else ``None``. The pass
        that has ended goes on record with them."""
        assert self._record is not None
        first, head = starts_with(self.plan, number), self._trajectories[number].head
        crosses = heads.redraws(self.p, head) and self._takes_other_latents(first)
        if not crosses and not refining.enlarges_pixels(head):
            self._record.keep_latents(latent)
            return None
        pictures = refining.decoded(self.p, latent)
        self._record.keep_decoded(pictures)
        return pictures

    def _redrawn(self, number: int, latent: Any, pictures: Any, times: int) -> Any:
        """The latent, or the pictures where they are given, enlarged for one of the trajectories after the first, and
        sampled by it."""
        p, head, size = self.p, self._trajectories[number].head, self._sizes[number]
        first = starts_with(self.plan, number)
        shared.state.nextjob()
        self._doing(Kind.LOAD, first)
        self._put(first)  # the levels of noise are its
        run = self._lay_out(number)
        self._put(run.current.pass_index)
        self._doing(Kind.UPSCALE, run.current.pass_index)
        if pictures is None:
            latent = refining.enlarged_latent(latent, head, size)
        else:
            latent, pictures = refining.encoded(p, pictures, head, size)
        # not earlier: networks that are read draw from the generator that the encoding of a picture draws from
        self._enter(run.current)
        compat.merge_tokens(p)
        sample = functools.partial(refining.sampled, p, latent, pictures, times)
        samples = self._hold_over(run, sample, _through(pictures))
        self._check_that_all_ran(run)
        return samples

    def _enlarged(self, number: int, latent: Any, pictures: Any) -> Any:
        """The same by the model that is in place, on record without a step: a pass that samples nothing is none to be
        loaded for."""
        assert self._record is not None
        trajectory, size = self._trajectories[number], self._sizes[number]
        if pictures is None:
            enlarged = refining.enlarged_latent(latent, trajectory.head, size)
        else:
            enlarged, _ = refining.encoded(self.p, pictures, trajectory.head, size)
        name, load = self.plan.label(trajectory.index), Load(Source.RESIDENT, 0.0)
        self._record.enlarged(
            runs.Passing(name, PassKind.REFINE.value, compat.loaded(), load, through=_through(pictures))
        )
        return enlarged

    def _takes_other_latents(self, index: int) -> bool:
        """Whether the pass's checkpoint cannot read what the one in place has made; if so, it is told."""
        before, here = compat.loaded(), self._checkpoints[index]
        one, other = checkpoints.latents(before), checkpoints.latents(here)
        if one is None or other is None or one is other:
            return False
        way = f"from {before.name_for_extra} ({one.value}) to {here.name_for_extra} ({other.value})"
        self.p.comment(f"Multipass: {way} the picture was decoded and encoded again")
        return True

    # --- the switch --------------------------------------------------------------------------------------------------

    def _lay_out(self, number: int) -> PlanRun:
        """The plan over the steps of the trajectory that is about to be sampled. Raises PlanError where it does not fit
        them, and what went wrong in an earlier hook, where the host would only have printed it."""
        if self.failed is not None:
            raise self.failed
        steps = steps_of(self.p, self.plan, number)
        assert steps is not None, "the host has a model by now"
        self._laid[number] = segments(self.plan, steps, number)
        return PlanRun(self._laid[number], steps)

    def _hold_over(self, run: PlanRun, sample: Callable[[], Any], through: Through | None = None) -> Any:
        """What ``sample`` returns, while the trajectory's switches happen in it; ``through`` is how it began."""
        ask, sampled = functools.partial(self._before_evaluation, run), functools.partial(self._sampled, run, through)
        with (
            hooks.before_each_evaluation(self.p, ask),
            hooks.around_each_sampling(self.p, sampled),
            self._guidance.installed(),
        ):
            return sample()

    def _sampled(self, run: PlanRun, through: Through | None, sampler: Any, sample: Callable[[], Any]) -> Any:
        """In place of ``sample()``, for the trajectory and for the host's hires pass: the same, on record."""
        p, record = self.p, self._record
        assert record is not None
        is_hires = getattr(p, "is_hr_pass", False)
        with record.watching(sampler.model_wrap_cfg, None if is_hires else run.steps):
            self._hires_ran = is_hires
            record.begin_pass(self._hires_pass() if is_hires else self._passing(run.current, through))
            self._doing(Kind.SAMPLE, None if is_hires else run.current.pass_index)
            samples = sample()
        enlarges_latents = getattr(p, "enable_hr", False) and p.latent_scale_mode is not None
        if not is_hires and enlarges_latents and not shared.state.interrupted:
            record.keep_latents(samples)  # which else the host decodes
        return samples

    def keep_before_hires(self, decoded: Any) -> None:
        """From ``sample_hr_pass``, with what the host has decoded of the trajectory, if it has."""
        if self._record is not None and decoded is not None:
            self._record.keep_decoded(decoded)

    def _passing(self, part: Segment, through: Through | None = None) -> runs.Passing:
        index, own = part.pass_index, self._settings_of[part.pass_index]
        kind = "first" if index == self.plan.running[0][0] else (own.kind or PassKind.SWITCH).value
        info = self._checkpoints[index]
        return runs.Passing(self.plan.label(index), kind, info, self._models.took(info), part, through)

    def _hires_pass(self) -> runs.Passing:
        info = compat.loaded()
        return runs.Passing(_HIRES, "hires", info, self._models.took(info))

    def _before_evaluation(self, run: PlanRun, denoiser: Any, noise_level_or_x: Any = None, *_: Any) -> bool:
        """Whether the conditioning changed. The argument is the host's: a sigma in A1111, x in Forge."""
        self._guidance.settle()
        if getattr(self.p, "is_hr_pass", False):
            self._progress.stepping(shared.state.sampling_step)
            return False
        self._progress.stepping(run.steps.step_of(denoiser.step) - run.current.first_step)
        upcoming = run.before_evaluation(denoiser.step)
        if upcoming is None:
            return False
        assert self._record is not None
        self._progress.pause()
        self._record.switch()
        with compat.swapping(noise_level_or_x):
            self._enter(upcoming)
            denoiser.update_inner_model()
        self._record.begin_pass(self._passing(upcoming))
        self._doing(Kind.SAMPLE, upcoming.pass_index)
        self._guidance.change(denoiser, self.p.cfg_scale)
        return True

    # --- what is told ------------------------------------------------------------------------------------------------

    def _lay_out_progress(self) -> None:
        """The tasks of the batch that begins, and of those after it."""
        p = self.p
        if not self.parts:  # which is told when it is about to be sampled
            return
        sampled = [Size(p.width, p.height), *self._sizes[1:]]
        pixels = [size.width * size.height * p.batch_size for size in sampled]
        subjects = {
            index: f"{checkpoints.title(self._checkpoints[index])} {self._sampler_of(index)}"
            for index in self._checkpoints
            if self._runs(index)
        }
        self._batch = batch(self.plan, self._laid, pixels, subjects, hires=self._hires_task())
        self._progress.lay_out(self._batch.tasks, p.n_iter - getattr(p, "iteration", 0) - 1)

    def _hires_task(self) -> Task | None:
        p = self.p
        if not getattr(p, "enable_hr", False):
            return None
        info = p.hr_checkpoint_info or self._checkpoints[self._last]
        subject = f"{checkpoints.title(info)} {getattr(p, 'hr_sampler_name', None) or p.sampler_name}"
        pixels = self._sizes[0].width * self._sizes[0].height * p.batch_size
        return Task(Kind.SAMPLE, 0, _HIRES, subject, p.hr_second_pass_steps or p.steps, pixels)

    def _sampler_of(self, index: int) -> str:
        return self._trajectories[self._number_of[index]].head.sampler_name or self.p.sampler_name

    def _doing(self, kind: Kind, index: int | None) -> None:
        """Tell what is done now, for a pass; for ``None``, the hires fix is sampled, or all is decoded."""
        if self._batch is None:
            return
        if index is not None:
            number = self._batch.number_of.get(index, 0)
        else:
            number = self._batch.hires if kind is Kind.SAMPLE else self._batch.tasks[-1].pass_number
        self._progress.doing(kind, number)

    # --- a pass's model and texts ------------------------------------------------------------------------------------

    def _enter(self, part: Segment) -> None:
        """Put the pass's weights, extra networks and conditioning in place, in this order."""
        p, index = self.p, part.pass_index
        self._doing(Kind.LOAD, index)
        self._put(index)
        encoded = self._conditioning.of(index, self._sizes)
        self._networks.activate(encoded.networks)
        p.c, p.uc = encoded.c, encoded.uc
        compat.tell_controlnet(p)
        p.cfg_scale = self._scale_of(index)
        self._read_ahead(part)

    def _read_ahead(self, part: Segment) -> None:
        """The checkpoint of the pass after this one; after the last, of the first, for the next picture."""
        later = self.parts[self.parts.index(part) + 1 :]
        if later or getattr(self.p, "iteration", 0) + 1 < self.p.n_iter:
            index = later[0].pass_index if later else self._first
            self._models.read_ahead(self._checkpoints[index], self._vaes[index])

    def _put(self, index: int) -> None:
        if not self._models.put(self._checkpoints[index], self._vaes[index]):
            self._networks.forget()
            # not None: so ControlNet knows of a change in the middle, and patches the UNet anew for every picture
            self.p.refiner_checkpoint = self._refiner_checkpoint or ""

    def _scale_of(self, index: int) -> float:
        """The pass's CFG scale. While it holds it is also the request's: the host reads it there for the hires pass."""
        own = self._settings_of[index].cfg_scale
        return self._requested["cfg_scale"] if own is None else own

    def _check_that_all_ran(self, run: PlanRun) -> None:
        stopped = shared.state.interrupted or shared.state.skipped or shared.state.stopping_generation
        if not stopped and run.current != run.last:
            raise RuntimeError(f"{self.p.sampler_name} ended before {self.plan.label(run.last.pass_index)} began")

    def _write_infotext(self) -> None:
        """Written again after sampling, so that it comes after what the sampler wrote: readers that trip over our
        quoted JSON have then read the rest."""
        params = self.p.extra_generation_params
        if self._models.lossy:
            params["Multipass storage"] = "fp8"
        for key, value in infotext_values(self.plan, self.parts, self._titles()).items():
            params.pop(key, None)
            params[key] = value
        if self._record is not None:
            self._record.plan = self._as_run()

    def _as_run(self) -> Plan:
        return as_run(self.plan, self._titles())

    def _titles(self) -> dict[int, str]:
        return {index: checkpoints.title(info) for index, info in self._checkpoints.items() if self._runs(index)}

    def _runs(self, index: int) -> bool:
        """A pass that gets no step is not loaded, nor its file hashed just to be named."""
        return index == self._first or not self.parts or any(part.pass_index == index for part in self.parts)


def _through(pictures: Any) -> Through:
    """As what a refine pass is given the picture before, by what ``_handed_over`` gave."""
    return Through.LATENT if pictures is None else Through.PIXELS


def _hires_texts(p: Any) -> tuple[bool, bool]:
    """Whether the request has texts of its own for the hires pass; later the host fills them in."""
    return bool(getattr(p, "hr_prompt", "")), bool(getattr(p, "hr_negative_prompt", ""))
