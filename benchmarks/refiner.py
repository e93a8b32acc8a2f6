"""A plan against the webui's own Refiner: the same pictures, alternating, in one running host."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.setting import machine, options
from multipass.plan import MAX_PASSES
from tests.webui import checkpoints
from tests.webui.conftest import EXTENSIONS, KNOWN_OPTIONS
from tests.webui.host import Webui, find_install, running

REQUEST: dict[str, Any] = {
    "prompt": "a red apple",
    "seed": 7,
    "steps": 20,
    "width": 128,
    "height": 128,
    "cfg_scale": 4,
    "sampler_name": "Euler",
}
REFINER = {"refiner_checkpoint": "ink", "refiner_switch_at": 0.5}
FURTHER = MAX_PASSES - 2


def plan(switches: int) -> dict[str, Any]:
    """A and B taking turns, evenly over the steps."""
    later = [
        {"checkpoint": ("soft", "ink")[number % 2], "switch_at": number / (switches + 1)}
        for number in range(1, switches + 1)
    ]
    return {"plan": {"version": 1, "switch_unit": "timestep", "passes": [{"checkpoint": "soft"}, *later]}}


WAYS: dict[str, dict[str, Any]] = {
    "alone": {},
    "plan": plan(1),
    "refiner": REFINER,
    "plan, batch of four": {**plan(1), "n_iter": 4},
    "refiner, batch of four": {**REFINER, "n_iter": 4},
    "plan, many switches": plan(1 + FURTHER),
}


def measure(host: Webui, rounds: int) -> dict[str, list[float]]:
    """Seconds per picture of each way; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for index in tqdm(range(rounds + 1), unit="round"):
        for name, way in WAYS.items():
            started = time.perf_counter()
            host.try_generate(**REQUEST, **way).raise_for_status()
            if index:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = options(__doc__, rounds=20)
    arguments = parser.parse_args()
    install = find_install()
    if install is None:
        raise SystemExit("no webui: set WEBUI_DIR")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        config = checkpoints.make(place / "models/checkpoints")
        if install.is_forge:
            checkpoints.forge_configs(install.folder, config)
        with running(install, place / "data", place / "models/checkpoints", config, EXTENSIONS) as host:
            host.set_options(**KNOWN_OPTIONS | {"multipass_memo_mb": 0})
            same = host.generate(**REQUEST, **WAYS["plan"]).same_picture(host.generate(**REQUEST, **WAYS["refiner"]))
            seconds = measure(host, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures = {
        "host": install.folder.name,
        "machine": machine(),
        "same_picture": same,
        "rounds": arguments.rounds,
        "median_seconds": medians,
        "spread_seconds": {name: statistics.stdev(values) for name, values in seconds.items()},
        "plan_to_refiner": medians["plan"] / medians["refiner"],
        "plan_to_refiner_batch_of_four": medians["plan, batch of four"] / medians["refiner, batch of four"],
        "seconds_of_a_further_switch": (medians["plan, many switches"] - medians["plan"]) / FURTHER,
        "seconds_of_the_refiners_switch_and_back": medians["refiner"] - medians["alone"],
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
