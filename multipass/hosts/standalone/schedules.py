"""What a sampler will run: noise levels and training timesteps, as the webui and k-diffusion lay them out.

Pure Python, so that a plan can be checked without loading torch. The noise levels follow Stable Diffusion's training
schedule (1000 steps, betas from 0.00085 to 0.012, linear in their square roots); sigma is the noise's standard
deviation over the signal's.
"""

from __future__ import annotations

import enum
import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import msgspec

from multipass.plan import PlanError, Problem
from multipass.schedule import TRAINING_TIMESTEPS, SamplingSteps

AUTOMATIC = "Automatic"


def _training_sigmas() -> tuple[float, ...]:
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    betas = ((low + (high - low) * i / (TRAINING_TIMESTEPS - 1)) ** 2 for i in range(TRAINING_TIMESTEPS))
    kept = itertools.accumulate((1 - beta for beta in betas), lambda product, factor: product * factor)
    return tuple(math.sqrt((1 - alpha) / alpha) for alpha in kept)


TRAINING_SIGMAS = _training_sigmas()
"""Sigma by training timestep, rising from 0.0292 to 14.6."""
_LOG_SIGMAS = tuple(map(math.log, TRAINING_SIGMAS))


def sigma_at(timestep: float) -> float:
    """Sigma at a timestep from 0 to 999, between two of them by their logarithms."""
    low = min(int(timestep), TRAINING_TIMESTEPS - 2)
    share = timestep - low
    return math.exp((1 - share) * _LOG_SIGMAS[low] + share * _LOG_SIGMAS[low + 1])


def timestep_at(sigma: float) -> float:
    """The inverse of ``sigma_at``; what lies outside the training schedule gets its nearest end."""
    wanted = math.log(sigma)
    high = min(max(bisect_left(_LOG_SIGMAS, wanted), 1), TRAINING_TIMESTEPS - 1)
    low = high - 1
    share = (wanted - _LOG_SIGMAS[low]) / (_LOG_SIGMAS[high] - _LOG_SIGMAS[low])
    return low + min(max(share, 0.0), 1.0)


def nearest_timestep(sigma: float) -> int:
    """The training timestep whose sigma is nearest: how the webui's Refiner reads a sampler's position."""
    return min(range(TRAINING_TIMESTEPS), key=lambda t: abs(TRAINING_SIGMAS[t] - sigma))


# --- schedule types: how many steps -> as many sigmas, falling, and a last 0 ------------------------------------------


def _uniform(count: int) -> list[float]:
    top = TRAINING_TIMESTEPS - 1
    return [*(sigma_at(top - top * i / max(count - 1, 1)) for i in range(count)), 0.0]


def _sgm_uniform(count: int) -> list[float]:
    top = TRAINING_TIMESTEPS - 1
    return [*(sigma_at(top - top * i / count) for i in range(count)), 0.0]


