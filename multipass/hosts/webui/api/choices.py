"""What the host has to choose from."""

from __future__ import annotations

from collections import Counter
from typing import Any

from modules import sd_models, sd_samplers, sd_vae, shared, shared_items
from modules.call_queue import queue_lock

from multipass.hosts.webui import architecture, compat, detectors, sampling


def choices(refresh: bool = False) -> dict[str, Any]:
    """By the names that a plan takes.

    Args:
        refresh: look for checkpoints and VAEs anew, once no picture is being made.
    """
    if refresh:
        with queue_lock:
            shared.refresh_checkpoints()
            shared_items.refresh_vae_list()
    infos = sd_models.checkpoints_list.values()
    short = Counter(info.short_title for info in infos)
    upscalers = [(name, True) for name in shared.latent_upscale_modes]
    upscalers += [(upscaler.name, False) for upscaler in shared.sd_upscalers]
    return {
        # a file of the same name in another folder is told apart by its path
        "checkpoints": [info.short_title if short[info.short_title] == 1 else info.title for info in infos],
        # where a pass may have its own
        "vaes": ["Automatic", "None", *sd_vae.vae_dict] if architecture.suits(shared.sd_model) else [],
        "samplers": [name for name in sd_samplers.visible_sampler_names() if name not in sampling.ADAPTIVE],
        "schedulers": compat.scheduler_labels(),
        "detectors": detectors.names(),
        "upscalers": [{"name": name, "latent": latent} for name, latent in upscalers],
    }
