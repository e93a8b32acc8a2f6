"""The header of a safetensors file: what tensors it has, of which shapes and where. No tensor is read.

The file begins with the header's length, 8 bytes little-endian; the header is JSON; the tensors' bytes follow without a
gap until the end of the file. What is refused here, the safetensors library refuses too when it is to load the file.
"""

from __future__ import annotations

import os
from typing import Annotated, BinaryIO

import msgspec

LONGEST = 100_000_000
"""Bytes of a header, as the safetensors library limits them."""

Natural = Annotated[int, msgspec.Meta(ge=0)]


class HeaderError(ValueError):
    """A file that is not a whole safetensors file, or cannot be read; the text is the reason, fit for people."""


class Tensor(msgspec.Struct, frozen=True):
    """One tensor: its type as the format spells it, and its bytes, half-open and counted from the header's end."""

    dtype: str
    shape: tuple[Natural, ...]
    data_offsets: tuple[Natural, Natural]


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Every tensor of the file by name. Raises HeaderError."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the hosts name files by text
            return of(file)[0]
    except OSError as error:
        raise HeaderError(error.strerror or str(error)) from None


def of(file: BinaryIO) -> tuple[dict[str, Tensor], int]:
    """Every tensor of an open file by name, and where in the file their bytes begin. Raises HeaderError, OSError."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST, size - 8):
        raise HeaderError(f"a header of {length} bytes does not fit, the file has {size}")
    return parse(file.read(length), size - 8 - length), 8 + length


def parse(header: bytes, rest: int) -> dict[str, Tensor]:
    """Every tensor by name. Raises HeaderError.

    Args:
        header: the JSON text.
        rest: how many bytes follow it in the file.
    """
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise HeaderError(f"its header is damaged: {error}") from None
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, after = tensor.data_offsets
        if begin != end or after < end:
            raise HeaderError(f"its header is damaged: {name} is out of place")
        end = after
    if end != rest:
        raise HeaderError(f"its tensors take {end} bytes, {rest} are there")
    return tensors
