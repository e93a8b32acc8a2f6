"""The samplers' formulas, on noise levels: from one latent and what the model makes of it to the next latent.

A latent here is always ``signal + sigma * noise`` (k-diffusion's convention). The functions take and return tensors
and use nothing but arithmetic, so they read like their papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from multipass.hosts.standalone.schedules import Method

if TYPE_CHECKING:
    from torch import Tensor


class Step(Protocol):
    """Takes step ``index``: the latent before it and the denoised picture the model sees in it -> the latent after."""

    def __call__(self, x: Tensor, denoised: Tensor, index: int) -> Tensor: ...


def stepper(method: Method, sigmas: Sequence[float], noise: Callable[[], Tensor]) -> Step:
    """The steps of one picture, to be called in order from 0: a method may remember the step before.

    Args:
        sigmas: one more than steps.
        noise: draws standard normal noise in the latent's shape; ancestral methods call it once per step but the last.
    """
    match method:
        case Method.EULER:
            return _euler(sigmas)
        case Method.EULER_ANCESTRAL:
            return _euler_ancestral(sigmas, noise)
        case Method.DPMPP_2M:
            return _dpmpp_2m(sigmas)


def _euler(sigmas: Sequence[float]) -> Step:
    """Karras et al. 2022, algorithm 1 without its second-order correction."""

    def step(x: Tensor, denoised: Tensor, index: int) -> Tensor:
        here, there = sigmas[index], sigmas[index + 1]
        return x + (x - denoised) / here * (there - here)

    return step


def _euler_ancestral(sigmas: Sequence[float], noise: Callable[[], Tensor]) -> Step:
    """Euler to a level below the next one, and fresh noise back up to it (k-diffusion, ``sample_euler_ancestral``)."""

    def step(x: Tensor, denoised: Tensor, index: int) -> Tensor:
        here, there = sigmas[index], sigmas[index + 1]
        up = min(there, there * math.sqrt(here**2 - there**2) / here)
        down = math.sqrt(there**2 - up**2)
        x = x + (x - denoised) / here * (down - here)
        return x + noise() * up if there > 0 else x

    return step


def _dpmpp_2m(sigmas: Sequence[float]) -> Step:
    """Lu et al. 2022, DPM-Solver++ (2M), algorithm 2: the step before gives the second order.

    A switch of checkpoint in between is harmless: what is remembered is a picture, not a property of the model.
    """
    before: Tensor | None = None

    def step(x: Tensor, denoised: Tensor, index: int) -> Tensor:
        nonlocal before
        here, there = sigmas[index], sigmas[index + 1]
        if before is None or there == 0:
            target = denoised
        else:
            ratio = math.log(sigmas[index - 1] / here) / math.log(here / there)
            target = (1 + 1 / (2 * ratio)) * denoised - 1 / (2 * ratio) * before
        before = denoised
        return there / here * x + (1 - there / here) * target

    return step
