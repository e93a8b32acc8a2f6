"""Settings > Multipass: what is kept in memory and on disk, and what the budgets come to in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import torch
from modules import paths, shared

from multipass.cache import MEMO_MB, budgets
from multipass.cache.budgets import GB, MB

_RAM, _VRAM, _AHEAD, _MANAGE, _FP8, _MEMO, _GALLERY, _TEMPORARY = (
    f"multipass_{name}"
    for name in (
        "ram_budget_gb",
        "vram_budget_gb",
        "read_ahead",
        "manage_checkpoints",
        "fp8",
        "memo_mb",
        "passes_in_gallery",
        "temporary_runs",
    )
)
_TEMPORARY_RUNS = 50


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
    why = "a step that a plan's picture has in common with an earlier one is not computed again; 0 = off"
    add(_MEMO, MEMO_MB, "RAM for what the UNet answered, in MB", why, *number)
    add(_GALLERY, False, "Show the passes' pictures in the gallery", "after the finished ones; in the API too")
    least_one = gr.Number, {"minimum": 1, "precision": 0}
    why = "a run that saves no images, as the API's do by default, leaves its passes' pictures in a temporary folder"
    add(_TEMPORARY, _TEMPORARY_RUNS, "Temporary runs to keep", why, *least_one)


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


def memo_budget() -> int:
    """Bytes that what the UNet answered may take in RAM; 0: nothing is remembered."""
    return int(float(shared.opts.data.get(_MEMO, MEMO_MB) or 0) * MB)


def on_managing(act: Any) -> None:
    """Call ``act()`` when that setting changes."""
    shared.opts.onchange(_MANAGE, act, call=False)


def on_memo_budget(act: Any) -> None:
    """Call ``act()`` when that setting changes."""
    shared.opts.onchange(_MEMO, act, call=False)


def shows_passes() -> bool:
    """Whether the passes' pictures are shown after the finished ones."""
    return bool(shared.opts.data.get(_GALLERY, False))


def temporary_runs() -> int:
    """How many runs that saved no images are kept, at least 1."""
    return max(1, int(shared.opts.data.get(_TEMPORARY) or _TEMPORARY_RUNS))


def saved_folder() -> Path:
    """Where runs go that save their images: in the webui's output folder."""
    output = shared.opts.outdir_samples or Path(shared.opts.outdir_txt2img_samples).parent
    return Path(output, "multipass").absolute()


def data_folder() -> Path:
    """Where is kept what is learned and what people save, under the webui's data folder."""
    return Path(paths.data_path, "multipass").absolute()


def presets_folder() -> Path:
    """Where the presets are that people save."""
    return data_folder() / "presets"


def temporary_folder() -> Path:
    """Where the others go: beside the webui's other data, so that each webui has its own."""
    return Path(paths.data_path, "tmp", "multipass").absolute()


def _chosen(name: str) -> int:
    return int(float(shared.opts.data.get(name) or 0) * GB)
