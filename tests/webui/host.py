"""A real webui in a process of its own, with the project linked into its extensions, and a client to talk to it."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from PIL import Image

ROOT = Path(__file__).parents[2]
START_SECONDS = 300
STARTED = "Startup time:"  # in the log, each time that the page is up
REQUEST_SECONDS = 300

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "OMP_NUM_THREADS": "1",  # spinning threads of two processes would slow each other twentyfold
    "PYTHONUNBUFFERED": "1",
}
COMMON_ARGS = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--api", "--no-download-sd-model",
               "--disable-console-progressbars", "--skip-version-check")  # fmt: skip


@dataclass(frozen=True)
class Install:
    """A webui on this machine."""

    folder: Path
    python: Path

    @property
    def host(self) -> str:
        """Which one: ``a1111``, ``forge``, ``classic`` or ``reforge``."""
        if not (self.folder / "modules_forge").is_dir():
            return "a1111"
        if (self.folder / "backend").is_dir():
            return "forge"
        return "reforge" if (self.folder / "modules/sd_schedulers.py").is_file() else "classic"

    @property
    def is_forge(self) -> bool:
        """Whether it is Forge itself."""
        return self.host == "forge"

    @property
    def is_forge_family(self) -> bool:
        return self.host != "a1111"

    @property
    def args(self) -> tuple[str, ...]:
        """How it runs without a GPU, in full precision."""
        if self.is_forge_family:
            # with a data folder elsewhere its page may not read its own files
            return (*COMMON_ARGS, "--always-cpu", "--gradio-allowed-path", str(self.folder))
        return (*COMMON_ARGS, "--use-cpu", "all", "--no-half", "--precision", "full")


def find_install() -> Install | None:
    """The webui at ``$WEBUI_DIR`` (default ``~/stable-diffusion-webui``), if there is one."""
    folder = Path(os.environ.get("WEBUI_DIR", "~/stable-diffusion-webui")).expanduser().resolve()
    python = Path(os.environ.get("WEBUI_PYTHON", folder / "venv/bin/python")).expanduser()
    return Install(folder, python) if (folder / "launch.py").is_file() and python.is_file() else None


@dataclass(frozen=True)
class Answer:
    """What one generation gave.

    Attributes:
        evaluations: the checkpoint in place at each evaluation of the UNet.
        loads: the checkpoint files that were read.
        encodings: for each encoding of a text, how many evaluations had been made before it.
        modules: how many different modules answered.
        patched: the checkpoint in place at each call of the UNet that the probe patched.
    """

    pixels: tuple[bytes, ...]
    latents: tuple[str, ...]
    evaluations: tuple[str, ...]
    infotexts: tuple[str, ...]
    loads: tuple[str, ...]
    encodings: tuple[int, ...]
    modules: int
    patched: tuple[str, ...]

    def same_picture(self, other: Answer) -> bool:
        """Bit-identical latents and pixels, and that there is a picture at all."""
        return bool(self.pixels) and self.pixels == other.pixels and self.latents == other.latents


class Webui:
    """A running host."""

    def __init__(self, url: str, data: Path, log: Path, install: Install) -> None:
        self.url, self.data, self.log, self.install = url, data, log, install

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=REQUEST_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=REQUEST_SECONDS)

    @cached_property
    def samplers(self) -> tuple[str, ...]:
        """The names of those it has."""
        return tuple(sampler["name"] for sampler in self.get("/sdapi/v1/samplers"))

    @cached_property
    def has_extension(self) -> bool:
        """Whether ours is there."""
        return requests.get(f"{self.url}/multipass/v1/schema", timeout=REQUEST_SECONDS).status_code == requests.codes.ok

    def script(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request for one of the host's scripts: its defaults, but for those with these labels."""
        listed = next(own for own in self.get("/sdapi/v1/script-info") if own["name"] == name.lower())
        return {
            "script_name": name,
            "script_args": [arguments.get(own["label"], own["value"]) for own in listed["args"]],
        }

    def set_options(self, **options: Any) -> None:
        """Those that this host has; ours are always there, although Forge does not tell of them."""
        known = self.get("/sdapi/v1/options")
        ours = "multipass_" if self.has_extension else ()
        there = {name: value for name, value in options.items() if name in known or name.startswith(ours)}
        self.post("/sdapi/v1/options", there).raise_for_status()

    def arm(self, **fault: Any) -> None:
        """Forget what was recorded, and fail as told in the next generation."""
        self.post("/probe/arm", fault).raise_for_status()

    def reload_ui(self) -> None:
        """As the button does, but not through gradio's queue, which AUTOMATIC1111 can close before it has answered and
        then waits for. Watched in the log, as the start is: asked something after its page is there and before its API
        is, it ends."""
        before = self.log.read_text(errors="replace").count(STARTED)
        self.post("/probe/reload", {}).raise_for_status()
        deadline = time.monotonic() + START_SECONDS
        while self.log.read_text(errors="replace").count(STARTED) == before:
            assert time.monotonic() < deadline, "the page did not come back"
            time.sleep(0.2)

    def try_generate(self, kind: str = "txt2img", plan: Any = None, **request: Any) -> requests.Response:
        """One request. ``plan`` is sent as the script's arguments: a list as it is, anything else as ``[plan]``."""
        if plan is not None:
            args = plan if isinstance(plan, list) else [plan]
            request["alwayson_scripts"] = {"Multipass": {"args": args}, **request.get("alwayson_scripts", {})}
        return self.post(f"/sdapi/v1/{kind}", request)

    def generate(self, kind: str = "txt2img", plan: Any = None, **request: Any) -> Answer:
        """One request that must succeed."""
        self.arm()
        answer = self.try_generate(kind, plan, **request)
        assert answer.status_code == 200, answer.text[:2000]
        return self.read(answer)

    def generate_with(self, fault: dict[str, Any], plan: Any, **request: Any) -> Answer:
        """One request, which must succeed, while the probe does something."""
        self.arm(**fault)
        answer = self.try_generate(plan=plan, **request)
        assert answer.status_code == 200, answer.text[:2000]
        return self.read(answer)

    def generate_unchanged(self, kind: str = "txt2img", plan: Any = None, **request: Any) -> Answer:
        """As ``generate``, and the host must be afterwards as it was before (C15)."""
        before = self.circumstances()
        answer = self.generate(kind, plan, **request)
        found = changes(before, self.circumstances())
        assert found == {}, str(found)[:2000]
        return answer

    def read(self, answer: requests.Response) -> Answer:
        body, state = answer.json(), self.state()
        images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in body["images"]]
        return Answer(
            pixels=tuple(image.convert("RGB").tobytes() for image in images),
            latents=tuple(state["latents"]),
            evaluations=tuple(state["evaluations"]),
            loads=tuple(state["loads"]),
            encodings=tuple(state["encodings"]),
            modules=len(set(state["modules"])),
            patched=tuple(state["patched"]),
            infotexts=tuple(json.loads(body["info"])["infotexts"]),
        )

    def state(self) -> dict[str, Any]:
        return self.get("/probe/state")

    def _anywhere(self, value: Any) -> Any:
        """Without the data folder's name, which differs from host to host."""
        return value.replace(str(self.data), "DATA") if isinstance(value, str) else value

    def circumstances(self) -> dict[str, Any]:
        """Everything that a request must leave as it found it."""
        config = self.data / "config.json"
        return {
            "options": {name: self._anywhere(value) for name, value in self.get("/sdapi/v1/options").items()},
            "config.json": self._anywhere(config.read_text()) if config.exists() else None,
            "checkpoint": self.state()["checkpoint"],
            "functions": self.get("/probe/functions"),
            "model": self.get("/probe/model"),
        }


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What differs in a host's circumstances, fit for an error message."""
    found: dict[str, Any] = {}
    for part, one in before.items():
        other = after[part]
        if isinstance(one, dict) and isinstance(other, dict):
            pairs = {name: (one.get(name), other.get(name)) for name in one.keys() | other.keys()}
            found |= {f"{part}.{name}": pair for name, pair in pairs.items() if pair[0] != pair[1]}
        elif one != other:
            found[part] = (one, other)
    return found


