"""One request with a plan, from ``before_process`` until it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from modules import shared

from multipass.hosts.webui import (
    adetailer,
    attached,
    checkpoints,
    chosen,
    compat,
    following,
    heads,
    hooks,
    refining,
    runs,
    tasks,
    triptych,
    xyz,
)
from multipass.hosts.webui.chosen import Choice
from multipass.hosts.webui.conditioning import CLIP_SKIP, texts_of
from multipass.hosts.webui.passes import HIRES, Passes
from multipass.infotext import as_run, infotext_values
from multipass.plan import Plan
from multipass.problems import PlanError
from multipass.progress import Kind
from multipass.prompts import pass_texts
from multipass.schedule import SamplingSteps, Segment

_ABSENT = hooks.ABSENT
_attached: list[Rendering] = []  # and not ended


def is_under_way() -> bool:
    """Whether a request with a plan is being rendered: whatever is begun now is another script's, in its middle."""
    return any(rendering.under_way for rendering in _attached)


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


class Rendering:
    """What multipass knows and does while the host renders one request.

    A copy of the request, as other extensions make them, carries this along; only ``p`` itself is rendered by the plan.

    Args:
        p: the request; unchanged until ``attach``.
        plan: already checked against this host.
        named: what the passes name, by index.
        announced: the steps of each trajectory, from ``steps_of``; stays what was announced.

    Raises:
        PlanError: where the plan does not fit the announced steps.
    """

    def __init__(
        self, p: Any, plan: Plan, named: Mapping[int, checkpoints.Named], announced: Sequence[SamplingSteps | None]
    ) -> None:
        self.p, self.plan = p, plan
        self.announced = tuple(announced)
        self.task = shared.state.time_start  # the host's own note of when the task began that the request belongs to
        self.ended = self.under_way = False
        self._sampling = False
        self._until_ended, self._until_next_batch = ExitStack(), ExitStack()
        self._passes = Passes(p, plan, named, announced, self._set_up_conds)

    @property
    def parts(self) -> tuple[Segment, ...]:
        """What is sampled, in order, as far as it is known; steps are counted within each trajectory."""
        return self._passes.parts

    # --- in the order in which the host calls ------------------------------------------------------------------------

    def attach(self) -> None:
        """From ``before_process``: from now on the request's methods below are ours, its class's after that.

        The first pass's checkpoint and clip skip go the host's own way, so that all of the request (an init image's
        encoding included) sees them.
        """
        p, passes = self.p, self._passes
        self._overrides, self._hires_texts_given = p.override_settings, _hires_texts(p)
        vars(p).update(passes.own)
        ours: dict[str, Any] = {}
        if passes.first in passes.checkpoints:
            ours["sd_model_checkpoint"] = passes.checkpoints[passes.first].title
        clip_skip = dict(self.plan.running)[passes.first].clip_skip
        if clip_skip is not None:
            ours[CLIP_SKIP] = clip_skip
        # what these are afterwards: the request's where it says that its overrides stay
        self._ours, self._options = ours, {name: shared.opts.data.get(name, _ABSENT) for name in ours}
        if not p.override_settings_restore_afterwards:
            self._options |= {name: p.override_settings[name] for name in ours if name in p.override_settings}
        p.override_settings = hooks.WithOurs(p.override_settings, ours)
        self._clip_skip_told = vars(p).get("clip_skip", _ABSENT)
        self._class, self._sample_before = type(p), vars(p).pop("sample", None)
        p.__class__ = attached.planned(self._class)
        attached.carry(p, self)
        _attached.append(self)
        self._until_ended.enter_context(hooks.around_request(p, self.rendered))
        passes.models.serve()

    def rendered(self, render: Callable[[], Any]) -> Any:
        """In place of ``render()``, which renders all pictures: the same, and then the host is as before the request.

        The request's options and first model are in place. What others do when all is rendered is still a part of it.
        """
        passes = self._passes
        try:
            passes.settle()
            self._default = self._choice_at_the_end()
            with self._adetailer_follows():
                self.under_way = True
                processed = render()
        except PlanError as error:
            self.end(error)
            refusal = xyz.stop_after(self.p, hooks.Refused(error))
            if self.p.all_prompts is None:
                hooks.answer_for_texts(self.p, refusal)
            raise refusal from None
        except BaseException as error:
            self.end(error)
            raise
        self.end(passes.failed)
        return processed

    def begin(self) -> None:
        """From ``process``: the request's texts have their styles."""
        p = self.p
        self._passes.begin(runs.Run(p, self._as_run(), {**runs.said_by(p), **self._passes.requested}))
        self._write_infotext()
        if getattr(p, "enable_hr", False):
            texts = texts_of(self.plan, p.all_prompts, p.all_negative_prompts)[self._passes.last]
            prompt_given, negative_given = self._hires_texts_given
            if not prompt_given:
                p.all_hr_prompts = [text.prompt for text in texts]
            if not negative_given:
                p.all_hr_negative_prompts = [text.negative_prompt for text in texts]

    def begin_iteration(self) -> None:
        """The next batch begins: the host is about to load the request's checkpoint, by its options."""
        self._until_next_batch.close()

    def begin_batch(self) -> None:
        """From ``before_process_batch``: the host is about to encode the first pass's texts by itself.

        ``p.all_prompts``, which the picture's text is written from, stays the request's.
        """
        p, passes = self.p, self._passes
        vars(p).update(passes.own)
        if "denoising_strength" in passes.own:  # told by the host when it began, of what the first pass has
            p.extra_generation_params["Denoising strength"] = passes.requested["denoising_strength"]
        if passes.own:
            heads.tell_seed_delta(p)
        if not getattr(p, "iteration", 0):
            shared.state.job_count += p.n_iter * tasks.jobs_of_batch(passes)
        passes.put(passes.first)  # somebody may have chosen another checkpoint for the next picture meanwhile
        passes.conditioning.begin_batch(p.prompts, p.negative_prompts)
        p.prompts, p.negative_prompts = passes.conditioning.texts(passes.first)
        p.cfg_scale = passes.scale_of(passes.first)
        # a model that was put down is as it was built, and what another request has asked for in between ends with it
        compat.apply_tiling(p)
        compat.merge_tokens(p)
        if passes.checkpoints[passes.last].filename != passes.checkpoints[passes.first].filename:
            self._until_next_batch.callback(setattr, p, "hr_checkpoint_info", getattr(p, "hr_checkpoint_info", None))
            compat.keep_for_hires(p, passes.checkpoints[passes.last])

    def setup_conds(self) -> None:
        """In place of ``p.setup_conds``: the texts of all passes that the live module can hold, the first's last.

        A pass that takes another module is encoded when it begins: building modules to and fro would cost more.
        """
        p, passes = self.p, self._passes
        passes.networks.are(p.extra_network_data)
        try:
            if passes.failed is None and not getattr(p, "is_hr_pass", False):
                passes.lay_out_sizes()
                passes.progress.lay_out(tasks.of_batch(passes), p.n_iter - getattr(p, "iteration", 0) - 1)
                for part in passes.parts[1:]:
                    if shared.state.interrupted:
                        break
                    index = part.pass_index
                    passes.progress.doing(Kind.ENCODE, index)
                    if passes.models.put_in_place(passes.checkpoints[index], passes.vaes[index], unet=False):
                        passes.conditioning.encode(index, passes.sampled_sizes)
                passes.put(passes.first)
                passes.networks.activate(p.extra_network_data)
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
        p, passes = self.p, self._passes
        original = self._sample_before or functools.partial(self._class.sample, p)
        self._sampling, began_with, noise = True, shared.sd_model, p.rng
        hires_goes_on = refining.hires_returns_its_latent(p) if len(passes.trajectories) > 1 else nullcontext()
        try:
            run = passes.lay_out(0)
            if run.current.pass_index != passes.first:  # a sigma that turned out to be reached at once
                passes.enter(run.current)
                kwargs["conditioning"], kwargs["unconditional_conditioning"] = p.get_conds()
            passes.read_ahead(run.current)
            with hires_goes_on:
                samples = passes.hold_over(run, functools.partial(original, *args, **kwargs))
            if getattr(p, "enable_hr", False) and not passes.hires_ran:
                passes.record.stopped_before(HIRES)
            if getattr(p, "firstpass_image", None) is None:  # else the host only upscaled a given picture
                passes.check_that_all_ran(run)
            vars(p).update(passes.requested)
            once_more = functools.partial(original, *args, **kwargs)
            beside = functools.cache(lambda: triptych.render(passes, once_more, noise))
            samples = following.sampled(passes, samples, beside, self._until_next_batch)
        except PlanError as error:
            self.end(error)
            raise xyz.stop_after(p, hooks.Refused(error)) from None
        except BaseException as error:
            self.end(error)
            raise
        finally:
            self._sampling = False
            compat.restore_schedule(began_with)
        passes.progress.doing(Kind.DECODE, None)
        vars(p).update(passes.requested)  # which the picture's text tells
        if "sampler_name" in passes.own:
            p.extra_generation_params.pop("Schedule type", None)
        passes.networks.note_hashes()  # after those of the hires pass
        self._write_infotext()
        self._until_next_batch.callback(passes.models.forget_taken)
        self._until_next_batch.enter_context(chosen.by_default(p, self._default))
        return samples

    def end_batch(self, pictures: Any) -> None:
        """From ``postprocess_batch``: the host has decoded what the last pass gave."""
        self._passes.progress.rest()
        if self._passes.has_begun:
            self._passes.record.finished(pictures)

    def keep_before_hires(self, decoded: Any) -> None:
        """From ``sample_hr_pass``, with what the host has decoded of the trajectory, if it has."""
        if self._passes.has_begun and decoded is not None:
            self._passes.record.keep_decoded(decoded)

    def finish(self, processed: Any) -> None:
        """From ``postprocess``: all pictures are done, as ``processed`` tells."""
        processed.clip_skip = self._passes.conditioning.clip_skip  # where the host has noted its option
        if self._passes.has_begun:
            self._passes.record.tell(processed)

    def fail(self, error: Exception) -> None:
        """One of the hooks above did, and the host would only print it: it is raised before anything more is
        sampled."""
        self._passes.failed = error

    def end(self, error: BaseException | None = None) -> None:
        """When all is rendered, from ``close`` and, with the error, where something fails: the host is as before the
        request."""
        if self.ended:
            return
        passes, self.ended = self._passes, True
        _attached.remove(self)
        with ExitStack() as whatever_happens:  # in the reverse order
            if passes.has_begun:
                passes.record.memo = passes.memo.off
                whatever_happens.callback(passes.record.end, error)
            whatever_happens.callback(passes.progress.end)
            whatever_happens.callback(passes.conditioning.forget)
            whatever_happens.callback(passes.models.end)
            whatever_happens.callback(self._put_back)
            whatever_happens.callback(self._until_next_batch.close)
            whatever_happens.callback(self._until_ended.close)

    def _put_back(self) -> None:
        p = self.p
        p.__class__ = self._class
        p.override_settings = self._overrides
        p.refiner_checkpoint = self._passes.refiner_checkpoint
        vars(p).update(self._passes.requested)
        hooks.put_back(vars(p), {"clip_skip": self._clip_skip_told})
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
        hooks.put_back(vars(copy_of_p), {"clip_skip": self._clip_skip_told})
        attached.drop(copy_of_p)

    # --- what others render meanwhile ---------------------------------------------------------------------------------

    def _choice(self, index: int) -> Choice:
        passes, vae = self._passes, self._passes.vaes[index]
        option = None if vae is None else vae.option
        return Choice(passes.checkpoints[index], option, passes.conditioning.clip_skip_of(index))

    def _choice_at_the_end(self) -> Choice:
        """Of the last pass that runs, or of the hires fix where that is sampled last by a checkpoint of its own."""
        own = None if any(self._passes.laid[1:]) else compat.hires_checkpoint(self.p)
        if own is not None:
            return Choice(own, None, self._passes.conditioning.clip_skip)
        return self._choice(self.parts[-1].pass_index)

    def _adetailer_follows(self) -> AbstractContextManager[None]:
        p, asked, default = self.p, self.plan.adetailer, self._default
        index = self.parts[-1].pass_index if asked.index is None else asked.index
        followed = default if asked.index is None else self._choice(index)
        request = Choice(self._passes.checkpoints[self._passes.first], None, self._passes.conditioning.clip_skip)
        texts = None
        if asked.prompts:
            requests = adetailer.requests_texts(p, self.plan.prompt_syntax)
            texts = adetailer.told_blank(pass_texts(self.plan, requests)[index], requests)
        tabs = adetailer.tabs(p, followed, default, request, texts)
        if adetailer.name_vae(tabs, p):
            self._default = default._replace(vae_first=True)
        return adetailer.with_tabs(p, tabs)

    def _write_infotext(self) -> None:
        """Written again after sampling, so that it comes after what the sampler wrote: readers that trip over our
        quoted JSON have then read the rest. The clip skip that is told is the request's, not what the options say for
        the pass in place."""
        self.p.clip_skip = self._passes.conditioning.clip_skip
        params = self.p.extra_generation_params
        if self._passes.models.lossy:
            params["Multipass storage"] = "fp8"
        for key, value in infotext_values(self.plan, self.parts, self._passes.titles()).items():
            params.pop(key, None)
            params[key] = value
        if self._passes.has_begun:
            self._passes.record.plan = self._as_run()

    def _as_run(self) -> Plan:
        return as_run(self.plan, self._passes.titles())


def _hires_texts(p: Any) -> tuple[bool, bool]:
    """Whether the request has texts of its own for the hires pass; later the host fills them in."""
    return bool(getattr(p, "hr_prompt", "")), bool(getattr(p, "hr_negative_prompt", ""))
