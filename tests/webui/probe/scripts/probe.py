"""A test extension, loaded by the host beside ours: it tells what the host did, and makes it fail on demand."""

import contextlib
import hashlib
import os
import sys
import types

from modules import script_callbacks, scripts, sd_models, sd_samplers_cfg_denoiser, shared

EVALUATIONS = []  # the checkpoint in place at each evaluation of the denoiser
LATENTS = []  # a digest of what each sampling returned
LOADS = []  # every checkpoint file read
FAULT = {}  # {"kind": "raise" | "interrupt" | "skip" | "load", "at": evaluation or file name}


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


def failing(original):
    def combine_denoised(self, *args, **kwargs):
        if FAULT.get("kind") == "raise" and FAULT.get("at") == len(EVALUATIONS):
            raise MemoryError("injected")
        return original(self, *args, **kwargs)

    return combine_denoised


def reading(original):
    def get_checkpoint_state_dict(info, *args, **kwargs):
        LOADS.append(info.name_for_extra)
        if FAULT.get("kind") == "load" and FAULT.get("at") == info.name_for_extra:
            raise OSError("injected: cannot read")
        return original(info, *args, **kwargs)

    return get_checkpoint_state_dict


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
        return {"checkpoint": checkpoint(), "evaluations": EVALUATIONS, "latents": LATENTS, "loads": LOADS}

    @app.get("/probe/functions")
    def tell_functions():
        return functions()

    @app.post("/probe/arm")
    def arm(fault: dict):
        for record in (EVALUATIONS, LATENTS, LOADS):
            record.clear()
        FAULT.clear()
        FAULT.update(fault)
        return {}


denoiser = sd_samplers_cfg_denoiser.CFGDenoiser
denoiser.combine_denoised = failing(denoiser.combine_denoised)
with contextlib.suppress(AttributeError):
    sd_models.get_checkpoint_state_dict = reading(sd_models.get_checkpoint_state_dict)
# what real SD1 checkpoints share: one config file, so that the host keeps its module when it changes the weights
with contextlib.suppress(ImportError):
    from modules import sd_models_config

    sd_models_config.config_default = os.environ["PROBE_CONFIG"]
script_callbacks.on_cfg_denoiser(on_evaluation)
script_callbacks.on_app_started(add_routes)
