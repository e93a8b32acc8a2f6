"""A switch of checkpoints and what hangs on it: a plan against the webui's Refiner, in one running webui."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.loading import back_memory, forget, read_plainly
from benchmarks.pairs import PAIRS, Pair
from benchmarks.setting import automatic1111, machine, options
from tests.webui.conftest import EXTENSIONS, KNOWN_OPTIONS
from tests.webui.host import Install, Webui, running

STOPWATCH = {"stopwatch": Path(__file__).parent / "probe"}
BATCH = 8
IN_A_ROW = 3  # pictures measured once both checkpoints are in memory
STILL = 0.01  # seconds between two looks at the memory

Figures = dict[str, dict[str, list[float]]]
"""Of each way, each of its figures, once per picture."""


class Picture(NamedTuple):
    """What was measured of one request.

    Attributes:
        seconds: all of it, as the client sees it.
        switch: of the first switch: the checkpoint, the texts, whatever the sampler waits for.
        ahead: from the first checkpoint being in place to the first evaluation: texts, and what a plan reads for them.
        before: from the first evaluation to the switch.
        step: from one evaluation's begin to the next one's, on average, without the first.
        ask: the median of what it takes to find that there is no switch.
        after: of the first evaluation with the second checkpoint, how much longer than the median it took.
        encodings: of texts, from the first evaluation on.
        files: checkpoints read, whole or their UNet, by whomever.
        counted: what Multipass counted meanwhile.
    """

    seconds: float
    switch: float
    ahead: float
    before: float
    step: float
    ask: float
    after: float
    encodings: int
    files: int
    counted: dict[str, int]
    by_plan: bool


class Bench:
    """A running webui with two checkpoints."""

    def __init__(self, host: Webui, pair: Pair, folder: Path) -> None:
        self.host, self.pair = host, pair
        self.file = folder / f"{pair.second}.safetensors"
        self.fresh = int(2.5 * self.file.stat().st_size)  # in half precision as it is read, and in full as it is kept

    @property
    def pid(self) -> int:
        return self.host.get("/stopwatch")["pid"]

    def plan(self, at: int) -> dict[str, Any]:
        second = {"checkpoint": self.pair.second, "switch_at": at / self.pair.steps}
        return {
            "plan": {"version": 1, "switch_unit": "steps", "passes": [{"checkpoint": self.pair.first}, second]},
            "steps": self.pair.steps,
        }

    def refiner(self, at: int) -> dict[str, Any]:
        return {
            "refiner_checkpoint": self.pair.second,
            "refiner_switch_at": at / self.pair.steps,
            "override_settings": {"refiner_switch_by_sample_steps": True},
            "steps": self.pair.steps,
        }

    def render(self, backed_before: int | None = None, **way: Any) -> Picture:
        """``backed_before``: the evaluation before which memory is made sure of; what that takes is not counted."""
        self.host.arm()
        back = {"before": backed_before, "bytes": self.fresh} if backed_before is not None else {}
        self.host.post("/stopwatch/clear", back).raise_for_status()
        before = self._counted()
        started = time.perf_counter()
        self.host.try_generate(**{**self.pair.request, **way}).raise_for_status()
        seconds = time.perf_counter() - started
        counted = {name: value - before[name] for name, value in self._counted().items()}
        return _picture(seconds, self.host.get("/stopwatch"), self.host.state(), counted)

    def same(self, at: int) -> bool:
        ways = [{**self.pair.request, **way} for way in (self.plan(at), self.refiner(at))]
        return self.host.generate(**ways[0]).same_picture(self.host.generate(**ways[1]))

    def begin_anew(self, *, limit: int = 1, read_ahead: bool = True, cold: bool = False) -> None:
        """The first checkpoint is in memory, the second is not; its file is in the system's cache, or not."""
        self.host.set_options(sd_checkpoints_limit=1, multipass_read_ahead=read_ahead)
        self.render(steps=1)
        self.host.post("/multipass/v1/cache/clear", {}).raise_for_status()
        self.host.set_options(sd_checkpoints_limit=limit)
        if cold:
            forget(self.file)
        else:
            read_plainly(self.file)
        back_memory(self.fresh)

    def _counted(self) -> dict[str, int]:
        told = self.host.get("/multipass/v1/cache")
        return {name: told[name] for name in ("loads_from_disk", "bytes_read", "hits")}


