"""Settings > Multipass: what is kept in memory, and what the budgets come to in bytes."""

from __future__ import annotations

from typing import Any

import gradio as gr
import torch
from modules import shared

from multipass.cache import budgets
from multipass.cache.budgets import GB

_RAM, _VRAM, _AHEAD, _MANAGE, _FP8 = (
    f"multipass_{name}" for name in ("ram_budget_gb", "vram_budget_gb", "read_ahead", "manage_checkpoints", "fp8")
)


def register() -> None:
    """From ``on_ui_settings``."""
    section = ("multipass", "Multipass")

    def add(name: str, default: Any, label: str, info: str, *component: Any) -> None:
        shared.opts.add_option(name, shared.OptionInfo(default, label, *component, section=section).info(info))

    number = gr.Number, {"minimum": 0}
    auto = f"0 = what is free: {ram_budget(0) / GB:.1f} GB when the webui started"
    add(_RAM, 0.0, "RAM for checkpoints, in GB", f"{auto}; the loaded one counts", *number)
    auto = f"0 = what is free: {vram_budget(0) / GB:.1f} GB when the webui started"
    add(_VRAM, 0.0, "VRAM for checkpoints, in GB", f"{auto}; the loaded one counts", *number)
    add(_AHEAD, True, "Read the next pass's checkpoint while this one samples", "")
    add(
        _MANAGE,
        False,
        "Keep checkpoints in the cache without a plan too",
        "every change of checkpoint gains",
    )
    add(
        _FP8,
        False,
        "Keep the UNets of a plan's other checkpoints as fp8 (lossy)",
        "half of the memory; pictures differ, and say so in their text; AUTOMATIC1111",
    )


def ram_budget(held: int) -> int:
    """Bytes that checkpoints may take in RAM, where they take ``held`` now."""
    return _chosen(_RAM) or budgets.free_ram(held)


def vram_budget(held: int) -> int:
    """Bytes that checkpoints may take on the GPU, where they take ``held`` now; 0 without one."""
    if not torch.cuda.is_available():
        return 0
    return _chosen(_VRAM) or budgets.free_vram(held)


def reads_ahead() -> bool:
    """Whether the next pass's checkpoint is read while this one samples."""
    return bool(shared.opts.data.get(_AHEAD, True))


def manages() -> bool:
    """Whether checkpoints are kept without a plan too."""
    return bool(shared.opts.data.get(_MANAGE, False))


def stores_fp8() -> bool:
    """Whether UNets that are read are kept in a byte a number, which is lossy."""
    return bool(shared.opts.data.get(_FP8, False))


def on_managing(act: Any) -> None:
    """Call ``act()`` when that setting changes."""
    shared.opts.onchange(_MANAGE, act, call=False)


def _chosen(name: str) -> int:
    return int(float(shared.opts.data.get(name) or 0) * GB)
