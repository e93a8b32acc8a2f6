"""What a sampler of the webui will run for a request, found out by running it: on one number instead of a picture.

The sampler's own code decides how many steps it takes, how often it asks the denoiser in one and at which noise levels.
Instead of knowing that of every sampler (and of those that extensions bring), it is run with a denoiser that only takes
notes. That costs milliseconds and is right by construction.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import k_diffusion.sampling
import torch
from modules import devices, processing, sd_samplers, shared

from multipass.hosts.webui import compat, hooks
from multipass.problems import PlanError, Problem
from multipass.schedule import TRAINING_TIMESTEPS, SamplingSteps

_FIELDS = ("steps", "sampler_name", "denoising_strength")
# what these take depends on the picture itself, so nothing can be announced
ADAPTIVE = ("DPM adaptive",)


def sampling_steps(p: Any, own: Mapping[str, Any], *, head: int, refines: bool) -> SamplingSteps | None:
    """The steps of one of a plan's trajectories. Nothing of the request or of the host is changed.

    ``None`` while the host has no model yet, which the noise levels come from, or has still to correct the sampler's
    name.

    Args:
        own: the fields of the request that are others for the trajectory, as ``heads.fields`` gives them.
        head: the place in the plan of the pass that it begins with.
        refines: whether that redraws a finished latent, in exactly the request's steps.

    Raises:
        PlanError: if the sampler would run no step, or no step boundary of it can be told.
    """
    stand_in = _stand_in(p, own)
    places = {name: f"passes[{head}].{name}" if refines or name in own else name for name in _FIELDS}
    name = stand_in.sampler_name
    if name in ADAPTIVE:
        reason = "it chooses its steps as it goes, no step boundary is visible"
        raise PlanError(Problem(places["sampler_name"], f"multipass cannot switch inside {name}: {reason}"))
    has_model = getattr(shared.sd_model, "sd_checkpoint_info", None) is not None
    config = sd_samplers.find_sampler_config(name)
    if not has_model or config is None:
        return None
    sampler = sd_samplers.create_sampler(name, shared.sd_model)
    if refines and hasattr(sampler, "get_timesteps"):
        whole = int(stand_in.steps / min(stand_in.denoising_strength, 0.999))
        if whole > TRAINING_TIMESTEPS:
            reason = f"too low for {stand_in.steps} steps: {name} would have to divide {TRAINING_TIMESTEPS} by {whole}"
            raise PlanError(Problem(places["denoising_strength"], reason))
    notes = _Notes(sampler.model_wrap_cfg)
    try:
        _run(sampler, notes, stand_in, refines=refines)
    except torch.cuda.OutOfMemoryError:  # the sampler is not to blame
        raise
    except Exception as error:  # whatever a sampler does that needs more than notes: all is told
        reason = f"it does not run beforehand, which its steps are told by ({type(error).__name__}: {error})"
        raise PlanError(Problem(places["sampler_name"], f"multipass cannot switch inside {name}: {reason}")) from error
    if not notes.levels:
        if refines:
            raise PlanError(Problem(places["steps"], f"too few: {name} runs no step"))
        raise PlanError(Problem(places["denoising_strength"], "too low: the sampler runs no step"))
    starts = notes.starts()
    levels = [notes.levels[start] for start in starts]
    timesteps = _timesteps(sampler, levels)
    sigmas = _sigmas_at(timesteps) if hasattr(sampler, "get_timesteps") else levels
    asked = config.total_steps(notes.steps_asked)
    # fractions are of what the host asked for, as its own are, unless it is far off (as with Forge's HeunPP2)
    host_counts = len(notes.levels) <= 1.5 * asked
    return SamplingSteps((*sigmas, 0.0), tuple(timesteps), starts, asked if host_counts else None)


def as_sigma(sampler: Any, level: float) -> float:
    """The noise level that a sampler asks its denoiser for; DDIM and its kin ask for a timestep."""
    return _sigmas_at([level])[0] if hasattr(sampler, "get_timesteps") else level


class _Notes:
    """In the place of the host's ``CFGDenoiser``: finds every picture finished as it is, and writes down its level."""

    padded_cond_uncond = padded_cond_uncond_v0 = False
    need_last_noise_uncond = False
    cond_scale_miltiplier = 1.0

    def __init__(self, denoiser: Any) -> None:
        self.inner_model = denoiser.inner_model  # samplers read the noise schedule there
        self.last_noise_uncond: Any = None
        self.levels: list[float] = []
        self.asked_before_callbacks: list[int] = []
        self.steps_asked = 0

    def __call__(self, x: torch.Tensor, level: torch.Tensor, **_: Any) -> torch.Tensor:
        self.levels.append(float(level.max()))
        self.last_noise_uncond = x
        return x

    def launch(self, steps: int, sample: Callable[[], Any]) -> Any:
        """In the place of ``launch_sampling``, which would reset the progress."""
        self.steps_asked = steps
        return sample()

    def callback(self, _: Any) -> None:
        """In the place of ``callback_state``, which a sampler calls in each step after the step's first evaluation."""
        self.asked_before_callbacks.append(len(self.levels) - 1)

    def starts(self) -> tuple[int, ...]:
        """The evaluations that steps begin with.

        PLMS calls back in its first step after the second evaluation, a trial at the level where the next step then
        begins: of two such in a row at the same level only the later is a step's beginning.
        """
        found = sorted({0, *self.asked_before_callbacks})
        trials = {start for start, after in pairwise(found) if self.levels[start] == self.levels[after]}
        return tuple(start for start in found if start not in trials)