def _karras(count: int, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, equation 5."""
    low, high = TRAINING_SIGMAS[0] ** (1 / rho), TRAINING_SIGMAS[-1] ** (1 / rho)
    return [*((high + (low - high) * i / max(count - 1, 1)) ** rho for i in range(count)), 0.0]


def _exponential(count: int) -> list[float]:
    low, high = _LOG_SIGMAS[0], _LOG_SIGMAS[-1]
    return [*(math.exp(high + (low - high) * i / max(count - 1, 1)) for i in range(count)), 0.0]


SCHEDULES: dict[str, Callable[[int], list[float]]] = {
    "Uniform": _uniform,
    "Karras": _karras,
    "Exponential": _exponential,
    "SGM Uniform": _sgm_uniform,
}


def _ddim(count: int) -> list[float]:
    """The webui's DDIM: every ``1000 // count``-th timestep and one more, down to the lowest, not to 0.

    As there, what is sampled can be one step less (20 become 19) or more than asked: the lowest timestep is where the
    last step ends.
    """
    timesteps = [min(t + 1, TRAINING_TIMESTEPS - 1) for t in range(0, TRAINING_TIMESTEPS, TRAINING_TIMESTEPS // count)]
    if len(timesteps) == 1:  # one step: from the top to the bottom
        timesteps.append(TRAINING_TIMESTEPS - 1)
    return [TRAINING_SIGMAS[t] for t in reversed(timesteps)]


# --- samplers ---------------------------------------------------------------------------------------------------------


class Method(enum.Enum):
    """How a step is taken; ``sampling.py`` has the formulas."""

    EULER = "euler"
    EULER_ANCESTRAL = "euler ancestral"
    DPMPP_2M = "dpm++ 2m"


class Sampler(msgspec.Struct, frozen=True):
    """A sampler as the webui lists it.

    Attributes:
        automatic: the schedule type that ``Automatic`` means for it.
        own_schedule: set where the sampler lays out its steps itself and takes no schedule type.
        scaled_noise: whether the first latent is noise of the top sigma (k-diffusion) or of the unit-variance process
            at that level (DDIM).
    """

    name: str
    method: Method
    aliases: tuple[str, ...] = ()
    automatic: str = "Uniform"
    own_schedule: Callable[[int], list[float]] | None = None
    scaled_noise: bool = True


SAMPLERS = (
    Sampler("Euler", Method.EULER, ("k_euler",)),
    Sampler("Euler a", Method.EULER_ANCESTRAL, ("k_euler_a", "k_euler_ancestral")),
    Sampler("DPM++ 2M", Method.DPMPP_2M, ("k_dpmpp_2m",), automatic="Karras"),
    # deterministic DDIM is Euler's method in sigma, on its own timesteps (Karras et al. 2022, appendix C.3)
    Sampler("DDIM", Method.EULER, own_schedule=_ddim, scaled_noise=False),
)
MOST_SCHEDULED = 100_000
"""How many steps a schedule may be laid over. A little strength takes few of very many."""


class Sampling(msgspec.Struct, frozen=True):
    """A sampler with a schedule laid over a number of steps: everything about the steps that is known beforehand.

    Attributes:
        scheduler: the type as asked for (``Automatic`` stays), in its full spelling.
        sigmas: the noise level at the start of each step that is run and, last, where the final one ends.
        asked: the steps asked for, which fractions are fractions of, even where the sampler runs one more or less.
        noised: the level that a picture is made noisy to before the first step.
    """

    sampler: Sampler
    scheduler: str
    sigmas: tuple[float, ...]
    asked: int
    noised: float

    @property
    def steps(self) -> SamplingSteps:
        """What the plan is laid over."""
        timesteps = tuple(float(nearest_timestep(sigma)) for sigma in self.sigmas[:-1])
        return SamplingSteps(self.sigmas, timesteps, asked=self.asked)


def lay_out(
    sampler_name: str,
    scheduler: str,
    steps: int,
    strength: float | None = None,
    place: Callable[[str], str] = "request.{}".format,
) -> Sampling:
    """The steps of a sampler by its name in the webui, in any case; ``DPM++ 2M Karras`` names both.

    Args:
        strength: how much of a picture is redrawn, above 0: the last ``steps`` of a schedule with more of them, as the
            webui's hires fix counts. ``None``: the whole schedule, from noise.
        place: of a field, for what is wrong with it.

    Raises:
        PlanError: for a sampler or schedule type that the command does not have, and for steps that it cannot lay out.
    """
    asked = sampler_name.strip().casefold()
    for schedule in SCHEDULES:
        if scheduler.casefold() in {AUTOMATIC.casefold(), schedule.casefold()}:
            named = asked.removesuffix(" " + schedule.casefold())
            asked, scheduler = (asked, scheduler) if named == asked else (named, schedule)
    sampler = {name.casefold(): s for s in SAMPLERS for name in (s.name, *s.aliases)}.get(asked)
    if sampler is None:
        raise PlanError(Problem(place("sampler_name"), _unknown("sampler", sampler_name, [s.name for s in SAMPLERS])))
    spelled = {name.casefold(): name for name in (AUTOMATIC, *SCHEDULES)}.get(scheduler.strip().casefold())
    if spelled is None:
        known = [AUTOMATIC, *SCHEDULES]
        raise PlanError(Problem(place("scheduler"), _unknown("schedule type", scheduler, known)))
    if sampler.own_schedule is not None and spelled != AUTOMATIC:
        raise PlanError(
            Problem(place("scheduler"), f"{sampler.name} has a schedule of its own: {AUTOMATIC}, not {spelled}")
        )
    # modules/sd_samplers_common.py, setup_img2img_steps
    scheduled = steps if strength is None else int(steps / min(strength, 0.999))
    most = MOST_SCHEDULED if sampler.own_schedule is None else TRAINING_TIMESTEPS
    if scheduled > most:
        reason = f"{steps} steps at a strength of {strength:g} are the last of {scheduled}, {sampler.name} has {most}"
        raise PlanError(Problem(place("steps"), reason))
    if sampler.own_schedule is None:
        whole = SCHEDULES[sampler.automatic if spelled == AUTOMATIC else spelled](scheduled)
        sigmas = tuple(whole[scheduled - steps :])
        return Sampling(sampler, spelled, sigmas, steps, sigmas[0])
    whole = sampler.own_schedule(scheduled)
    if strength is None:
        return Sampling(sampler, spelled, tuple(whole), steps, whole[0])
    # as there, it begins one level below the one that the picture is made noisy to, and ends at the lowest
    if steps < 3:
        reason = f"{sampler.name} redraws in two steps less than asked, as in the webui: expected at least 3"
        raise PlanError(Problem(place("steps"), f"{reason}, got {steps}"))
    return Sampling(sampler, spelled, tuple(whole[1 - steps :]), steps, whole[-steps])


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    return f"the command has no {what} {name!r}, it has {', '.join(known)}"
