"""The command and the real webui are given the same plan and the same files: what comes out is the same picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multipass.hosts.standalone.cli import main
from tests.webui.host import Webui

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

    folder, config = models
    if not (folder / config.name).exists():
        (folder / config.name).symlink_to(config)
    written = tmp_path / "plan.json"
    written.write_text(json.dumps({**plan, "request": request}))
    assert main(["render", str(written), "--checkpoints", str(folder), "--out", str(tmp_path)]) == 0
    (picture,) = tmp_path.rglob("*.png")
    ours = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"), dtype=int)
    expected = np.frombuffer(theirs.pixels[0], dtype=np.uint8).reshape(ours.shape).astype(int)
    assert np.abs(ours - expected).max() <= LEVELS
