"""A test extension, loaded by the host beside ours: it tells what the host did, and makes it fail on demand."""

import builtins
import contextlib
import copy
import functools
import gc
import hashlib
import inspect
import os
import sys
import threading
import types
from pathlib import Path

import gradio as gr
import psutil
import torch
from modules import (
    devices,
    images,
    processing,
    prompt_parser,
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
ENCODINGS = []  # how many evaluations had been made at each encoding of texts
MODULES = []  # the module in place at each evaluation
COPIES = []  # the digest of the copy of the request that was rendered, as an entry
COMMENTS = []  # what the last request told the person
PATCHED = []  # the checkpoint in place at each call of the patched UNet
ARGS = []  # what the host last handed to this script
SCRIPT_ARGS = []  # and to all scripts together
SEEN = []  # the pixels, in hex, of the finished pictures that the denoiser saw in the noise when it was told to look
DECODED = []  # for each latent that the VAE decoded, how many evaluations had been made
TEXTS = []  # what the host's bar said
UNETS = []  # for each call of the UNet itself, how many pictures it was given at once
INSIDE = []  # what a request of another script's was rendered by, in the middle of one
LABELS = []  # what was written beside the pictures of a grid
FAULT = {}  # {"kind": what to do, "at": where}
UNET = "model.diffusion_model."
GO = threading.Event()  # ends a "wait"


def checkpoint():
    info = getattr(shared.sd_model, "sd_checkpoint_info", None)
    return info.name_for_extra if info else None


def on_evaluation(params):
    EVALUATIONS.append(checkpoint())
    MODULES.append(id(shared.sd_model))
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
    elif FAULT.get("kind") == "noisy callback":
        params.x += 0.05 * torch.randn_like(params.x)
    elif FAULT.get("kind") == "unet" and FAULT["at"] == "argument":
        params.image_cond = object()
    elif FAULT.get("kind") == "unet" and FAULT["at"] == "unreadable":
        params.image_cond = torch.zeros(1, dtype=torch.complex64).conj()  # whose bits cannot be looked at


def on_guided(params):
    """A k-diffusion sampler's, or any of the Forge family's: what the denoiser saw in the noise."""
    if FAULT.get("kind") == "look" and FAULT["at"] == len(EVALUATIONS) and FAULT["by"] == "denoiser":
        look(params.x)


def stepping(original):
    """What a sampler itself tells of a step: DDIM and its kin are answered with noise."""

    def callback_state(sampler, told):
        if FAULT.get("kind") == "look" and FAULT["at"] == len(EVALUATIONS) and FAULT["by"] == "sampler":
            look(told["denoised"])
        return original(sampler, told)

    return callback_state


def look(latents):
    decoded = decode(shared.sd_model, latents.clone(), target_device=devices.cpu)
    DECODED[-len(decoded) :] = []
    for picture in decoded:
        pixels = (255 * torch.clamp((picture.float() + 1) / 2, 0, 1).numpy().transpose(1, 2, 0)).astype("uint8")
        SEEN.append(pixels.tobytes().hex())


def counting(original):
    def samples_to_images_tensor(sample, *args, **kwargs):
        DECODED.extend([len(EVALUATIONS)] * len(sample))
        return original(sample, *args, **kwargs)

    return samples_to_images_tensor


def counting_unets(module):
    """The UNet of any host embeds the timesteps once in each call, by a function of its module's."""
    original = module.timestep_embedding

    def timestep_embedding(timesteps, *args, **kwargs):
        UNETS.append(len(timesteps))
        if FAULT.get("kind") == "unet" and FAULT["at"] == "draw":
            torch.rand(1)
        return original(timesteps, *args, **kwargs)

    module.timestep_embedding = timestep_embedding


def failing(original):
    def store_latent(*args, **kwargs):
        if FAULT.get("kind") == "raise" and FAULT.get("at") == len(EVALUATIONS):
            raise MemoryError("injected")
        return original(*args, **kwargs)

    return store_latent


def failing_to_decode(original):
    def decode_latent_batch(*args, **kwargs):
        if FAULT.get("kind") == "decode":
            raise MemoryError("injected")
        decoded = original(*args, **kwargs)
        if FAULT.get("kind") == "no numbers" and FAULT["at"] == len(EVALUATIONS):
            return [picture * float("nan") for picture in decoded]
        return decoded

    return decode_latent_batch


def scaled(original):
    """A reference for a pass's CFG: the scale replaced where it is used, from an evaluation on."""

    def use(*args, **kwargs):
        if FAULT.get("kind") == "cfg" and len(EVALUATIONS) >= FAULT["at"]:
            if "cond_scale" in kwargs:
                kwargs["cond_scale"] = FAULT["scale"]
            else:
                place = 5 if len(args) > 5 else 4  # the Forges' `sampling_function`, or `combine_denoised`
                args = (*args[:place], FAULT["scale"], *args[place + 1 :])
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


def reading_parts(reader):
    """Around Multipass's own reader, which reads the UNet by itself: that is a load."""
    original = reader.read

    def read(path, names=None, **more):
        name, parts = Path(path).stem, names is None or any(name.startswith(UNET) for name in names)
        if parts:
            LOADS.append(name)
        if (FAULT.get("kind"), FAULT.get("at")) in {("load", name), ("load unet" if parts else None, name)}:
            raise reader.ReadError("injected: cannot read")
        return original(path, names, **more)

    reader.read = read


def encoding(original):
    def encode(*args, **kwargs):
        ENCODINGS.append(len(EVALUATIONS))
        return original(*args, **kwargs)

    return encode


def patch(p):
    """As ControlNet does: the UNet of the model in place gives something else, and counts its calls."""
    unet = p.probe_unet = p.sd_model.model.diffusion_model
    original = unet.forward
    unet.forward = lambda *args, **kwargs: changed(original(*args, **kwargs))


def unpatch(p):
    unet = vars(p).pop("probe_unet", None)
    if unet is not None:
        del unet.forward


def patch_forge(p):
    """For one sampling, as its extensions do."""
    unet = p.sd_model.forge_objects.unet = p.sd_model.forge_objects.unet.clone()
    unet.set_model_unet_function_wrapper(lambda model, of: changed(model(of["input"], of["timestep"], **of["c"])))


def meddle(p):
    """What nobody can see through, though it changes nothing; returns what takes it away again."""
    is_forge = "modules_forge" in sys.modules
    unet = p.sd_model.forge_objects.unet.model.diffusion_model if is_forge else p.sd_model.model.diffusion_model
    if FAULT["at"] == "hook":
        return unet.register_forward_hook(lambda *_: None).remove
    if FAULT["at"] == "layer":
        layer = next(part for part in unet.modules() if isinstance(part, torch.nn.Conv2d))
        own = layer.forward
        layer.forward = lambda x: own(x)  # noqa: PLW0108 - a function of somebody else's
        return functools.partial(delattr, layer, "forward")
    return lambda: None


def changed(noise):
    PATCHED.append(checkpoint())
    return noise * 1.1


def break_once(path, error=RuntimeError, times=1):
    """Make a function fail at its next calls."""
    module, _, name = path.rpartition(".")
    owner = sys.modules[module]
    original = getattr(owner, name)
    left = [times]

    def fail(*_, **__):
        left[0] -= 1
        if not left[0]:
            setattr(owner, name, original)
        raise error(f"injected into {name}")

    setattr(owner, name, fail)


def noting_labels(kind):
    def annotation(text="", *args, **kwargs):
        LABELS.append(text)
        return kind(text, *args, **kwargs)

    return annotation


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
        if FAULT.get("kind") == "patch" and "modules_forge" not in sys.modules:
            patch(p)
        if FAULT.get("kind") == "unet":
            p.probe_meddling = meddle(p)

    def before_process(self, p, *args):
        """As extensions do that add a setting; and what breaks in Multipass, breaks from here on."""
        if FAULT.get("kind") == "break":
            break_once(FAULT["at"], getattr(builtins, FAULT.get("error", "RuntimeError")), FAULT.get("times", 1))
        if FAULT.get("kind") == "settings":
            p.override_settings = {**p.override_settings, "samples_save": False}
        elif FAULT.get("kind") == "checkpoint":
            p.override_settings = {**p.override_settings, "sd_model_checkpoint": FAULT["at"]}

    def process_before_every_sampling(self, p, *args, **kwargs):
        if FAULT.get("kind") == "patch" and "modules_forge" in sys.modules:
            patch_forge(p)
        if FAULT.get("kind") == "unet" and FAULT["at"] == "argument" and "modules_forge" in sys.modules:
            unet = p.sd_model.forge_objects.unet = p.sd_model.forge_objects.unet.clone()
            unet.model_options.setdefault("transformer_options", {})["probe"] = object()

    def postprocess(self, p, processed, *args):
        unpatch(p)
        vars(p).pop("probe_meddling", lambda: None)()
        COMMENTS[:] = list(p.comments)
        inside(p, "postprocess")

    def postprocess_batch_list(self, p, pp, *args, **kwargs):
        if FAULT.get("face"):
            pp.images = [with_a_face(picture) for picture in pp.images]

    def postprocess_image(self, p, pp, *args):
        inside(p, "postprocess_image")
        # as ADetailer does: another picture, by a copy of the request, in the middle of it
        if FAULT.get("kind") == "copy" and not COPIES:
            COPIES.append("")
            inner = copy.copy(p)
            inner.scripts = p.scripts if FAULT["at"] == "scripts" else None
            inner.n_iter = inner.batch_size = 1
            inner.override_settings = {**inner.override_settings, **FAULT.get("overrides", {})}
            with contextlib.closing(inner):
                rendered = processing.process_images(inner)
            COPIES[:] = [hashlib.sha256(rendered.images[0].convert("RGB").tobytes()).hexdigest()]

    def post_sample(self, p, ps, *args):
        LATENTS.append(digest(ps.samples))


def inside(p, at):
    """A request that another script makes in the middle of this one: with all scripts and their arguments."""
    if FAULT.get("inside") != at:
        return
    told = FAULT.pop("inside")  # this script sees the other request too
    inner = processing.StableDiffusionProcessingTxt2Img(
        **FAULT["request"], override_settings=dict(FAULT.get("overrides", {})), do_not_save_samples=True
    )
    inner.is_api = p.is_api  # else the page's fields are read, which have defaults
    inner.scripts, inner.script_args = p.scripts, p.script_args
    try:
        options = {name: shared.opts.data.get(name) for name in ("sd_model_checkpoint", "sd_vae")}
        with contextlib.closing(inner):
            rendered = processing.process_images(inner)
        digest = hashlib.sha256(rendered.images[0].convert("RGB").tobytes()).hexdigest()
        INSIDE.append({**options, "picture": digest, "infotext": rendered.infotexts[0]})
    finally:
        FAULT["inside"] = told


def with_a_face(picture):
    """For ADetailer to find; the picture is still another with each seed."""
    from skimage import data

    face = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255
    resized = torch.nn.functional.interpolate(picture[None], face.shape[1:], mode="nearest")[0]
    return 0.9 * face + 0.1 * resized


def model():
    """What is in A1111's module, as it is without networks, and what the host notes of it.

    Not ``alphas_cumprod``, which every request begins with making anew, and leaves as its noise schedule was.
    """
    if "modules_forge" in sys.modules:
        return None
    from modules import sd_vae

    found = hashlib.sha256()
    for path, part in sorted(shared.sd_model.named_modules(), key=lambda item: item[0].replace(".wrapped", "")):
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            kept = getattr(part, f"network_{'weights' if name == 'weight' else name}_backup", None)
            if tensor is not None and name != "alphas_cumprod":
                found.update(f"{path.replace('.wrapped', '')}.{name}".encode())
                found.update((tensor if kept is None else kept).detach().float().contiguous().numpy().tobytes())
    noted = {name: str(getattr(shared.sd_model, name)) for name in ("sd_model_hash", "sd_model_checkpoint")}
    vae = {"file": sd_vae.loaded_vae_file, "base kept": sd_vae.base_vae is not None}
    return {"tensors": found.hexdigest(), **noted, **vae}


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


def note_texts():
    kind = type(shared.state)

    def setattr_noting(state, name, value):
        if name == "textinfo" and value:
            TEXTS.append(value)
        object.__setattr__(state, name, value)

    shared.state.__class__ = type(
        kind.__name__, (kind,), {"__setattr__": setattr_noting, "__module__": kind.__module__}
    )


def add_routes(_, app):
    @app.get("/probe/state")
    def state():
        told = {"evaluations": EVALUATIONS, "latents": LATENTS, "loads": LOADS, "encodings": ENCODINGS}
        told |= {"seen": SEEN, "decoded": DECODED}
        return {
            "checkpoint": checkpoint(),
            "modules": MODULES,
            "patched": PATCHED,
            "copies": COPIES,
            "comments": COMMENTS,
            "args": ARGS,
            "script_args": SCRIPT_ARGS,
            "texts": TEXTS,
            "unets": UNETS,
            "inside": INSIDE,
            "labels": LABELS,
            **told,
        }

    @app.get("/probe/model")
    def tell_model():
        return model()

    @app.get("/probe/memory")
    def memory():
        gc.collect()
        return psutil.Process().memory_info().rss

    @app.get("/probe/functions")
    def tell_functions():
        return functions()

    @app.get("/probe/imported")
    def tell_imported():
        """The packages and modules of the top level."""
        return sorted({name.partition(".")[0] for name in sys.modules})

    @app.post("/probe/arm")
    def arm(fault: dict):
        notes = [
            EVALUATIONS,
            LATENTS,
            LOADS,
            ENCODINGS,
            MODULES,
            COPIES,
            PATCHED,
            SEEN,
            DECODED,
            TEXTS,
            UNETS,
            INSIDE,
            LABELS,
        ]
        for record in notes:
            record.clear()
        FAULT.clear()
        FAULT.update(fault)
        GO.clear()
        return {}

    @app.post("/probe/schedules")
    def schedules(asked: dict):
        """How the host reads texts with prompt editing: of each that it encodes, the weight and the schedule."""
        old = shared.opts.use_old_scheduling
        (indexes,), prompts, _ = prompt_parser.get_multicond_prompt_list([asked["prompt"]])
        found = prompt_parser.get_learned_conditioning_prompt_schedules(prompts, asked["steps"], None, old)
        texts = [asked["negative_prompt"]]
        negative = prompt_parser.get_learned_conditioning_prompt_schedules(texts, asked["steps"], None, old)
        return [*([weight, found[index]] for index, weight in indexes), [1.0, negative[0]]]

    @app.post("/probe/go")
    def go():
        GO.set()
        return {}

    @app.post("/probe/reload")
    def reload_ui():
        """What the button "Reload UI" does."""
        shared.state.request_restart()
        return {}


def demo_sizes():
    import yaml

    return yaml.safe_load(Path(os.environ["PROBE_CONFIG"]).read_text())["model"]["params"]


def widths(sizes):
    """How the Forge family tells an architecture, and it knows none as small as the demo pair's."""
    unet = sizes["unet_config"]["params"]
    known = {"context_dim": unet["context_dim"], "model_channels": unet["model_channels"]}
    return known, {"num_heads": unet["num_heads"], "num_head_channels": -1}


def teach_forge():
    from backend.misc import tomesd
    from backend.text_processing import classic_engine, textual_inversion
    from huggingface_guess import model_list

    known, extra = widths(demo_sizes())
    members = {
        "huggingface_repo": os.environ["PROBE_FORGE_CONFIG"],
        "unet_config": {**model_list.SD15.unet_config, **known},
        "unet_extra_config": extra,
    }
    model_list.models.insert(0, type("Demo", (model_list.SD15,), members))
    classic_engine.EmbeddingDatabase = lambda tokenizer, _: textual_inversion.EmbeddingDatabase(tokenizer, -1)
    # the demo pair's largest attention is on half the latent's size
    find = tomesd.get_functions
    tomesd.get_functions = lambda x, ratio, size: find(x, ratio, (*size[:2], size[2] // 2, size[3] // 2))


def teach_the_older_forges():
    """Forge Classic and reForge."""
    from ldm_patched.modules import sd1_clip, supported_models, supported_models_base
    from modules_forge import forge_loader

    sizes = demo_sizes()
    known, extra = widths(sizes)
    vae = sizes["first_stage_config"]["params"]
    text = {"textmodel_json_config": str(Path(sizes["cond_stage_config"]["params"]["version"]) / "config.json")}
    if "return_projected_pooled" in inspect.signature(sd1_clip.SDClipModel.__init__).parameters:
        text["return_projected_pooled"] = False

    def clip_target(*_, **__):
        target = supported_models_base.ClipTarget(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)
        target.params = {"clip_model": functools.partial(sd1_clip.SDClipModel, **text)}
        return target

    sd15 = supported_models.SD15
    members = {"unet_config": {**sd15.unet_config, **known}, "unet_extra_config": extra, "clip_target": clip_target}
    supported_models.models.insert(0, type("Demo", (sd15,), members))

    class Vae(forge_loader.VAE):
        def __init__(self, sd=None, *args, **kwargs):
            first = (sd or {}).get("encoder.conv_in.weight")
            if first is not None and first.shape[0] == vae["ddconfig"]["ch"] and kwargs.get("config") is None:
                kwargs["config"] = {"params": {"ddconfig": dict(vae["ddconfig"]), "embed_dim": vae["embed_dim"]}}
            super().__init__(sd, *args, **kwargs)

    forge_loader.VAE = Vae


images.GridAnnotation = noting_labels(images.GridAnnotation)
decode = processing.decode_latent_batch
sd_samplers_common.samples_to_images_tensor = counting(sd_samplers_common.samples_to_images_tensor)
sd_samplers_common.Sampler.callback_state = stepping(sd_samplers_common.Sampler.callback_state)
processing.decode_latent_batch = failing_to_decode(processing.decode_latent_batch)
sd_samplers_common.store_latent = failing(sd_samplers_common.store_latent)
if hasattr(sd_samplers_cfg_denoiser, "sampling_function"):  # Forge, reForge
    sd_samplers_cfg_denoiser.sampling_function = scaled(sd_samplers_cfg_denoiser.sampling_function)
elif "modules_forge" in sys.modules:  # Forge Classic
    from modules_forge import forge_sampler

    forge_sampler.sampling_function = scaled(forge_sampler.sampling_function)
else:
    denoiser = sd_samplers_cfg_denoiser.CFGDenoiser
    denoiser.combine_denoised = scaled(denoiser.combine_denoised)
prompt_parser.get_learned_conditioning = encoding(prompt_parser.get_learned_conditioning)
READER = "forge_loader" if hasattr(sd_models, "forge_model_reload") else "get_checkpoint_state_dict"
setattr(sd_models, READER, reading(getattr(sd_models, READER)))
if "multipass.cache.reader" in sys.modules:
    reading_parts(sys.modules["multipass.cache.reader"])
if hasattr(sd_models, "forge_model_reload"):
    teach_forge()
elif "modules_forge" in sys.modules:
    teach_the_older_forges()
else:
    # what real SD1 checkpoints share: one config file, so that the host keeps its module when it changes the weights
    import tomesd
    from modules import sd_models_config

    # the demo pair's largest attention is on half the latent's size
    tomesd.apply_patch = functools.partial(tomesd.apply_patch, max_downsample=2)
    sd_models_config.config_default = os.environ["PROBE_CONFIG"]
    beside = Path(os.environ["PROBE_CONFIG"]).parent
    if (beside / "sdxl.yaml").is_file():
        import open_clip

        sd_models_config.config_sdxl = str(beside / "sdxl.yaml")
        open_clip.add_model_config(beside / "open_clip")
if hasattr(sd_models, "forge_model_reload"):
    from backend.nn import unet as unet_module
elif "modules_forge" in sys.modules:
    from ldm_patched.ldm.modules.diffusionmodules import openaimodel as unet_module
else:
    from ldm.modules.diffusionmodules import openaimodel as unet_module
counting_unets(unet_module)
script_callbacks.on_cfg_denoiser(on_evaluation)
script_callbacks.on_cfg_after_cfg(on_guided)
script_callbacks.on_app_started(add_routes)
note_texts()