def _picture(seconds: float, watch: dict[str, Any], state: dict[str, Any], counted: dict[str, int]) -> Picture:
    evaluations = watch["evaluations"]
    first = evaluations[0]["begin"]
    switched = next((index for index, own in enumerate(evaluations) if own["switched"]), None)
    lasted = [own["end"] - own["begin"] - own["ask"] for own in evaluations]
    median = statistics.median(lasted)
    aside = sum(own["aside"] for own in evaluations)
    begins = [own["begin"] for own in evaluations]
    return Picture(
        seconds=seconds - aside,
        switch=evaluations[switched]["ask"] if switched is not None else 0,
        ahead=first - watch["batches"][0],
        before=evaluations[switched]["begin"] - first - aside if switched is not None else 0,
        step=(begins[-1] - begins[1]) / (len(begins) - 2) if len(begins) > 2 else 0,
        ask=statistics.median(own["ask"] for own in evaluations),
        after=lasted[switched] - median if switched is not None else 0,
        encodings=sum(made > 0 for made in state["encodings"]),
        files=len(state["loads"]),
        counted=counted,
        by_plan=all(own["ours"] for own in evaluations),
    )


# --- what is measured ------------------------------------------------------------------------------------------------


def switches(bench: Bench, rounds: int) -> Figures:
    """C18, and the same from the disk: where the second checkpoint is when it is switched to."""
    at = bench.pair.late
    ours, hosts = bench.plan(at), bench.refiner(at)
    found: Figures = {}

    def from_memory(name: str, limit: int, way: dict[str, Any]) -> None:
        bench.begin_anew(limit=limit)
        bench.render(**way)
        for _ in range(IN_A_ROW):
            _note(found, name, bench.render(**way))

    def from_disk(name: str, way: dict[str, Any], *, cold: bool) -> None:
        bench.begin_anew(read_ahead=False, cold=cold)
        _note(found, name, bench.render(at, **way))

    acts: list[Callable[[], None]] = [
        lambda: from_memory("plan, memory", 1, ours),
        lambda: from_memory("refiner, memory", 2, hosts),
        lambda: from_disk("plan, warm disk", ours, cold=False),
        lambda: from_disk("refiner, warm disk", hosts, cold=False),
        lambda: from_disk("plan, cold disk", ours, cold=True),
        lambda: from_disk("refiner, cold disk", hosts, cold=True),
    ]
    _alternate("switch", acts, rounds)
    return found


def batches(bench: Bench, rounds: int) -> Figures:
    """C19 in seconds: pictures in a row, the second checkpoint not in memory when the first of them begins."""
    at = bench.pair.steps // 2
    ours, hosts = bench.plan(at), bench.refiner(at)
    found: Figures = {}

    def several(name: str, limit: int, way: dict[str, Any]) -> None:
        bench.begin_anew(limit=limit)
        _note(found, name, bench.render(**way, n_iter=BATCH))

    acts: list[Callable[[], None]] = [
        lambda: several("plan", 1, ours),
        lambda: several("refiner, limit 1", 1, hosts),
        lambda: several("refiner, limit 2", 2, hosts),
    ]
    _alternate("batch", acts, rounds)
    return found


def stalls(bench: Bench, rounds: int) -> Figures:
    """C20: reading ahead or not, with a first pass that is shorter than the reading, and one that is longer."""
    found: Figures = {}

    def one(at: int, *, ahead: bool, cold: bool) -> None:
        bench.begin_anew(read_ahead=ahead, cold=cold)
        name = ", ".join((f"after {at}", "cold" if cold else "warm", "ahead" if ahead else "not ahead"))
        _note(found, name, bench.render(None if ahead else at, **bench.plan(at)))

    acts: list[Callable[[], None]] = [
        lambda at=at, cold=cold, ahead=ahead: one(at, ahead=ahead, cold=cold)
        for at in (bench.pair.early, bench.pair.late)
        for cold in (False, True)
        for ahead in (False, True)
    ]
    _alternate("stall", acts, rounds)
    return found


