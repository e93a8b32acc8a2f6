"""Reading a checkpoint into RAM against memcpy and against the safetensors library, alternating, in one process."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.pairs import CLIP_L, VOCABULARY
from benchmarks.setting import machine
from multipass.cache import reader
from multipass.hosts.standalone.originals import ORIGINALS
from multipass.kinds import Family
from tests import ldm_layout as layout

Bytes = npt.NDArray[np.uint8]


def random_checkpoint(most: float) -> tuple[Bytes, dict[str, Tensor]]:
    """Random bytes, and SD 1.5's tensors in half precision that lie in them, as many as there is room for.

    Args:
        most: bytes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in layout.sd1_shapes(ORIGINALS[Family.SD1], CLIP_L, VOCABULARY):
        if size + 2 * math.prod(shape) <= most:
            shapes[name] = shape
            size += 2 * math.prod(shape)
    content = np.empty(size, np.uint8)
    generator = np.random.default_rng(0)
    for begin in tqdm(range(0, size, reader.PIECE), unit="piece", desc="random bytes"):
        piece = content[begin : begin + reader.PIECE]
        piece[:] = np.frombuffer(generator.bytes(len(piece)), np.uint8)
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        tensors[name] = torch.frombuffer(content, dtype=torch.float16, count=count, offset=at).view(shape)
        at += 2 * count
    return content, tensors


def memcpy_fresh(content: Bytes) -> list[Bytes]:
    """Into memory as the reader has it: as fresh, and of that kind and size."""
    copies: list[Bytes] = []
    for begin in range(0, len(content), reader.RUN):
        piece = content[begin : begin + reader.RUN]
        copies.append(np.empty(len(piece), np.uint8))
        np.copyto(copies[-1], piece)
    return copies


def memcpy_there(content: Bytes, copies: list[Bytes]) -> None:
    for index, copy in enumerate(copies):
        np.copyto(copy, content[index * reader.RUN :][: len(copy)])


def load_and_copy(path: Path, prepared: dict[str, Tensor]) -> None:
    """As a host loads: the library maps the file, ``load_state_dict`` copies every tensor into the model's."""
    for name, tensor in load_file(path).items():
        prepared[name].copy_(tensor)


def back_memory(size: int) -> None:
    """Touch so much memory and let it go: the next to ask for it gets it from this system alone.

    What lies free for some seconds a virtual machine may hand to its host, which gives it back at a tenth of the speed;
    without this, the figures tell of little else.
    """
    for piece in [np.empty(min(reader.RUN, size - begin), np.uint8) for begin in range(0, size, reader.RUN)]:
        piece.fill(0)


def forget(path: Path) -> None:
    """Put the file out of the system's cache; a disk, or the machine beneath this one, may have its own."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(path: Path) -> None:
    """Have the system remember the file, in the same way each time: how its cache was filled shows in the speed."""
    if hasattr(os, "posix_fadvise"):
        forget(path)
    piece = bytearray(reader.PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def measure(path: Path, content: Bytes, prepared: dict[str, Tensor], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way; the first round only warms up. What a way made is let go off the clock.

    Of the two cold ones the other is first in every second round: what lies beneath may remember what was just read.
    """
    copies: list[Bytes] = []
    ways: dict[str, Callable[[], Any]] = {
        "memcpy, fresh": lambda: copies.extend(memcpy_fresh(content)),
        "memcpy, there": lambda: memcpy_there(content, copies),
        "reader, warm": lambda: reader.read(path),
        "library, warm": lambda: load_and_copy(path, prepared),
    }
    warm, cold = list(ways), list[str]()
    if hasattr(os, "posix_fadvise"):
        cold = ["reader, cold", "library, cold"]
        ways.update({"reader, cold": ways["reader, warm"], "library, cold": ways["library, warm"]})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    read_plainly(path)
    with tqdm(total=(rounds + 1) * len(ways), unit="way") as progress:
        for index in range(rounds + 1):
            for name in warm + cold[:: -1 if index % 2 else 1]:
                if name != "memcpy, there":
                    back_memory(len(content))
                if name in cold:
                    forget(path)
                started = time.perf_counter()
                made = ways[name]()
                ended = time.perf_counter()
                del made
                if name in cold:
                    read_plainly(path)
                if name == "memcpy, there":
                    copies.clear()
                if index:
                    seconds[name].append(ended - started)
                progress.update()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.2, help="as much of SD 1.5's 2.13 GB as fits; RAM: twice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    content, tensors = random_checkpoint(arguments.gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        save_file(tensors, path)
        ours = reader.read(path)
        same = all(torch.equal(ours[name].view(torch.int16), tensors[name].view(torch.int16)) for name in tensors)
        del ours
        seconds = measure(path, content, tensors, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    fresh, read = seconds["memcpy, fresh"], seconds["reader, warm"]
    figures = {
        "machine": machine(),
        "torch_threads": torch.get_num_threads(),
        "bytes": len(content),
        "tensors": len(tensors),
        "same_bits": same,
        "rounds": arguments.rounds,
        "seconds": seconds,
        "median_seconds": medians,
        "spread_seconds": {name: statistics.stdev(values) for name, values in seconds.items()},
        "reader_to_memcpy": medians["memcpy, fresh"] / medians["reader, warm"],
        "reader_to_memcpy_median_of_rounds": statistics.median(a / b for a, b in zip(fresh, read, strict=True)),
        "reader_to_memcpy_of_the_best": min(fresh) / min(read),
        "reader_to_memcpy_there": medians["memcpy, there"] / medians["reader, warm"],
        "reader_to_library": medians["library, warm"] / medians["reader, warm"],
    }
    print(f"{'':16}{'median s':>10}{'spread':>10}{'best':>10}{'GB/s':>10}")
    for name, median in medians.items():
        spread, best = statistics.stdev(seconds[name]), min(seconds[name])
        print(f"{name:16}{median:10.3f}{spread:10.3f}{best:10.3f}{len(content) / 1e9 / median:10.2f}")
    if "reader, cold" not in seconds:
        print("cold: not measured, this system has no posix_fadvise")
    print(json.dumps({name: value for name, value in figures.items() if name != "seconds"}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
