"""The host that the tests in this folder share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.webui import browsing, checkpoints, families, table
from tests.webui.asking import KNOWN_OPTIONS, REQUEST, b64, settings
from tests.webui.browsing import Panel
from tests.webui.host import ROOT, Install, Webui, changes, find_install, running

PROBE = Path(__file__).parent / "probe"
EXTENSIONS = {"multipass": ROOT, "probe": PROBE}
STYLES = """name,prompt,negative_prompt
starry,"{prompt}, a star",an owl
and an owl,"BREAK an owl",
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
    if not host.install.is_forge_family:  # of which one has numbers for it
        host.set_options(fp8_storage="Disable")
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
    return b64(Image.radial_gradient("L").resize((128, 64)).convert("RGB"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, browsing.BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=browsing.ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, webui: Webui) -> Iterator[Page]:
    """The webui's, as a browser that was never there before sees it."""
    with browsing.opened(browser, webui.url) as page:
        yield page


@pytest.fixture
def panel(page: Page, webui: Webui) -> Panel:
    """Open, with the two passes that it has at first."""
    return Panel(page, webui).open()


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
def computed(webui: Webui) -> Iterator[None]:
    """Nothing is remembered of earlier requests: every evaluation counts."""
    with settings(webui, multipass_memo_mb=0):
        yield


@pytest.fixture(scope="module")
def both(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """A host with SD 1.x and SDXL checkpoints, and one for inpainting."""
    if install.is_forge_family:
        pytest.skip("this host knows no small models of this family")
    folder = tmp_path_factory.mktemp("both") / "checkpoints"
    config = checkpoints.make(folder)
    families.make(folder)
    checkpoints.make_inpainting(folder)
    data = tmp_path_factory.mktemp("both") / "data"
    with running(install, data, folder, config, EXTENSIONS) as host:
        settle(host)
        yield host


@pytest.fixture
def copied(webui: Webui, models: tuple[Path, Path]) -> Iterator[Path]:
    """A checkpoint that the test may do what it likes with."""
    file = models[0] / "copied.safetensors"
    shutil.copy(models[0] / "ink.safetensors", file)
    webui.post("/sdapi/v1/refresh-checkpoints", {}).raise_for_status()
    yield file
    file.unlink(missing_ok=True)
    webui.post("/sdapi/v1/refresh-checkpoints", {}).raise_for_status()