@contextmanager
def running(
    install: Install, data: Path, checkpoints: Path, config: Path, extensions: Mapping[str, Path], *more: str
) -> Iterator[Webui]:
    """Start a webui with its own data folder; ended, whatever happens, when the block is left.

    Args:
        checkpoints: a folder of checkpoints, which all have the original config file ``config``; beside it are the
            folders ``loras`` and, if there are any, ``upscalers`` of ESRGAN models.
        extensions: by the name that the host knows them by, which also orders them.
        more: further arguments of the host.
    """
    (data / "extensions").mkdir(parents=True)
    for name, extension in extensions.items():
        (data / "extensions" / name).symlink_to(extension)
    if ROOT in extensions.values():  # what the others need is not for a test to install
        _install(install)
    (data / "models").mkdir(exist_ok=True)
    (data / "models/Lora").symlink_to(checkpoints.parent / "loras")
    if (checkpoints.parent / "upscalers").is_dir():  # of which the host would make one that is not there
        (data / "models/ESRGAN").symlink_to(checkpoints.parent / "upscalers")
    port, log = _free_port(), data / "webui.log"
    command = [str(install.python), "launch.py", *install.args, "--port", str(port), "--data-dir", str(data)]
    env = {**os.environ, **OFFLINE, "PROBE_CONFIG": str(config)}
    if install.is_forge:
        env["PROBE_FORGE_CONFIG"] = str(config.parent / "forge")
    command += ["--ckpt-dir", str(checkpoints), *more]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=install.folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(process, log)
        host = Webui(f"http://127.0.0.1:{port}", data, log, install)
        host.state()  # answers once the first model, which a thread loads, is there
        yield host
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _install(install: Install) -> None:
    """Run our installer as the host does when it starts."""
    command = [str(install.python), str(ROOT / "install.py")]
    env = {**os.environ, "PYTHONPATH": str(install.folder)}
    subprocess.run(command, cwd=install.folder, env=env, check=True, timeout=300)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the host says that it is ready. Asking over HTTP before that can kill it: it adds routes late."""
    deadline = time.monotonic() + START_SECONDS
    while STARTED not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the webui did not start:\n{log.read_text(errors='replace')[-5000:]}")
        time.sleep(0.2)
