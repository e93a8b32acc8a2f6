"""The host that the tests in this folder share."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.webui import checkpoints, table
from tests.webui.asking import OUR_OPTIONS, REQUEST
from tests.webui.host import ROOT, Install, Webui, changes, find_install, running

PROBE = Path(__file__).parent / "probe"
EXTENSIONS = {"multipass": ROOT, "probe": PROBE}
# the host forgets to put back overridden options that are not in its config.json: let them be there
KNOWN_OPTIONS = {
    "sd_model_checkpoint": "soft",
    "refiner_switch_by_sample_steps": False,
    "hires_fix_refiner_pass": "second pass",
    "samples_save": False,
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
    "eta_noise_seed_delta": 0,
    "s_min_uncond": 0,
    "s_min_uncond_all": False,
    "emphasis": "Original",
    **OUR_OPTIONS,
    "outdir_samples": "",
}
STYLES = """name,prompt,negative_prompt
starry,"{prompt}, a star",an owl
"""


@pytest.fixture(scope="session")
def install() -> Install:
    found = find_install()
    if found is None:
        pytest.skip("no webui: set WEBUI_DIR (and WEBUI_PYTHON) to run these tests inside the real one")
    return found


@pytest.fixture(scope="session")
def models(install: Install, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The checkpoints' folder and their config file."""
    folder = tmp_path_factory.mktemp("models") / "checkpoints"
    config = checkpoints.make(folder)
    if install.is_forge:
        checkpoints.forge_configs(install.folder, config)
    return folder, config


def settle(host: Webui) -> None:
    """Known options, and the first model in place: Forge loads it with the first picture."""
    host.set_options(**KNOWN_OPTIONS)
    if host.install.host == "reforge":  # which takes a model apart before it loads another, for seconds
        host.set_options(sd_checkpoints_limit=12)
    host.generate(steps=1, width=64, height=64)


@pytest.fixture(scope="session")
def webui(install: Install, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """With the extension."""
    folder, config = models
    data = tmp_path_factory.mktemp("webui") / "data"
    data.mkdir()
    (data / "styles.csv").write_text(STYLES)
    with running(install, data, folder, config, EXTENSIONS) as host:
        settle(host)
        yield host


@pytest.fixture(scope="session")
def plain_webui(
    install: Install, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Webui]:
    """The same without the extension."""
    folder, config = models
    data = tmp_path_factory.mktemp("plain") / "data"
    with running(install, data, folder, config, {"probe": PROBE}) as host:
        settle(host)
        yield host


@pytest.fixture
def unchanged(webui: Webui) -> Iterator[Callable[[], None]]:
    """Asserts that the host is as before (C15): when called, before another request could repair it, and in the end."""
    webui.generate(**REQUEST)
    before = webui.circumstances()

    def check() -> None:
        after = webui.circumstances()
        assert after["checkpoint"] == before["checkpoint"] == "soft"
        assert changes(before, after) == {}

    yield check
    check()


@pytest.fixture(scope="session")
def picture() -> str:
    """Something to start img2img from, as the API takes it."""
    image = Image.radial_gradient("L").resize((128, 64)).convert("RGB")
    data = io.BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def pytest_configure(config: pytest.Config) -> None:
    """``WRITE_TABLE=1``: write down what holds on this host."""
    if os.environ.get("WRITE_TABLE"):
        config.pluginmanager.register(table.Recorder(), "table")


def pytest_sessionfinish(session: pytest.Session) -> None:
    recorder = session.config.pluginmanager.get_plugin("table")
    found = find_install()
    if isinstance(recorder, table.Recorder) and found is not None:
        table.write(found.host, recorder.outcomes())


@pytest.fixture
def copied(webui: Webui, models: tuple[Path, Path]) -> Iterator[Path]:
    """A checkpoint that the test may do what it likes with."""
    file = models[0] / "copied.safetensors"
    shutil.copy(models[0] / "ink.safetensors", file)
    webui.post("/sdapi/v1/refresh-checkpoints", {}).raise_for_status()
    yield file
    file.unlink(missing_ok=True)
    webui.post("/sdapi/v1/refresh-checkpoints", {}).raise_for_status()
