"""A sweep of the switch, and a second prompt tried again and again: a plan, with the memo and without, against the
webui's Refiner, the same pictures in one running webui."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.pairs import PAIRS, Pair
from benchmarks.setting import automatic1111, machine, options
from benchmarks.switch import STOPWATCH, table
from multipass.cache import MEMO_MB
from tests.webui.conftest import EXTENSIONS, KNOWN_OPTIONS
from tests.webui.host import Webui, running

CELLS = 8
PROMPTS = ("an owl", "a star", "a bus", "a fox")
MEMO, NO_MEMO, REFINER = "plan", "plan, memo off", "Refiner"
WAYS = (MEMO, NO_MEMO, REFINER)


class Made(NamedTuple):
    """What several pictures took: seconds, and calls of the UNet."""

    seconds: float
    calls: int


class Bench:
    """A running webui with two checkpoints, both in memory."""

    def __init__(self, host: Webui, pair: Pair, steps: int) -> None:
        self.host, self.pair, self.steps = host, pair, steps

    def boundaries(self) -> list[int]:
        """Of the sweep's cells: steps before the switch, evenly."""
        return [max(1, round(number * self.steps / (CELLS + 1))) for number in range(1, CELLS + 1)]

    def request(self, way: str, at: int, prompt: str | None = None) -> dict[str, Any]:
        """A picture that switches after ``at`` steps; ``prompt``: the second checkpoint's own."""
        common = {**self.pair.request, "steps": self.steps}
        if way == REFINER:
            own = common["prompt"]
            # the host's editing acts one evaluation later than its Refiner
            edited = own if prompt is None else f"[{own}:{prompt}:{at - 1}]"
            return common | {
                "prompt": edited,
                "refiner_checkpoint": self.pair.second,
                "refiner_switch_at": at / self.steps,
                "override_settings": {"refiner_switch_by_sample_steps": True},
            }
        second = {"checkpoint": self.pair.second, "switch_at": at}
        second |= {} if prompt is None else {"prompt": prompt}
        return common | {
            "plan": {"version": 1, "switch_unit": "step", "passes": [{"checkpoint": self.pair.first}, second]}
        }

    def begin(self, way: str) -> None:
        """Nothing is remembered, and both checkpoints are in memory."""
        self.host.set_options(multipass_memo_mb=0, sd_checkpoints_limit=2 if way == REFINER else 1)
        self.make([self.request(way, self.steps // 2)])
        self.host.set_options(multipass_memo_mb=MEMO_MB if way == MEMO else 0)

    def make(self, requests: Iterable[dict[str, Any]]) -> Made:
        self.host.arm()
        self.host.post("/stopwatch/clear", {}).raise_for_status()
        started = time.perf_counter()
        for request in requests:
            self.host.try_generate(**request).raise_for_status()
        return Made(time.perf_counter() - started, len(self.host.state()["unets"]))

    def sweep(self, way: str) -> Made:
        self.begin(way)
        return self.make(self.request(way, at) for at in self.boundaries())

    def prompts(self, way: str) -> Made:
        """The pictures after a first one, each with another second prompt."""
        at = self.steps // 2
        self.begin(way)
        self.make([self.request(way, at, "an apple")])
        return self.make(self.request(way, at, prompt) for prompt in PROMPTS)

    def same(self) -> bool:
        """Whether each way gives the same pictures to the bit, those of the sweep and those of the prompts."""
        at = self.steps // 2
        asked = [(own, None) for own in self.boundaries()] + [(at, prompt) for prompt in PROMPTS]
        pictures = []
        for way in WAYS:
            self.begin(way)
            pictures.append([self.host.generate(**self.request(way, *own)) for own in asked])
        return all(
            one.same_picture(other) for found in pictures[1:] for one, other in zip(pictures[0], found, strict=True)
        )

    def remembering(self) -> tuple[float, float]:
        """Seconds that the memo takes beside an evaluation that it does not spare, and those of the evaluation."""
        self.begin(MEMO)
        self.make([self.request(MEMO, self.steps // 2)])
        told = self.host.get("/stopwatch")
        steps = [own["end"] - own["begin"] for own in told["evaluations"]]
        return statistics.mean(told["remembering"]), statistics.median(steps)


def measure(bench: Bench, rounds: int) -> dict[str, dict[str, list[Made]]]:
    """Each way in every round, in every second one the last first."""
    works: dict[str, Callable[[str], Made]] = {"sweep": bench.sweep, "prompts": bench.prompts}
    found: dict[str, dict[str, list[Made]]] = {name: {way: [] for way in WAYS} for name in works}
    with tqdm(total=rounds * len(works) * len(WAYS), unit="way") as progress:
        for index in range(rounds):
            for name, act in works.items():
                for way in WAYS[:: -1 if index % 2 else 1]:
                    found[name][way].append(act(way))
                    progress.update()
    return found


def report(found: dict[str, list[Made]], pictures: int) -> str:
    rows: list[tuple[str, ...]] = []
    shortest = statistics.median(made.seconds for made in found[MEMO])
    for way, own in found.items():
        (calls,) = {made.calls for made in own}  # the same in every round
        seconds = [made.seconds for made in own]
        middle, spread = statistics.median(seconds), statistics.stdev(seconds) if len(seconds) > 1 else 0.0
        rows.append((way, str(calls), f"{middle:.2f} ± {spread:.2f} s", f"{middle / shortest:.2f}"))
    return table(f"{pictures} pictures | UNet evaluations | time | to the plan's", rows)


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--size", choices=[*PAIRS], default="demo")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    with automatic1111(arguments.size) as setting:
        folder, data = setting.checkpoints, setting.place / "data"
        with running(setting.install, data, folder, setting.config, {**EXTENSIONS, **STOPWATCH}) as host:
            host.set_options(**KNOWN_OPTIONS | {"sd_model_checkpoint": setting.pair.first})
            bench = Bench(host, setting.pair, arguments.steps)
            same, found = bench.same(), measure(bench, arguments.rounds)
            cost, step = bench.remembering()
    tables = [report(found["sweep"], CELLS), report(found["prompts"], len(PROMPTS))]
    figures = {
        "host": setting.install.folder.name,
        "machine": machine(),
        "size": arguments.size,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "same_pictures": same,
        "microseconds_beside_an_evaluation": cost * 1e6,
        "percent_of_an_evaluation": cost / step * 100,
    }
    print(json.dumps(figures, indent=2), *tables, sep="\n\n")
    if arguments.json:
        made = {
            name: {way: [own._asdict() for own in each] for way, each in ways.items()} for name, ways in found.items()
        }
        arguments.json.write_text(json.dumps({**figures, "made": made, "tables": tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
