"""Memory for many tensors: in large pieces, and, where there is a GPU, ready for its copies.

A GPU copies from memory that is registered with it at the speed of the bus and while it computes; from other memory the
driver copies twice, and the program waits. torch's own allocator of such memory rounds up to powers of two, so memory
that is there is registered, and only once it was written to: pages that are not present yet make that slow.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

Buffer = npt.NDArray[np.uint8]
_device: torch.device | None = None  # a GPU that will copy from what is registered


def fresh(nbytes: int) -> Buffer:
    """Bytes without particular values. NumPy asks Linux for large pages, which torch does not."""
    return np.empty(nbytes, np.uint8)


def register_for(device: torch.device) -> None:
    """Say where tensors are computed with: unless that is a CUDA device, ``register`` does nothing."""
    global _device  # noqa: PLW0603 - one for the process, as the device is
    _device = device if device.type == "cuda" else None


def register(memory: Buffer) -> None:
    """Tell CUDA of memory that a GPU will copy from, until that is freed. Where the system allows no more, nothing
    happens: copies are only slower then."""
    if not memory.nbytes or _device is None:
        return
    address = memory.ctypes.data
    if int(_runtime().cudaHostRegister(address, memory.nbytes, 0)) == 0:
        weakref.finalize(memory, _unregister, address, _device).atexit = False
    else:
        _forget_error(_device)


def _unregister(address: int, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # a copy may be under way
    _runtime().cudaHostUnregister(address)


def _forget_error(device: torch.device) -> None:
    """CUDA tells an error once more, of whatever is asked next: let that be this."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)


def _runtime() -> Any:
    return cast("Any", torch.cuda.cudart())