def overhead(bench: Bench, rounds: int) -> Figures:
    """C23: the same checkpoint all the way, by a plan of one pass and without."""
    alone = {"version": 1, "passes": [{"checkpoint": bench.pair.first}]}
    ways: dict[str, dict[str, Any]] = {"plan": {"plan": alone}, "none": {}}
    found: Figures = {}
    bench.begin_anew()
    acts: list[Callable[[], None]] = [
        lambda name=name, way=way: _note(found, name, bench.render(**way, steps=bench.pair.long))
        for name, way in ways.items()
    ]
    _alternate("overhead", acts, rounds)
    return found


def _alternate(name: str, acts: list[Callable[[], None]], rounds: int) -> None:
    """Each in every round, in every second one the last first."""
    with tqdm(total=rounds * len(acts), desc=name, unit="way") as progress:
        for index in range(rounds):
            for act in acts[:: -1 if index % 2 else 1]:
                act()
                progress.update()


def _note(found: Figures, name: str, picture: Picture) -> None:
    assert picture.by_plan == name.startswith(("plan", "after")), f"{name}: the other's way"
    own = found.setdefault(name, {})
    together = {"together": picture.switch + picture.ahead}
    for figure, value in {**picture._asdict(), **picture.counted, **together}.items():
        if isinstance(value, int | float):
            own.setdefault(figure, []).append(value)


TIMED = {"switch": switches, "stall": stalls, "batch": batches, "overhead": overhead}
PARTS = (*TIMED, "memory")


# --- memory ----------------------------------------------------------------------------------------------------------


