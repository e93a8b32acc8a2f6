"""The code as a whole: style, types, and which part may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOSTS = {"modules", "modules_forge", "backend", "gradio", "ldm", "k_diffusion"}
HEAVY = {"torch", "diffusers", "transformers", "safetensors", "numpy", "PIL"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(name: str) -> str:
    """Which of our parts a module belongs to; a foreign one keeps its top-level name."""
    parts = name.split(".")
    if parts[0] != "multipass":
        return parts[0]
    if parts[1:2] == ["hosts"]:
        return ".".join(parts[:3])
    if parts[1:2] in (["detection"], ["drawing"], ["masks"]):
        return "pictures"
    return "multipass.cache" if parts[1:2] == ["cache"] else "core"


FORBIDDEN = {
    "core": HOSTS
    | HEAVY
    | {"pictures", "multipass.cache", "multipass.hosts", "multipass.hosts.webui", "multipass.hosts.standalone"},
    "pictures": HOSTS
    | {"torch", "multipass.cache", "multipass.hosts", "multipass.hosts.webui", "multipass.hosts.standalone"},
    "multipass.cache": HOSTS | {"diffusers", "multipass.hosts", "multipass.hosts.webui", "multipass.hosts.standalone"},
    "multipass.hosts": HOSTS | HEAVY,
    "multipass.hosts.webui": {"diffusers", "multipass.hosts.standalone"},
    "multipass.hosts.standalone": HOSTS | {"multipass.hosts.webui"},
}


@pytest.mark.parametrize("path", sorted((ROOT / "multipass").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_arrows_between_the_parts_hold(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    forbidden = FORBIDDEN[package(name)] | {"scripts"}
    wrong = {found for found in imports(path) if package(found) in forbidden}
    assert not wrong


def test_the_entry_only_reaches_the_webui_adapter() -> None:
    found = {package(name) for path in (ROOT / "scripts").glob("*.py") for name in imports(path)}
    assert not found & (HEAVY | {"multipass.cache", "multipass.hosts.standalone", "core"})


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    run("ruff", "format", "--check", ".")


def test_the_types_hold() -> None:
    run("basedpyright", "--level", "error")