def _run(sampler: Any, notes: _Notes, p: Any, *, refines: bool) -> None:
    sampler.model_wrap_cfg = notes
    sampler.launch_sampling = notes.launch
    sampler.callback_state = notes.callback
    sampler.func = _quiet(sampler.func)
    sampler.create_noise_sampler = lambda x, *_: lambda *_: torch.zeros_like(x)
    x = torch.zeros((1, 4, 1, 1), device=devices.device)
    with (
        torch.no_grad(),
        hooks.replaced(k_diffusion.sampling, torch=k_diffusion.sampling.torch),
        compat.sampling_nothing(),
    ):
        if refines:
            sampler.sample_img2img(p, x, x, None, None, steps=p.steps)
        elif isinstance(p, processing.StableDiffusionProcessingImg2Img):
            sampler.sample_img2img(p, x, x, None, None)
        else:
            sampler.sample(p, x, None, None)


def _stand_in(p: Any, own: Mapping[str, Any]) -> Any:
    """A copy of the request with other fields that may be written to and draws no noise."""
    stand_in = copy.copy(p)
    vars(stand_in).update(own)
    stand_in.extra_generation_params = {}
    stand_in.rng = SimpleNamespace(next=lambda: torch.zeros((1, 4, 1, 1), device=devices.device))
    stand_in.mask = stand_in.nmask = None
    if hasattr(stand_in, "fill_fields_from_opts"):
        stand_in.fill_fields_from_opts()
    return stand_in


def _quiet(sample: Callable[..., Any]) -> Callable[..., Any]:
    """The sampler's function without its progress bar; the host still reads its parameters."""

    @functools.wraps(sample)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        return sample(*args, **{**kwargs, "disable": True})

    return quiet


def _timesteps(sampler: Any, levels: list[float]) -> list[float]:
    """The training timestep of each level, as the host's ``apply_refiner`` finds it.

    DDIM and its kin are asked with timesteps in the first place. LCM's table has 50 sigmas for the 1000 timesteps.
    """
    if hasattr(sampler, "get_timesteps"):
        return [float(int(level)) for level in levels]
    table = sampler.model_wrap.sigmas.cpu()
    every = TRAINING_TIMESTEPS // len(table)
    return [float(torch.argmin(torch.abs(table - level)).item() * every + every - 1) for level in levels]


def _sigmas_at(timesteps: list[float]) -> list[float]:
    alphas = shared.sd_model.alphas_cumprod.cpu()[torch.tensor(timesteps).long()].double()
    return ((1 - alphas) / alphas).sqrt().tolist()
