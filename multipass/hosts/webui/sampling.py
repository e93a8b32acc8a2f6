"""What a sampler of the webui will run for a request: its steps, and how often it asks the denoiser in one."""

from __future__ import annotations

from typing import Any

import torch
from modules import processing, sd_samplers, sd_samplers_common, shared

from multipass.problems import PlanError, Problem
from multipass.schedule import SamplingSteps

# asks the denoiser an irregular number of times per step, or hides its steps: not told right yet, therefore refused
_REFUSED = {
    "PLMS": "its first step asks the denoiser twice",
    "UniPC": "its steps are its own",
    "DDIM CFG++": "it is not verified",
    "LCM": "its noise table has 50 entries",
    "Restart": "its noise rises again",
    "DPM fast": "its steps are its own",
    "DPM adaptive": "no step boundary is visible from outside",
}


def check(sampler_name: str) -> None:
    """Raises PlanError for a sampler that switch passes cannot be run with."""
    reason = _REFUSED.get(sampler_name)
    if reason is not None:
        raise PlanError(Problem("sampler_name", f'multipass does not switch inside "{sampler_name}" yet: {reason}'))


def evaluations_per_step(sampler_name: str) -> int:
    """2 for the second-order samplers, else 1."""
    config = sd_samplers.find_sampler_config(sampler_name)
    return config.total_steps(1) if config is not None else 1


def sampling_steps(p: Any) -> SamplingSteps | None:
    """The steps of the request's first sampling, asked of a sampler as the host will make it.

    ``None`` while the host has no model yet, which the noise levels come from, or has still to correct the sampler's
    name.
    """
    has_model = getattr(shared.sd_model, "sd_checkpoint_info", None) is not None
    if not has_model or sd_samplers.find_sampler_config(p.sampler_name) is None:
        return None
    told = dict(p.extra_generation_params)  # asking writes there; the host will write the same when it asks
    try:
        sampler = sd_samplers.create_sampler(p.sampler_name, shared.sd_model)
        if isinstance(p, processing.StableDiffusionProcessingImg2Img):
            steps, t_enc = sd_samplers_common.setup_img2img_steps(p)
        else:
            steps, t_enc = p.steps, None
        if hasattr(sampler, "get_timesteps"):
            return _by_timesteps(sampler.get_timesteps(p, steps), p.steps if t_enc is None else t_enc + 1, t_enc)
        sigmas = sampler.get_sigmas(p, steps)
        return _by_sigmas(sigmas if t_enc is None else sigmas[steps - t_enc - 1 :], sampler.model_wrap.sigmas)
    finally:
        p.extra_generation_params.clear()
        p.extra_generation_params.update(told)


def _by_sigmas(sigmas: torch.Tensor, training_sigmas: torch.Tensor) -> SamplingSteps:
    """k-diffusion samplers. The nearest timestep is found as the host's ``apply_refiner`` finds it."""
    sigmas = sigmas.cpu()
    training = training_sigmas.to(sigmas.device)
    timesteps = [torch.argmin(torch.abs(training - sigma)).item() for sigma in sigmas[:-1]]
    return SamplingSteps(sigmas=tuple(sigmas.tolist()), timesteps=tuple(map(float, timesteps)))


def _by_timesteps(timesteps: torch.Tensor, asked: int, t_enc: int | None) -> SamplingSteps:
    """DDIM is given timesteps, lowest first (in img2img only the first ``t_enc``), and goes from the last to the first:
    one step less than there are timesteps."""
    given = timesteps[:t_enc].flip(0).long().cpu()
    if len(given) < 2:
        raise PlanError(Problem("denoising_strength", "too low: the sampler runs no step"))
    alphas = shared.sd_model.alphas_cumprod.cpu()[given].double()
    sigmas = ((1 - alphas) / alphas).sqrt()
    return SamplingSteps(tuple(sigmas.tolist()), tuple(map(float, given[:-1].tolist())), asked)
