"""What is kept where, told and let go of."""

from __future__ import annotations

from typing import Any

from modules import sd_models
from modules.call_queue import queue_lock

from multipass.hosts.webui import keys, models
from multipass.hosts.webui.memo import memo


def tell() -> dict[str, Any]:
    """What is kept where. ``checkpoint`` is its title; ``held`` counts the host's own model too, while a plan runs."""
    cache = models.cache
    tiers = {"vram": cache.vram, "ram": cache.ram}
    titles = {info.filename: info.title for info in sd_models.checkpoints_list.values()}
    return {
        "budgets": {f"{name}_bytes": tier.budget for name, tier in tiers.items()},
        "held": {f"{name}_bytes": tier.held for name, tier in tiers.items()},
        "entries": [
            {
                "checkpoint": titles.get(file := keys.version_of(entry.key).file, file),
                "component": entry.component,
                "tier": name,
                "nbytes": entry.nbytes,
                "leased": entry.leased,
                "lossy": isinstance(entry.key, keys.Lossy),
            }
            for name, tier in tiers.items()
            for entry in tier.entries()
        ],
        "loads_from_disk": cache.loads,
        "bytes_read": cache.bytes_read,
        "hits": cache.hits,
        "evictions": sum(tier.evicted for tier in tiers.values()),
        "memo": {"budget_bytes": memo.budget, "held_bytes": memo.held, "entries": len(memo), "hits": memo.hits},
    }


def clear() -> dict[str, Any]:
    """Let go of all that is not in use, once no picture is being made; what is kept then."""
    with queue_lock:
        models.clear()
        memo.clear()
    return tell()
