"""What checkpoints may take of RAM and of VRAM where nobody has said: what is free, less a reserve."""

from __future__ import annotations

import psutil
import torch

MB, GB = 1 << 20, 1 << 30
_RESERVE = 2 * GB, 0.1  # of RAM stays free: this, or this part of all there is, whichever is more
_VRAM_PART = 0.25  # of a card is left to what is computed on it


def free_ram(held: int) -> int:
    """Bytes that checkpoints may take in RAM, where they take ``held`` now."""
    memory = psutil.virtual_memory()
    reserve = max(_RESERVE[0], int(memory.total * _RESERVE[1]))
    return held + max(memory.available - reserve, 0)


def free_vram(held: int) -> int:
    """Bytes that checkpoints may take on the GPU, where they take ``held`` now; 0 without one."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # torch's own, and free to it
    return held + max(free + unused - int(total * _VRAM_PART), 0)