class Memory:
    """The most that a process has, looked at all the time. Linux.

    Attributes:
        anonymous: bytes of its own.
        resident: with the files that it has mapped, which the system takes back where memory is short.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.anonymous = self.resident = 0

    def look(self) -> tuple[int, int]:
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        anonymous, resident = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "VmRSS"))
        self.anonymous, self.resident = max(self.anonymous, anonymous), max(self.resident, resident)
        return anonymous, resident

    @contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(STILL):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def memory(install: Install, pair: Pair, folder: Path, config: Path, place: Path) -> dict[str, dict[str, int]]:
    """Bytes of a webui of its own for each way: what an earlier one leaves behind would count for the next."""
    found: dict[str, dict[str, int]] = {}
    for name, limit in {"one checkpoint": 1, "plan": 1, "refiner, limit 2": 2, "refiner, limit 1": 1}.items():
        with webui(install, pair, folder, config, place / name.replace(", ", "_").replace(" ", "_")) as bench:
            bench.host.set_options(sd_checkpoints_limit=limit)
            steps = {"steps": pair.steps}
            way = {"plan": bench.plan(2), "one checkpoint": steps}.get(name, bench.refiner(2))
            bench.render(**steps)
            watch = Memory(bench.pid)
            with watch.watched():
                for _ in range(2):
                    bench.render(**way)
            own, resident = watch.look()
            found[name] = {
                "peak_of_its_own": watch.anonymous,
                "peak_resident": watch.resident,
                "afterwards_of_its_own": own,
                "afterwards_resident": resident,
            }
    return found


# --- the report ------------------------------------------------------------------------------------------------------


def of(figures: Figures, way: str, figure: str, unit: str = "ms") -> str:
    """Median and spread, as text."""
    values = figures[way][figure]
    scale, digits = {"ms": (1e3, 1), "s": (1, 2), "": (1, 0)}[unit]
    median = statistics.median(values) * scale
    if unit == "":
        return f"{median:.{digits}f}"
    spread = statistics.stdev(values) * scale if len(values) > 1 else 0
    return f"{median:.{digits}f} ± {spread:.{digits}f} {unit}"


def middle(figures: Figures, way: str, figure: str) -> float:
    return statistics.median(figures[way][figure])


def megabytes(number: float) -> str:
    return f"{number / 1e6:.0f} MB"


def ratio(figures: Figures, figure: str, over: str, under: str) -> str:
    return f"{middle(figures, over, figure) / middle(figures, under, figure):.1f}"


def table(header: str, rows: list[tuple[str, ...]]) -> str:
    names = header.split(" | ")
    lines = ["| " + " | ".join(row) + " |" for row in [tuple(names), ("---",) * len(names), *rows]]
    return "\n".join(lines)


def report_switches(found: Figures, size: int) -> str:
    rows: list[tuple[str, ...]] = []
    for where in ("memory", "warm disk", "cold disk"):
        ours, hosts = f"plan, {where}", f"refiner, {where}"
        rows.append(
            (
                f"switch, from {where}",
                of(found, ours, "switch"),
                of(found, hosts, "switch"),
                ratio(found, "switch", hosts, ours),
            )
        )
        rows.append(("- its texts and reading, before the first step", *_pair(found, where, "ahead")))
        rows.append(("- both together", *_pair(found, where, "together")))
        rows.append(("- texts encoded while sampling", *_pair(found, where, "encodings", "")))
        bytes_ours = megabytes(middle(found, ours, "bytes_read"))
        rows.append(("- read", bytes_ours, megabytes(middle(found, hosts, "files") * size), ""))
        rows.append(("- the whole picture", *_pair(found, where, "seconds", "s")))
    return table("  | plan | Refiner | ratio", rows)


def _pair(found: Figures, where: str, figure: str, unit: str = "ms") -> tuple[str, str, str]:
    ours, hosts = f"plan, {where}", f"refiner, {where}"
    compared = ratio(found, figure, hosts, ours) if unit else ""
    return of(found, ours, figure, unit), of(found, hosts, figure, unit), compared


def report_batches(found: Figures, size: int) -> str:
    rows: list[tuple[str, ...]] = []
    for way, own in found.items():
        seconds = [value / BATCH for value in own["seconds"]]
        read = middle(found, way, "bytes_read") or middle(found, way, "files") * size
        loads = middle(found, way, "loads_from_disk") or middle(found, way, "files")
        spread = statistics.stdev(seconds) if len(seconds) > 1 else 0
        told = f"{statistics.median(seconds):.3f} ± {spread:.3f} s"
        rows.append((way, told, f"{loads:.0f}", megabytes(read), ratio(found, "seconds", way, "plan")))
    return table(f"{BATCH} pictures | a picture | checkpoints read | bytes read | to the plan's", rows)


def report_stalls(found: Figures, bare: float) -> tuple[str, list[dict[str, Any]]]:
    """Reading takes what the switch takes longer without reading ahead than between checkpoints in memory, ``bare``."""
    rows: list[tuple[str, ...]] = []
    figures: list[dict[str, Any]] = []
    for way in found:
        if not way.endswith(", ahead"):
            continue
        case = way.removesuffix(", ahead")
        off, on, before = (
            middle(found, f"{case}, not ahead", "switch"),
            middle(found, way, "switch"),
            middle(found, way, "before"),
        )
        load = off - bare
        bound = max(0, load - before) * 1.1 + bare
        figures.append({"case": case, "load": load, "before": before, "stall": on, "bound": bound})
        told = [f"{value * 1e3:.1f} ms" for value in (load, before, off)]
        rows.append((case, *told, of(found, way, "switch"), f"{bound * 1e3:.1f} ms", "yes" if on <= bound else "no"))
    header = "switch | reading | passes before | stall, not ahead | stall, ahead | bound | kept"
    return table(header, rows), figures


def report_overhead(found: Figures) -> tuple[str, dict[str, float]]:
    step, ask = ({way: middle(found, way, figure) for way in found} for figure in ("step", "ask"))
    pairs = [plan / none - 1 for plan, none in zip(found["plan"]["step"], found["none"]["step"], strict=True)]
    spread = statistics.stdev(pairs) if len(pairs) > 1 else 0
    figures = {
        "asking_microseconds_plan": ask["plan"] * 1e6,
        "asking_microseconds_none": ask["none"] * 1e6,
        "asking_ppm_of_a_step": (ask["plan"] - ask["none"]) / step["none"] * 1e6,
        "steps_percent_median_of_pairs": statistics.median(pairs) * 100,
        "steps_percent_standard_error": spread / len(pairs) ** 0.5 * 100,
    }
    rows = [
        ("a step", of(found, "plan", "step"), of(found, "none", "step")),
        ("- of it, asking whether to switch", f"{ask['plan'] * 1e6:.1f} µs", f"{ask['none'] * 1e6:.1f} µs"),
        ("more with a plan, asking", f"{figures['asking_ppm_of_a_step']:.0f} ppm", ""),
        (
            "more with a plan, whole steps",
            f"{figures['steps_percent_median_of_pairs']:.2f} ± {figures['steps_percent_standard_error']:.2f} %",
            "",
        ),
    ]
    return table("  | plan of one pass | no plan", rows), figures


def report_memory(found: dict[str, dict[str, int]]) -> str:
    return table(
        "way | peak of its own | peak with mapped files | afterwards",
        [
            (way, *(megabytes(own[name]) for name in ("peak_of_its_own", "peak_resident", "afterwards_of_its_own")))
            for way, own in found.items()
        ],
    )


# --- all of it -------------------------------------------------------------------------------------------------------


@contextmanager
def webui(install: Install, pair: Pair, folder: Path, config: Path, data: Path) -> Iterator[Bench]:
    with running(install, data, folder, config, {**EXTENSIONS, **STOPWATCH}) as host:
        # every picture is computed: what the memo spares, `benchmarks.memo` measures
        host.set_options(**KNOWN_OPTIONS | {"sd_model_checkpoint": pair.first, "multipass_memo_mb": 0})
        yield Bench(host, pair, folder)


def measure(bench: Bench, rounds: int, parts: Collection[str], size: int) -> dict[str, Any]:
    found = {name: act(bench, rounds) for name, act in TIMED.items() if name in parts}
    figures: dict[str, Any] = {"same_picture": bench.same(bench.pair.late), "seconds": found, "tables": []}
    if "switch" in found:
        bare = middle(found["switch"], "plan, memory", "switch")
        figures["switch_refiner_to_plan"] = middle(found["switch"], "refiner, memory", "switch") / bare
        figures["tables"].append(report_switches(found["switch"], size))
        if "stall" in found:
            told, figures["stall"] = report_stalls(found["stall"], bare)
            figures["tables"].append(told)
    if "batch" in found:
        figures["tables"].append(report_batches(found["batch"], size))
    if "overhead" in found:
        told, figures["overhead"] = report_overhead(found["overhead"])
        figures["tables"].append(told)
    return figures


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--size", choices=[*PAIRS], default="demo")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="`stall` needs `switch`")
    arguments = parser.parse_args()
    with automatic1111(arguments.size) as setting:
        install, pair, place, checkpoints, config = setting
        size = (checkpoints / f"{pair.second}.safetensors").stat().st_size
        with webui(install, pair, checkpoints, config, place / "data") as bench:
            figures = measure(bench, arguments.rounds, arguments.parts, size)
        tables = figures.pop("tables")
        if "memory" in arguments.parts:
            figures["memory"] = memory(install, pair, checkpoints, config, place)
            tables.append(report_memory(figures["memory"]))
    about = {
        "host": install.folder.name,
        "machine": machine(),
        "size": arguments.size,
        "bytes_of_a_file": size,
        "rounds": arguments.rounds,
    }
    print(json.dumps(about, indent=2), f"the same picture: {figures['same_picture']}", *tables, sep="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({**about, **figures, "tables": tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
