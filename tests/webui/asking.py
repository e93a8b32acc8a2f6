"""What the tests ask the host for, and how they read the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest

from tests.webui.host import Answer, Webui
from tests.webui.samplers import HOSTS, SAMPLERS, STEPS, Sampler

REQUEST: dict[str, Any] = {
    "prompt": "a red apple",
    "negative_prompt": "a bus",
    "seed": 7,
    "steps": STEPS,
    "width": 128,
    "height": 64,
    "cfg_scale": 4,
    "sampler_name": "Euler",
}
OUR_OPTIONS = {  # as they are if nobody has set them
    "multipass_ram_budget_gb": 0.0,
    "multipass_vram_budget_gb": 0.0,
    "multipass_read_ahead": True,
    "multipass_manage_checkpoints": False,
    "multipass_fp8": False,
    "multipass_passes_in_gallery": False,
    "multipass_temporary_runs": 50,
}
LOOPBACK = {"Loops": 2, "Final denoising strength": 0.5}
FEW = [sampler for sampler in SAMPLERS if str(sampler) in ("Euler", "Euler a", "DPM++ 2M Karras", "DDIM")]


def plan(*passes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "passes": list(passes), **more}


def a_then_b(switch_at: float, unit: str = "steps", **second: Any) -> dict[str, Any]:
    own = {"checkpoint": "ink", "switch_at": switch_at, **second}
    return plan({"checkpoint": "soft"}, own, switch_unit=unit)


def alone(webui: Webui, checkpoint: str, **request: Any) -> Answer:
    return webui.generate(**{**REQUEST, **request, "override_settings": {"sd_model_checkpoint": checkpoint}})


def refined(webui: Webui, at: float, unit: str = "steps", **settings: Any) -> dict[str, Any]:
    """The request for the same with the host's own Refiner."""
    units = HOSTS[webui.install.host].units
    if unit not in units:
        pytest.skip("this host's Refiner counts steps only")
    if len(units) > 1:
        settings["refiner_switch_by_sample_steps"] = unit == "steps"
    return {"refiner_checkpoint": "ink", "refiner_switch_at": at, "override_settings": settings}


def asking_for(webui: Webui, sampler: Sampler, **more: Any) -> dict[str, Any]:
    """The request with a sampler, if the host has it."""
    fields = sampler.request(webui.install.host)
    if fields["sampler_name"] not in webui.samplers:
        pytest.skip(f"this host has no {fields['sampler_name']}")
    return {**REQUEST, **fields, **more}


def hires(webui: Webui) -> dict[str, Any]:
    forge: dict[str, Any] = {"hr_additional_modules": ["Use same choices"]} if webui.install.is_forge else {}
    if webui.install.host in ("forge", "reforge"):  # where 1 is what it is without
        forge["hr_cfg"] = REQUEST["cfg_scale"]
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 4}
    return {**hires, "denoising_strength": 0.6, **forge}


def runs(answer: Answer) -> list[tuple[str, int]]:
    """Which checkpoint answered how many evaluations, in order."""
    return [(name, len(list(group))) for name, group in groupby(answer.evaluations)]


def clear_cache(webui: Webui) -> None:
    """So that every checkpoint is read again."""
    webui.post("/multipass/v1/cache/clear", {}).raise_for_status()


def cache(webui: Webui) -> dict[str, Any]:
    """What it tells of itself."""
    return webui.get("/multipass/v1/cache")


@contextmanager
def settings(webui: Webui, **values: Any) -> Iterator[None]:
    """While this lasts, these options are so."""
    before = {**OUR_OPTIONS, **webui.get("/sdapi/v1/options")}  # Forge does not tell of ours
    webui.set_options(**values)
    try:
        yield
    finally:
        webui.set_options(**{name: before[name] for name in values})


def kept(webui: Webui) -> dict[tuple[str, str], int]:
    """Bytes by checkpoint and component."""
    return {
        (entry["checkpoint"].partition(".")[0], entry["component"]): entry["nbytes"]
        for entry in cache(webui)["entries"]
    }
