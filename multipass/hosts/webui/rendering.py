"""One request with a plan, from ``before_process`` until the request is closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules import devices, errors, extra_networks, shared

from multipass.hosts.webui import checkpoints, compat, hooks, sampling
from multipass.infotext import infotext_values
from multipass.plan import Plan
from multipass.prompts import Texts, pass_texts
from multipass.run import PlanRun, Switch
from multipass.schedule import SamplingSteps, segments, starts_with


class Rendering:
    """What multipass knows and does while the host renders one request.

    Args:
        plan: already checked against this host.
        named: the host's ``CheckpointInfo`` of the passes that have one, by index; the others are the request's.
        before: the ``CheckpointInfo`` in place when the request came, put back when it ends.
        announced: the steps the sampler will run, where the host can tell already.

    Raises:
        PlanError: where the plan does not fit the announced steps.
    """

    def __init__(self, plan: Plan, named: Mapping[int, Any], before: Any, announced: SamplingSteps | None) -> None:
        self.plan = plan
        self.failed: Exception | None = None
        self._checkpoints = dict(named)
        self._before = before
        self.parts = segments(plan, announced) if announced is not None else ()
        self._texts: dict[int, list[Texts]] = {}
        self.first = self.parts[0].pass_index if self.parts else starts_with(plan)
        self.last = self.parts[-1].pass_index if self.parts else plan.running[-1][0]

    # --- in the order in which the host calls ------------------------------------------------------------------------

    def attach(self, p: Any) -> None:
        """From ``before_process``. The first pass's checkpoint goes the host's own way, so that all of the request
        (an init image's encoding included) sees it; the host puts its option back."""
        if self.first in self._checkpoints:
            p.override_settings = {**p.override_settings, "sd_model_checkpoint": self._checkpoints[self.first].title}
        self._hires_inherits = [not getattr(p, "hr_prompt", ""), not getattr(p, "hr_negative_prompt", "")]
        self._originals = {"sample": vars(p).get("sample"), "close": vars(p).get("close")}
        sample, close = p.sample, p.close
        p.sample = lambda *args, **kwargs: self._sample(p, sample, args, kwargs)
        p.close = lambda: self._close(p, close)

    def detach(self, p: Any) -> None:
        """Leave ``p`` as ``attach`` found it."""
        for name, original in self._originals.items():
            if original is None:
                vars(p).pop(name, None)
            else:
                setattr(p, name, original)

    def begin(self, p: Any) -> None:
        """From ``process``: the first pass's model is in place and the request's texts have their styles."""
        for index, _ in self.plan.running:
            self._checkpoints.setdefault(index, compat.loaded())
        self._write_infotext(p)
        if getattr(p, "enable_hr", False):
            texts = self._pass_texts(p.all_prompts, p.all_negative_prompts)[self.last]
            if self._hires_inherits[0]:
                p.all_hr_prompts = [text.prompt for text in texts]
            if self._hires_inherits[1]:
                p.all_hr_negative_prompts = [text.negative_prompt for text in texts]

    def begin_batch(self, p: Any) -> None:
        """From ``before_process_batch``: the host is about to encode the first pass's texts by itself.

        ``p.all_prompts``, which the picture's text is written from, stays the request's.
        """
        self._texts = self._pass_texts(p.prompts, p.negative_prompts)
        p.prompts = [text.prompt for text in self._texts[self.first]]
        p.negative_prompts = [text.negative_prompt for text in self._texts[self.first]]
        compat.keep_for_hires(p, self._checkpoints[self.last])

    def _sample(self, p: Any, sample: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In place of ``p.sample``: the same, with the plan held over it."""
        if self.failed is not None:
            raise self.failed
        try:
            steps = sampling.sampling_steps(p)
            assert steps is not None, "the host has a model by now"
            self.parts = segments(self.plan, steps)
            run = PlanRun(self.plan, self.parts, steps)
            if run.current.segment.pass_index != self.first:
                self._enter(p, run.current)
                kwargs["conditioning"], kwargs["unconditional_conditioning"] = p.get_conds()
            with hooks.before_each_evaluation(p, lambda *evaluation: self._before_evaluation(p, run, *evaluation)):
                samples = sample(*args, **kwargs)
            self._all_passes_ran(p, run)
        except BaseException:
            self._restore()
            raise
        self._write_infotext(p)
        return samples

    def _close(self, p: Any, close: Any) -> None:
        """In place of ``p.close``, which the host calls however the request ended."""
        self.detach(p)
        try:
            close()
        finally:
            self._restore()

    # --- the switch --------------------------------------------------------------------------------------------------

    def _before_evaluation(self, p: Any, run: PlanRun, denoiser: Any, noise_level_or_x: Any = None, *_: Any) -> bool:
        """Whether the conditioning changed. The second argument is the host's: a sigma in A1111, x in Forge."""
        if getattr(p, "is_hr_pass", False):
            return False
        switch = run.before_evaluation(denoiser.step)
        if switch is None:
            return False
        with compat.swapping(noise_level_or_x):
            self._enter(p, switch)
            denoiser.update_inner_model()
        return True

    def _enter(self, p: Any, switch: Switch) -> None:
        """Put the pass's weights, extra networks and conditioning in place, in this order."""
        index = switch.segment.pass_index
        shared.state.textinfo = f"Multipass: {self.plan.label(index)}"
        if compat.load(self._checkpoints[index]):
            compat.prepare_loaded(p)
        texts = self._texts[index]
        prompts, networks = extra_networks.parse_prompts([text.prompt for text in texts])
        if not p.disable_extra_networks:
            with devices.autocast():
                extra_networks.activate(p, networks)
        negatives = [text.negative_prompt for text in texts]
        with hooks.replaced(p, prompts=prompts, negative_prompts=negatives, extra_network_data=networks):
            p.setup_conds()

    def _all_passes_ran(self, p: Any, run: PlanRun) -> None:
        stopped = shared.state.interrupted or shared.state.skipped or shared.state.stopping_generation
        sampled = getattr(p, "firstpass_image", None) is None  # else the host only upscaled a picture it was given
        if sampled and not stopped and run.current != run.last:
            raise RuntimeError(f"{p.sampler_name} ended before {self.plan.label(run.last.segment.pass_index)} began")

    def _restore(self) -> None:
        """The checkpoint that was in place before the request. A failure here must not hide what came before it.

        A Forge that had none yet loads what its options name when the next picture begins.
        """
        if self._before is None:
            return
        try:
            compat.load(self._before)
        except Exception:  # noqa: BLE001 - the host loads by its options again when the next picture begins
            errors.report(f"Multipass could not put {self._before.title} back", exc_info=True)

    # --- texts -------------------------------------------------------------------------------------------------------

    def _pass_texts(self, prompts: list[str], negatives: list[str]) -> dict[int, list[Texts]]:
        """Each pass's texts, one per picture."""
        of_pictures = [
            pass_texts(self.plan, Texts(prompt, negative)) for prompt, negative in zip(prompts, negatives, strict=True)
        ]
        return {index: [texts[index] for texts in of_pictures] for index, _ in self.plan.running}

    def _write_infotext(self, p: Any) -> None:
        """Written again after sampling, so that it comes after what the sampler wrote: readers that trip over our
        quoted JSON have then read the rest."""
        titles = {index: checkpoints.title(info) for index, info in self._checkpoints.items() if self._is_told(index)}
        for key, value in infotext_values(self.plan, self.parts, titles).items():
            p.extra_generation_params.pop(key, None)
            p.extra_generation_params[key] = value

    def _is_told(self, index: int) -> bool:
        """A pass that did not run is not loaded, nor its file hashed just to be told."""
        return index == self.first or not self.parts or any(part.pass_index == index for part in self.parts)
