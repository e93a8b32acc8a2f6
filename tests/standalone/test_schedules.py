"""What samplers run, against k-diffusion's and the webui's numbers and against each other."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from multipass.hosts.standalone.sampling import stepper
from multipass.hosts.standalone.schedules import (
    SAMPLERS,
    SCHEDULES,
    TRAINING_SIGMAS,
    Method,
    lay_out,
    nearest_timestep,
    sigma_at,
    timestep_at,
)
from multipass.plan import PlanError, decode
from multipass.schedule import segments


def test_the_training_schedule_is_stable_diffusion_s() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    expected = ((1 - kept) / kept) ** 0.5
    assert torch.allclose(torch.tensor(TRAINING_SIGMAS, dtype=torch.float64), expected, rtol=1e-9)
    assert TRAINING_SIGMAS[0] == pytest.approx(0.029167, rel=1e-4)
    assert TRAINING_SIGMAS[-1] == pytest.approx(14.6146, rel=1e-4)


@pytest.mark.parametrize("timestep", [0, 0.25, 1, 499.5, 998.75, 999])
def test_timesteps_and_sigmas_are_inverse(timestep: float) -> None:
    assert timestep_at(sigma_at(timestep)) == pytest.approx(timestep, abs=1e-9)
    assert nearest_timestep(sigma_at(timestep)) in {math.floor(timestep), math.ceil(timestep)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_every_schedule_falls_from_the_top_to_0(schedule: str, count: int) -> None:
    sigmas = SCHEDULES[schedule](count)
    assert len(sigmas) == count + 1
    assert sigmas[0] == pytest.approx(TRAINING_SIGMAS[-1])
    assert sigmas[-1] == 0
    assert all(before > after for before, after in pairwise(sigmas))


def test_karras_is_k_diffusion_s() -> None:
    """k_diffusion.sampling.get_sigmas_karras(5, 0.0291675, 14.614642)."""
    ramp = torch.linspace(0, 1, 5, dtype=torch.float64)
    low, high = TRAINING_SIGMAS[0] ** (1 / 7), TRAINING_SIGMAS[-1] ** (1 / 7)
    expected = (high + ramp * (low - high)) ** 7
    assert SCHEDULES["Karras"](5)[:-1] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("steps", [1, 2, 3, 19, 20, 25, 30, 999, 1000])
def test_ddim_runs_the_webui_s_timesteps(steps: int) -> None:
    """torch.clip(torch.asarray(list(range(0, 1000, 1000 // steps))) + 1, 0, 999), all but the lowest evaluated."""
    expected = [min(t + 1, 999) for t in range(0, 1000, 1000 // steps)][::-1]
    if steps == 1:
        expected = [999, 1]
    laid = lay_out("DDIM", "Automatic", steps).steps
    assert laid.timesteps == tuple(expected[:-1])
    assert laid.sigmas[-1] == TRAINING_SIGMAS[1]


def setup_img2img_steps(steps: int, strength: float) -> tuple[int, int]:
    """modules/sd_samplers_common.py of the webui, as its hires fix calls it."""
    return int(steps / min(strength, 0.999)), steps - 1


@pytest.mark.parametrize("strength", [0.05, 0.35, 0.5, 0.9999, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize("schedule", [*SCHEDULES])
def test_a_picture_is_redrawn_in_the_last_steps_of_as_many_as_the_webui_s(
    schedule: str, steps: int, strength: float
) -> None:
    scheduled, t_enc = setup_img2img_steps(steps, strength)
    laid = lay_out("Euler", schedule, steps, strength)
    assert list(laid.sigmas) == SCHEDULES[schedule](scheduled)[scheduled - t_enc - 1 :]
    assert (laid.steps.count, laid.asked, laid.noised) == (steps, steps, laid.sigmas[0])


@pytest.mark.parametrize("strength", [0.05, 0.35, 0.5, 0.9999, 1.0])
@pytest.mark.parametrize("steps", [3, 7, 20])
def test_ddim_redraws_the_webui_s_timesteps(steps: int, strength: float) -> None:
    """modules/sd_samplers_timesteps.py, sample_img2img, and ddim in ..._impl.py."""
    scheduled, t_enc = setup_img2img_steps(steps, strength)
    timesteps = [min(t + 1, 999) for t in range(0, 1000, 1000 // scheduled)]
    laid = lay_out("DDIM", "Automatic", steps, strength)
    assert laid.noised == TRAINING_SIGMAS[timesteps[t_enc]]
    evaluated = timesteps[:t_enc]
    assert laid.sigmas == tuple(TRAINING_SIGMAS[t] for t in reversed(evaluated))
    assert laid.steps.count == t_enc - 1


def test_a_whole_redrawing_is_the_whole_schedule() -> None:
    assert lay_out("Euler", "Karras", 20, 1).sigmas == lay_out("Euler", "Karras", 20).sigmas


@pytest.mark.parametrize(
    ("asked", "sampler", "scheduler"),
    [
        ("Euler", "Euler", "Automatic"),
        ("euler A", "Euler a", "Automatic"),
        ("k_dpmpp_2m", "DPM++ 2M", "Automatic"),
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("ddim", "DDIM", "Automatic"),
    ],
)
def test_names_are_the_webui_s_in_any_case(asked: str, sampler: str, scheduler: str) -> None:
    laid = lay_out(asked, "automatic", 10)
    assert (laid.sampler.name, laid.scheduler) == (sampler, scheduler)


def test_a_name_with_its_schedule_and_the_schedule_again() -> None:
    """As a later pass inherits them: the name from a pass, the schedule from the request as it ran."""
    assert lay_out("DPM++ 2M Karras", "karras", 10) == lay_out("DPM++ 2M Karras", "Automatic", 10)
    with pytest.raises(PlanError, match="no sampler 'DPM\\+\\+ 2M Karras'"):
        lay_out("DPM++ 2M Karras", "Exponential", 10)


def test_automatic_is_the_sampler_s_own() -> None:
    assert lay_out("DPM++ 2M", "Automatic", 10).sigmas == lay_out("DPM++ 2M", "karras", 10).sigmas
    assert lay_out("Euler", "Automatic", 10).sigmas == lay_out("Euler", "uniform", 10).sigmas


@pytest.mark.parametrize(
    ("sampler", "scheduler", "place", "reason"),
    [
        ("Heun", "Automatic", "request.sampler_name", "no sampler 'Heun', it has Euler, Euler a"),
        ("Euler", "beta", "request.scheduler", "no schedule type 'beta', it has Automatic, Uniform"),
        ("DDIM", "Karras", "request.scheduler", "DDIM has a schedule of its own"),
    ],
)
def test_what_it_does_not_have_is_refused_with_its_place(sampler: str, scheduler: str, place: str, reason: str) -> None:
    with pytest.raises(PlanError, match=reason.replace("(", r"\(")) as refused:
        lay_out(sampler, scheduler, 10)
    assert [problem.path for problem in refused.value.problems] == [place]


def follow(method: Method, sigmas: list[float], x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Sample where the answer is known: the data is a normal distribution of deviation 0.5 around 0.3."""
    generator = torch.Generator().manual_seed(seed)
    step = stepper(method, sigmas, lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype))
    for index, sigma in enumerate(sigmas[:-1]):
        x = step(x, 0.3 + (x - 0.3) * 0.25 / (0.25 + sigma**2), index)
    return x


def test_the_deterministic_methods_converge_to_the_exact_solution() -> None:
    start = torch.linspace(-30, 30, 7, dtype=torch.float64)
    low, high = TRAINING_SIGMAS[0], TRAINING_SIGMAS[-1]
    exact = 0.3 + (start - 0.3) * ((0.25 + low**2) / (0.25 + high**2)) ** 0.5
    errors = {  # down to the lowest sigma: the last step, to 0, is of first order in both
        (method, count): (follow(method, SCHEDULES["Karras"](count)[:-1], start) - exact).abs().max().item()
        for method in (Method.EULER, Method.DPMPP_2M)
        for count in (25, 50, 100)
    }
    assert errors[Method.EULER, 25] / errors[Method.EULER, 100] == pytest.approx(4, rel=0.2)  # first order
    assert errors[Method.DPMPP_2M, 100] < errors[Method.EULER, 100] / 4
    assert errors[Method.DPMPP_2M, 25] / errors[Method.DPMPP_2M, 100] > 10  # second order, nearly


def test_the_ancestral_method_reaches_the_data_s_distribution() -> None:
    start = torch.randn(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * TRAINING_SIGMAS[-1]
    end = follow(Method.EULER_ANCESTRAL, SCHEDULES["Karras"](200), start)
    assert end.mean().item() == pytest.approx(0.3, abs=0.02)
    assert end.std().item() == pytest.approx(0.5, abs=0.02)


def test_sampler_names_are_all_different() -> None:
    names = [name.casefold() for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)]
    assert len(set(names)) == len(names)


def test_a_fraction_is_of_the_steps_asked_for_where_the_webuis_ddim_runs_others() -> None:
    sampling = lay_out("DDIM", "Automatic", 60)
    halves = decode({"version": 1, "passes": [{}, {"switch_at": 0.5}]})
    assert [(part.first_step, part.end_step) for part in segments(halves, sampling.steps)] == [(0, 30), (30, 62)]
