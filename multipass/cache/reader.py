"""Chosen tensors of a safetensors file, read into memory of their own at the speed of the memory.

The safetensors library maps the file: a page that is not there yet is waited for where a tensor is first used, and a
file that shrinks ends the process. Here the bytes are read in large pieces, without the interpreter's lock, so that a
thread can read one checkpoint ahead while another works; what goes wrong is an exception.

What is fast was measured, on two cores of an AMD EPYC with Linux 6.18, the file in the page cache:

- Fresh memory costs more than the copy: about 1 GB/s in pages of 4 KiB, as torch allocates it, 4 to 9 GB/s in pages of
  2 MiB. NumPy asks Linux for those, and takes what it gets elsewhere; a mapping of our own was no faster.
- Two threads with half of the bytes each were no faster than one, which takes what the memory gives.
- Pieces of 2 to 256 MiB made no difference, and preadv none to readinto, which every system has.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from io import BufferedReader
from typing import NamedTuple

import torch

from multipass.cache import header, memory
from multipass.cache.memory import Buffer

RUN = 256 << 20
"""Bytes that tensors share at most, unless one alone has more: so much stays until the last of them is let go."""

PIECE = 16 << 20
"""Bytes read at once: a few milliseconds."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The types of the format, as it spells them, that every torch from 2.1 on has."""

_SIZES = {dtype: torch.empty(0, dtype=dtype).element_size() for dtype in DTYPES.values()}
_WIDEST = max(_SIZES.values())


class _Run(NamedTuple):
    """Tensors whose bytes follow each other, in that order, and where those begin and end, from the header's end."""

    tensors: dict[str, header.Tensor]
    begin: int
    end: int

    @property
    def base(self) -> int:
        """Where the buffer begins: a little before, so that what is aligned in the file is aligned in memory."""
        return self.begin - self.begin % _WIDEST


class ReadError(Exception):
    """A file, or what was asked of it, that cannot be read; the text is the reason, fit for people."""


class Cancelled(Exception):  # noqa: N818 - the caller's wish, no error
    """The reading was called off."""


def read(
    path: str | os.PathLike[str],
    names: Collection[str] | None = None,
    *,
    apart: Callable[[str], object] | None = None,
    cancelled: threading.Event | None = None,
    advanced: Callable[[int], None] | None = None,
    registered: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors by name, in the file's order; to the bit those of ``safetensors.torch.load_file``.

    They are the caller's own: writable, and the file may go. Those whose bytes follow each other in the file share
    memory, at most RUN bytes, which is freed with the last of them; two calls never share.

    Args:
        names: which; ``None``: all.
        apart: the part of the model that a name belongs to; tensors of different parts share no memory.
        cancelled: looked at before every PIECE.
        advanced: told the bytes that were read, after every PIECE.
        registered: as ``memory.register`` has it: a GPU will copy from this.

    Raises:
        ReadError: also if the file changed meanwhile, as its time, size and inode tell.
        Cancelled: if ``cancelled`` was set before the last piece.
        MemoryError: if there is not enough.
    """
    try:
        version = _version(path)
        with open(path, "rb") as file:  # noqa: PTH123 - as in the header
            there, start = header.of(file)
            tensors: dict[str, torch.Tensor] = {}
            for run in _runs(_chosen(there, names), apart):
                buffer = _filled(file, start, run, cancelled, advanced)
                if registered:
                    memory.register(buffer)
                tensors.update(_views(run, buffer))
        if _version(path) != version:
            raise ReadError("it was changed while it was read")
    except header.HeaderError as error:
        raise ReadError(str(error)) from None
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from None
    return tensors


def warm(path: str | os.PathLike[str], cancelled: threading.Event) -> None:
    """Have the system read the file, so that it is in the system's cache for whoever reads it next. What goes wrong is
    theirs to tell."""
    piece = bytearray(PIECE)
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as in the header
        while not cancelled.is_set() and file.readinto(piece):
            pass


def _version(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """By the path, not by the open file: another file may be moved there."""
    stat = os.stat(path)  # noqa: PTH116 - as in the header
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _chosen(there: dict[str, header.Tensor], names: Collection[str] | None) -> dict[str, header.Tensor]:
    """In the file's order; every one has a type that torch knows and the bytes that its shape needs."""
    wanted = there.keys() if names is None else set(names)
    missing = sorted(wanted - there.keys())
    if missing:
        raise ReadError(f"{len(missing)} tensors are not in it, {missing[0]} first")
    chosen = {name: there[name] for name in sorted(wanted, key=lambda name: there[name].data_offsets)}
    for name, tensor in chosen.items():
        _check(name, tensor)
    return chosen


def _check(name: str, tensor: header.Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise ReadError(f"{name} is of the type {tensor.dtype}, which is not known here")
    begin, after = tensor.data_offsets
    size = _SIZES[DTYPES[tensor.dtype]]
    # an empty tensor, too, must not have more rows than torch can count
    countable = math.prod(max(extent, 1) for extent in tensor.shape) * size <= sys.maxsize
    if not countable or math.prod(tensor.shape) * size != after - begin:
        raise ReadError(f"its header is damaged: {name} has {after - begin} bytes, which is not what its shape needs")


def _runs(chosen: dict[str, header.Tensor], apart: Callable[[str], object] | None) -> Iterator[_Run]:
    run: dict[str, header.Tensor] = {}
    first, end, part = 0, 0, None
    for name, tensor in chosen.items():
        begin, after = tensor.data_offsets
        of = apart(name) if apart else None
        if run and (begin != end or after - first > RUN or of != part):
            yield _Run(run, first, end)
            run = {}
        if not run:
            first, part = begin, of
        run[name] = tensor
        end = after
    if run:
        yield _Run(run, first, end)


def _filled(
    file: BufferedReader,
    start: int,
    run: _Run,
    cancelled: threading.Event | None,
    advanced: Callable[[int], None] | None,
) -> Buffer:
    """The file from the run's base to its end, read with the interpreter's lock released; before the run, anything."""
    buffer = memory.fresh(run.end - run.base)
    rest = buffer.data[run.begin - run.base :]
    file.seek(start + run.begin)
    while rest:
        if cancelled and cancelled.is_set():
            raise Cancelled
        size = file.readinto(rest[:PIECE])
        if not size:
            raise ReadError(f"it ended {len(rest)} bytes too early while it was read")
        rest = rest[size:]
        if advanced:
            advanced(size)
    return buffer


def _views(run: _Run, buffer: Buffer) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor has a storage of its own bytes alone, so that saving or sharing it takes no neighbour along."""
    for name, tensor in run.tensors.items():
        dtype = DTYPES[tensor.dtype]
        begin, after = tensor.data_offsets
        if begin == after:
            yield name, torch.empty(tensor.shape, dtype=dtype)
        elif begin % _SIZES[dtype]:
            # torch wants numbers to begin where the processor likes them
            crooked = torch.frombuffer(buffer, dtype=torch.uint8, count=after - begin, offset=begin - run.base)
            yield name, crooked.clone().view(dtype).view(tensor.shape)
        else:
            count = (after - begin) // _SIZES[dtype]
            straight = torch.frombuffer(buffer, dtype=dtype, count=count, offset=begin - run.base)
            yield name, straight.view(tensor.shape)
