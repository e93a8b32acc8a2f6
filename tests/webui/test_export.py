"""`multipass demo --export` puts the demo's checkpoints into a webui's folder: there they load and render."""

from __future__ import annotations

from pathlib import Path

import pytest

from multipass.hosts.standalone.cli import main
from tests.webui.asking import KNOWN_OPTIONS, REQUEST, a_then_b, refined, runs
from tests.webui.conftest import EXTENSIONS
from tests.webui.host import Install, running


def test_the_exported_checkpoints_render_in_the_webui(
    install: Install, models: tuple[Path, Path], tmp_path: Path
) -> None:
    if install.is_forge_family:
        pytest.skip("Forge tells architectures by their widths, and knows none as small as the demo pair's")
    folder = tmp_path / "Stable-diffusion"
    assert main(["demo", "--export", str(folder)]) == 0
    with running(install, tmp_path / "data", folder, models[1], EXTENSIONS) as host:
        host.set_options(**KNOWN_OPTIONS)
        ours = host.generate_unchanged(plan=a_then_b(0.5), **REQUEST)
        assert runs(ours) == [("soft", 5), ("ink", 5)]
        assert ours.same_picture(host.generate(**refined(host, 0.5), **REQUEST))
