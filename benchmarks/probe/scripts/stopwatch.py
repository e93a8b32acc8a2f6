"""A stopwatch in the webui: how long each evaluation of the denoiser took, and the asking for a switch within it.

The host asks ``sd_samplers_common.apply_refiner`` before each evaluation; Multipass replaces that function while a plan
is rendered. Timed is whichever is there: the denoiser looks it up through what is put here in the module's place.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
from modules import script_callbacks, scripts, sd_samplers_cfg_denoiser, sd_samplers_common

PIECE = 256 << 20
EVALUATIONS = []  # for each: {"ask": seconds, "switched": whether, "ours": whose function, "begin", "end", "aside"}
BACK = {}  # {"bytes": memory to be made sure of, "before": which evaluation}
REMEMBERING = []  # for each asking of the UNet through the memo, seconds beside the UNet's own
BATCHES = []  # when the host, its checkpoint in place, is about to encode the texts of a picture


def back_memory():
    """As in ``benchmarks.loading``: else what is timed is how slowly a virtual machine gives fresh memory."""
    begin = time.perf_counter()
    pieces = [np.empty(PIECE, np.uint8) for _ in range(BACK["bytes"] // PIECE + 1)]
    for piece in pieces:
        piece.fill(0)
    return time.perf_counter() - begin


class Timed:
    """``sd_samplers_common``, with one function that tells how long it took."""

    def __getattr__(self, name):
        return getattr(sd_samplers_common, name)

    def apply_refiner(self, *args, **kwargs):
        ask = sd_samplers_common.apply_refiner
        aside = back_memory() if BACK.get("before") == len(EVALUATIONS) else 0
        begin = time.perf_counter()
        switched = ask(*args, **kwargs)
        seconds = time.perf_counter() - begin
        ours = ask.__module__.startswith("multipass.")
        EVALUATIONS.append({"ask": seconds, "switched": bool(switched), "ours": ours, "begin": begin, "aside": aside})
        return switched


def timed(original):
    def forward(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        EVALUATIONS[-1]["end"] = time.perf_counter()
        return result

    return forward


def asking(original):
    """``Remembering.asked``, without what the UNet takes."""

    def asked(self, denoiser, evaluate, args, kwargs):
        computing = 0

        def timed():
            nonlocal computing
            began = time.perf_counter()
            answer = evaluate()
            computing = time.perf_counter() - began
            return answer

        begin = time.perf_counter()
        answer = original(self, denoiser, timed, args, kwargs)
        REMEMBERING.append(time.perf_counter() - begin - computing)
        return answer

    return asked


class Stopwatch(scripts.Script):
    def title(self):
        return "Stopwatch"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process_batch(self, p, *args, **kwargs):
        BATCHES.append(time.perf_counter())


def add_routes(_, app):
    @app.get("/stopwatch")
    def tell():
        return {"pid": os.getpid(), "evaluations": EVALUATIONS, "batches": BATCHES, "remembering": REMEMBERING}

    @app.post("/stopwatch/clear")
    def clear(back: dict):
        BACK.clear()
        BACK.update(back)
        EVALUATIONS.clear()
        REMEMBERING.clear()
        BATCHES.clear()
        return {}


sd_samplers_cfg_denoiser.sd_samplers_common = Timed()
denoiser = sd_samplers_cfg_denoiser.CFGDenoiser
denoiser.forward = timed(denoiser.forward)
if "multipass.hosts.webui.memo" in sys.modules:
    remembering = sys.modules["multipass.hosts.webui.memo"].Remembering
    remembering.asked = asking(remembering.asked)
script_callbacks.on_app_started(add_routes)
