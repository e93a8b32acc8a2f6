"""A test extension, loaded by the host beside ours: it tells what the host did, and makes it fail on demand."""

import contextlib
import copy
import functools
import hashlib
import os
import sys
import threading
import types
from pathlib import Path

import gradio as gr
import torch
from modules import (
    processing,
    script_callbacks,
    scripts,
    sd_models,
    sd_samplers_cfg_denoiser,
    sd_samplers_common,
    shared,
)

EVALUATIONS = []  # the checkpoint in place at each evaluation of the denoiser
LATENTS = []  # a digest of what each sampling returned
LOADS = []  # every checkpoint file read
COPIES = []  # one entry once a copy of the request was rendered
ARGS = []  # what the host last handed to this script
SCRIPT_ARGS = []  # and to all scripts together
FAULT = {}  # {"kind": "raise" | "interrupt" | "skip" | "load" | "settings" | "copy" | "wait" | "tile", "at": ...}
GO = threading.Event()  # ends a "wait"


def checkpoint():
    info = getattr(shared.sd_model, "sd_checkpoint_info", None)
    return info.name_for_extra if info else None


def on_evaluation(params):
    EVALUATIONS.append(checkpoint())
    if FAULT.get("at") == len(EVALUATIONS):
        if FAULT["kind"] == "interrupt":
            shared.state.interrupt()
        elif FAULT["kind"] == "skip":
            shared.state.skip()
        elif FAULT["kind"] == "wait":
            GO.wait(60)
    if FAULT.get("kind") == "tile":
        from modules.sd_hijack import model_hijack

        model_hijack.apply_circular(True)


def failing(original):
    def store_latent(*args, **kwargs):
        if FAULT.get("kind") == "raise" and FAULT.get("at") == len(EVALUATIONS):
            raise MemoryError("injected")
        return original(*args, **kwargs)

    return store_latent


def scaled(original):
    """A reference for a pass's CFG: the scale replaced where it is used, from an evaluation on."""

    def use(*args, **kwargs):
        if FAULT.get("kind") == "cfg" and len(EVALUATIONS) >= FAULT["at"]:
            if "cond_scale" in kwargs:
                kwargs["cond_scale"] = FAULT["scale"]
            else:
                args = (*args[:4], FAULT["scale"])
        return original(*args, **kwargs)

    return use


def reading(original):
    """Around what reads a checkpoint: A1111 hands it the checkpoint's info first, Forge the file's name."""

    def read(source, *args, **kwargs):
        name = Path(getattr(source, "filename", source)).stem
        LOADS.append(name)
        if FAULT.get("kind") == "load" and FAULT.get("at") == name:
            raise OSError("injected: cannot read")
        return original(source, *args, **kwargs)

    return read


def digest(samples):
    found = hashlib.sha256()
    for sample in samples:
        found.update(sample.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class Probe(scripts.Script):
    def title(self):
        return "Probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox("first", visible=False), gr.Number(2, visible=False)]

    def process(self, p, *args):
        ARGS[:] = args
        SCRIPT_ARGS[:] = map(repr, p.script_args)
        # an init image's encoding draws from a generator that the host leaves where the last loading left it
        torch.manual_seed(0)

    def before_process(self, p, *args):
        """As extensions do that add a setting."""
        if FAULT.get("kind") == "settings":
            p.override_settings = {**p.override_settings, "samples_save": False}

    def postprocess_image(self, p, pp, *args):
        """As ADetailer does: another picture, by a copy of the request, in the middle of it."""
        if FAULT.get("kind") == "copy" and not COPIES:
            COPIES.append(True)
            inner = copy.copy(p)
            inner.scripts = p.scripts if FAULT["at"] == "scripts" else None
            inner.n_iter = inner.batch_size = 1
            with contextlib.closing(inner):
                processing.process_images(inner)

    def post_sample(self, p, ps, *args):
        LATENTS.append(digest(ps.samples))


def functions():
    """Where every function and method of the host's modules comes from; a replaced one comes from elsewhere."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(("modules.", "ldm.", "k_diffusion.", "backend.")) or module is None:
            continue
        for key, value in list(vars(module).items()):
            members = vars(value).items() if isinstance(value, type) else [("", value)]
            for member, function in list(members):
                if isinstance(function, types.FunctionType):
                    origin = f"{function.__module__}.{function.__qualname__}"
                    found[f"{name}.{key}.{member}"] = origin
    return found


def add_routes(_, app):
    @app.get("/probe/state")
    def state():
        return {
            "checkpoint": checkpoint(),
            "evaluations": EVALUATIONS,
            "latents": LATENTS,
            "loads": LOADS,
            "args": ARGS,
            "script_args": SCRIPT_ARGS,
        }

    @app.get("/probe/functions")
    def tell_functions():
        return functions()

    @app.post("/probe/arm")
    def arm(fault: dict):
        for record in (EVALUATIONS, LATENTS, LOADS, COPIES):
            record.clear()
        FAULT.clear()
        FAULT.update(fault)
        GO.clear()
        return {}

    @app.post("/probe/go")
    def go():
        GO.set()
        return {}

    @app.post("/probe/reload")
    def reload_ui():
        """What the button "Reload UI" does."""
        shared.state.request_restart()
        return {}


def know_the_demo_architecture():
    """Forge tells architectures by their widths, and knows none as small as the demo pair's."""
    import yaml
    from backend.misc import tomesd
    from backend.text_processing import classic_engine, textual_inversion
    from huggingface_guess import model_list

    unet = yaml.safe_load(Path(os.environ["PROBE_CONFIG"]).read_text())["model"]["params"]["unet_config"]["params"]
    widths = {"context_dim": unet["context_dim"], "model_channels": unet["model_channels"]}
    known = {
        "huggingface_repo": os.environ["PROBE_FORGE_CONFIG"],
        "unet_config": {**model_list.SD15.unet_config, **widths},
        "unet_extra_config": {"num_heads": unet["num_heads"], "num_head_channels": -1},
    }
    model_list.models.insert(0, type("Demo", (model_list.SD15,), known))
    classic_engine.EmbeddingDatabase = lambda tokenizer, _: textual_inversion.EmbeddingDatabase(tokenizer, -1)
    # the demo pair's largest attention is on half the latent's size
    find = tomesd.get_functions
    tomesd.get_functions = lambda x, ratio, size: find(x, ratio, (*size[:2], size[2] // 2, size[3] // 2))


sd_samplers_common.store_latent = failing(sd_samplers_common.store_latent)
if hasattr(sd_samplers_cfg_denoiser, "sampling_function"):
    sd_samplers_cfg_denoiser.sampling_function = scaled(sd_samplers_cfg_denoiser.sampling_function)
else:
    denoiser = sd_samplers_cfg_denoiser.CFGDenoiser
    denoiser.combine_denoised = scaled(denoiser.combine_denoised)
READER = "forge_loader" if hasattr(sd_models, "forge_loader") else "get_checkpoint_state_dict"
setattr(sd_models, READER, reading(getattr(sd_models, READER)))
if hasattr(sd_models, "forge_model_reload"):
    know_the_demo_architecture()
else:
    # what real SD1 checkpoints share: one config file, so that the host keeps its module when it changes the weights
    import tomesd
    from modules import sd_models_config

    # the demo pair's largest attention is on half the latent's size
    tomesd.apply_patch = functools.partial(tomesd.apply_patch, max_downsample=2)
    sd_models_config.config_default = os.environ["PROBE_CONFIG"]
script_callbacks.on_cfg_denoiser(on_evaluation)
script_callbacks.on_app_started(add_routes)
