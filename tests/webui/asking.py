"""What the tests ask the host for, and how they read the answer."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest
from PIL import Image

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
    "multipass_memo_mb": 512,
    "multipass_passes_in_gallery": False,
    "multipass_temporary_runs": 50,
}
# the host forgets to put back overridden options that are not in its config.json: let them be there
KNOWN_OPTIONS = {
    "sd_model_checkpoint": "soft",
    "refiner_switch_by_sample_steps": False,
    "hires_fix_refiner_pass": "second pass",
    "samples_save": False,
    "grid_save": True,
    "grid_format": "png",
    "overlay_inpaint": True,
    "return_grid": True,
    "img2img_color_correction": False,
    "samples_format": "png",
    "enable_pnginfo": True,
    "live_previews_enable": False,
    "CLIP_stop_at_last_layers": 1,
    "sd_vae": "Automatic",
    "sd_checkpoints_limit": 1,
    "sd_noise_schedule": "Default",
    "img2img_fix_steps": False,
    "token_merging_ratio": 0,
    "token_merging_ratio_hr": 0,
    "img2img_extra_noise": 0,
    "use_old_scheduling": False,
    "pad_cond_uncond": False,
    "batch_cond_uncond": True,
    "upcast_attn": False,
    "cross_attention_optimization": "Automatic",
    "eta_noise_seed_delta": 0,
    "s_min_uncond": 0,
    "s_min_uncond_all": False,
    "emphasis": "Original",
    **OUR_OPTIONS,
    "outdir_samples": "",
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


def without_run(infotexts: tuple[str, ...]) -> list[str]:
    """Whatever run the pictures are of."""
    return [re.sub(r"Multipass run: [^,]+, ", "", text) for text in infotexts]


def clear_cache(webui: Webui) -> None:
    """So that every checkpoint is read again."""
    webui.post("/multipass/v1/cache/clear", {}).raise_for_status()


def cache(webui: Webui) -> dict[str, Any]:
    """What it tells of itself."""
    return webui.get("/multipass/v1/cache")


def b64(picture: Image.Image) -> str:
    """As the API takes it."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def image_of(picture: str) -> Image.Image:
    """One that the API answers."""
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def plan_in(infotext: str) -> dict[str, Any]:
    """The plan that a picture's text tells."""
    found = re.search(r'Multipass: ("(?:\\.|[^\\"])+")', infotext)
    assert found is not None, infotext
    return json.loads(json.loads(found[1]))


@contextmanager
def settings(webui: Webui, **values: Any) -> Iterator[None]:
    """While this lasts, these options are so. Only those that its file has: another would be there from then on."""
    unknown = values.keys() - json.loads((webui.data / "config.json").read_text()).keys()
    assert not unknown, f"to be set when the host has started: {unknown}"
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
