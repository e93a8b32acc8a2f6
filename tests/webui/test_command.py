"""The command and the real webui are given the same plan and the same files: what comes out is the same picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multipass import masks
from multipass.hosts.standalone.cli import main
from tests.webui.asking import b64
from tests.webui.host import Answer, Webui

SAMPLERS = [("Euler", "Automatic"), ("Euler a", "Automatic"), ("DPM++ 2M", "Karras"), ("DDIM", "Automatic")]
# the two round differently on their way to 8 bits; nothing else may differ
LEVELS = 1


@pytest.mark.parametrize("unit", ["steps", "timestep"])
@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLERS)
def test_the_command_renders_what_the_webui_renders(
    webui: Webui, models: tuple[Path, Path], tmp_path: Path, sampler: str, scheduler: str, unit: str
) -> None:
    if webui.install.host == "classic":
        pytest.skip("this host's pictures of the same request are others than AUTOMATIC1111's, without a plan too")
    if webui.install.host in ("forge", "reforge") and scheduler == "Karras":
        pytest.skip("this host rounds a sigma to a whole timestep, the command interpolates as A1111 does")
    request = {"prompt": "a (red:1.2) apple", "negative_prompt": "a bus", "seed": 7, "steps": 10, "cfg_scale": 4}
    request |= {"width": 128, "height": 64, "sampler_name": sampler, "scheduler": scheduler}
    passes = [{"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.55, "prompt": "a rocket"}]
    plan = {"version": 1, "switch_unit": unit, "passes": passes}
    theirs = webui.generate(plan=plan, **request)

    ours = rendered({**plan, "request": request}, models, tmp_path)
    assert np.abs(difference(ours, theirs)).max() <= LEVELS


UPSCALERS = ["Latent", "Latent (bicubic antialiased)", "Latent (nearest-exact)"]
REQUEST = {"prompt": "a (red:1.2) apple", "negative_prompt": "a bus", "seed": 7, "steps": 6, "cfg_scale": 4}
REQUEST |= {"width": 128, "height": 64, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}


@pytest.mark.parametrize(
    ("sampler", "scheduler", "upscaler"),
    [*((*sampler, "Latent") for sampler in SAMPLERS), *(("Euler a", "Automatic", name) for name in UPSCALERS[1:])],
)
def test_the_command_refines_what_the_webui_s_hires_fix_refines(
    *, webui: Webui, models: tuple[Path, Path], tmp_path: Path, sampler: str, scheduler: str, upscaler: str
) -> None:
    sampled = {"sampler_name": sampler, "scheduler": scheduler, "denoising_strength": 0.65}
    assert np.abs(differences(webui, models, tmp_path, upscaler=upscaler, **sampled)).max() <= LEVELS


@pytest.mark.parametrize("strength", [0.0, 0.65])
@pytest.mark.parametrize("upscaler", ["Lanczos", "Nearest", "None"])
def test_the_command_enlarges_pixels_as_the_webui_does(
    *, webui: Webui, models: tuple[Path, Path], tmp_path: Path, upscaler: str, strength: float
) -> None:
    """But for the noise that the webui adds to what its VAE encodes, drawn where nobody gave a seed."""
    found = differences(webui, models, tmp_path, upscaler=upscaler, denoising_strength=strength)
    assert np.abs(found).mean() <= LEVELS / 2


def differences(webui: Webui, models: tuple[Path, Path], out: Path, **refine: object) -> np.ndarray:
    """Between the command's refine pass and the webui's hires fix."""
    if webui.install.host != "a1111":
        pytest.skip("compared with the host whose arithmetic the command follows")
    own = {"kind": "refine", "checkpoint": "ink", "prompt": "a rocket", "steps": 5, "scale": 1.5} | refine
    hires = {"enable_hr": True, "hr_checkpoint_name": "ink", "hr_prompt": "a rocket", "hr_negative_prompt": "a bus"}
    hires |= {"hr_second_pass_steps": 5, "hr_scale": 1.5, "hr_upscaler": own["upscaler"]}
    hires |= {"hr_sampler_name": own.get("sampler_name"), "hr_scheduler": own.get("scheduler")}
    hires |= {"denoising_strength": own["denoising_strength"]}
    theirs = webui.generate(**REQUEST, **hires, override_settings={"sd_model_checkpoint": "soft"})
    plan = {"version": 1, "passes": [{"checkpoint": "soft"}, own], "save_passes": False, "request": REQUEST}
    return difference(rendered(plan, models, out), theirs)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize(
    "region", [{"mask_padding": 8}, {"only_masked": False}, {"invert": True, "mask_blur": 2, "width": 64, "height": 64}]
)
def test_the_command_repaints_what_the_webui_inpaints(
    *, webui: Webui, models: tuple[Path, Path], tmp_path: Path, region: dict[str, object], sampler: str
) -> None:
    """But for the noise that the webui adds to what its VAE encodes."""
    if webui.install.host != "a1111":
        pytest.skip("compared with the host whose arithmetic the command follows")
    request = REQUEST | {"sampler_name": sampler, "scheduler": "Automatic"}
    mask = Image.new("L", (128, 64))
    mask.paste(255, (16, 12, 56, 52))
    drawn = webui.generate(**request, override_settings={"sd_model_checkpoint": "soft"})
    whole = {
        "mask_blur": 4,
        "mask_padding": 32,
        "only_masked": True,
        "invert": False,
        "width": 128,
        "height": 64,
    } | region
    scene = Image.frombytes("RGB", (128, 64), drawn.pixels[0])
    theirs = webui.generate(
        "img2img",
        **request | {"prompt": "a rocket", "steps": 5, "width": whole["width"], "height": whole["height"]},
        init_images=[b64(scene)],
        mask=masks.written(mask),
        mask_blur=whole["mask_blur"],
        inpainting_fill=1,
        inpaint_full_res=whole["only_masked"],
        inpaint_full_res_padding=whole["mask_padding"],
        inpainting_mask_invert=int(bool(whole["invert"])),
        denoising_strength=0.65,
        override_settings={"sd_model_checkpoint": "ink", "img2img_fix_steps": True},
    )
    own = {"kind": "subject", "checkpoint": "ink", "prompt": "a rocket", "steps": 5, "denoising_strength": 0.65}
    passes = [{"checkpoint": "soft"}, own | {"mask": masks.written(mask)} | region]
    ours = rendered({"version": 1, "passes": passes, "save_passes": False, "request": request}, models, tmp_path)
    before = np.asarray(scene, dtype=int)
    found = np.abs(difference(ours, theirs))
    assert found.mean() <= LEVELS / 2
    assert np.abs(ours - before).mean() > 4 * LEVELS


def rendered(plan: dict[str, object], models: tuple[Path, Path], out: Path) -> np.ndarray:
    """The command's picture."""
    folder, config = models
    if not (folder / config.name).exists():
        (folder / config.name).symlink_to(config)
    written = out / "plan.json"
    written.write_text(json.dumps(plan))
    assert main(["render", str(written), "--checkpoints", str(folder), "--out", str(out)]) == 0
    (picture,) = out.glob("multipass/*/*/*.png")
    return np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"), dtype=int)


def difference(ours: np.ndarray, theirs: Answer) -> np.ndarray:
    """In levels."""
    return ours - np.frombuffer(theirs.pixels[0], dtype=np.uint8).reshape(ours.shape).astype(int)
