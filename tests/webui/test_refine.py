"""Refine passes: a finished latent enlarged, made noisy and sampled again.

Where a test says `= the hires fix` it means bit-identical latents and pixels.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.webui.asking import REQUEST, hires, plan, runs
from tests.webui.host import Answer, Webui

REFINE = {"kind": "refine", "denoising_strength": 0.6, "steps": 4}


def refine(**more: Any) -> dict[str, Any]:
    return {**REFINE, "scale": 2, "upscaler": "Latent", **more}


def by_hires(webui: Webui, **more: Any) -> Answer:
    """The host's hires fix; its sampler and schedule where none is asked for are the request's."""
    return webui.generate(**{**REQUEST, **hires(webui), **more})


def size(pixels: bytes) -> int:
    return len(pixels) // 3


# --- the same as the host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "upscaler",
    ["Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (nearest-exact)", "Lanczos", "Nearest", "None"],
)
def test_c6_every_way_to_enlarge_is_the_hires_fix(webui: Webui, upscaler: str) -> None:
    ours = webui.generate_unchanged(plan=plan({}, refine(upscaler=upscaler)), **REQUEST)
    host = by_hires(webui, hr_upscaler=upscaler)
    assert runs(ours) == runs(host) == [("soft", 14)]
    assert ours.pixels == host.pixels
    assert size(ours.pixels[0]) == 256 * 128


SAME = [
    ({}, {}),
    ({"checkpoint": "ink"}, {"hr_checkpoint_name": "ink"}),
    ({"sampler_name": "Euler a"}, {"hr_sampler_name": "Euler a"}),
    ({"sampler_name": "DPM++ 2M", "scheduler": "karras"}, {"hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras"}),
    ({"scheduler": "Exponential"}, {"hr_scheduler": "Exponential"}),
    ({"sampler_name": "DDIM", "steps": 7}, {"hr_sampler_name": "DDIM", "hr_second_pass_steps": 7}),
    ({"steps": None}, {"hr_second_pass_steps": 0}),
    ({"denoising_strength": 0.3}, {"denoising_strength": 0.3}),
    ({"denoising_strength": 1}, {"denoising_strength": 1}),
    ({"prompt": "a rocket", "negative_prompt": "an owl"}, {"hr_prompt": "a rocket", "hr_negative_prompt": "an owl"}),
    ({"prompt": "[a rocket:an owl:0.5]"}, {"hr_prompt": "[a rocket:an owl:0.5]"}),
    ({"prompt": "[a rocket:an owl:1.5]"}, {"hr_prompt": "[a rocket:an owl:1.5]"}),
    ({"prompt": "a rocket <lora:one:0.8>"}, {"hr_prompt": "a rocket <lora:one:0.8>"}),
    (
        {"checkpoint": "ink", "prompt": "a fox <lora:one:0.8>", "upscaler": "Lanczos", "scale": 1.5},
        {"hr_checkpoint_name": "ink", "hr_prompt": "a fox <lora:one:0.8>", "hr_upscaler": "Lanczos", "hr_scale": 1.5},
    ),
    ({"checkpoint": "ink", "upscaler": "Lanczos"}, {"hr_checkpoint_name": "ink", "hr_upscaler": "Lanczos"}),
    (
        {"prompt": "a <lora:one:0.8>", "upscaler": "Lanczos"},
        {"hr_prompt": "a <lora:one:0.8>", "hr_upscaler": "Lanczos"},
    ),
    ({"scale": 1.5, "upscaler": "Lanczos"}, {"hr_scale": 1.5, "hr_upscaler": "Lanczos"}),
    ({"scale": 1, "upscaler": None}, {"hr_scale": 1}),
    ({"scale": 1.3}, {"hr_scale": 1.3}),
]


@pytest.mark.parametrize(("own", "asked"), SAME, ids=[json.dumps(own) for own, _ in SAME])
def test_c6_what_a_pass_has_of_its_own_is_what_the_hires_fix_has(
    webui: Webui, own: dict[str, Any], asked: dict[str, Any]
) -> None:
    asked_of_pass = {name: value for name, value in refine(**own).items() if value is not None}
    ours = webui.generate_unchanged(plan=plan({}, asked_of_pass), **REQUEST)
    host = by_hires(webui, **asked)
    assert runs(ours) == runs(host)
    assert ours.pixels == host.pixels


def test_c6_what_a_pass_leaves_out_is_the_requests(webui: Webui) -> None:
    request = {"sampler_name": "Euler a", "prompt": "[a rocket:an owl:0.5] <lora:two:1>", "cfg_scale": 6}
    forge = {"hr_cfg": 6} if webui.install.is_forge else {}
    ours = webui.generate_unchanged(plan=plan({}, refine()), **{**REQUEST, **request})
    assert ours.pixels == by_hires(webui, **request, **forge).pixels


def test_c6_after_a_switch_it_goes_on_as_the_hires_fix_does(webui: Webui) -> None:
    to_ink = {"checkpoint": "ink", "switch_at": 0.5, "cfg_scale": 4}
    ours = webui.generate_unchanged(plan=plan({}, to_ink, refine()), **REQUEST)
    host = webui.generate(plan=plan({}, to_ink), **REQUEST, **hires(webui))
    assert runs(ours) == runs(host) == [("soft", 5), ("ink", 9)]
    assert ours.pixels == host.pixels
