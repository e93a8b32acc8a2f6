"""A whole model of the host's: put down as it was built, and taken up again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from modules import devices, sd_models, shared
from torch import Tensor

from multipass.cache import weights
from multipass.cache.weights import Weights
from multipass.hosts.webui import compat
from multipass.hosts.webui.files import COMPONENTS, Version

# of the host's options, those by which the Forge family but Forge builds a model
_OPTIONS = ("sd_text_encoder", "reflective_padding_vae_sd", "sd_noise_schedule", "use_downcasted_alpha_bar")


class _Built(NamedTuple):
    form: Hashable
    sigmas: Tensor | None
    alphas_cumprod: Any


_built: WeakKeyDictionary[Any, _Built] = WeakKeyDictionary()


def note_built(model: Any) -> None:
    """From ``on_model_loaded``: how it is before a request changes it."""
    _built[model] = _Built(form(), getattr(_noise(model), "sigmas", None), getattr(model, "alphas_cumprod", None))


def form() -> Hashable:
    """What the host builds a model by now, beside the checkpoint and its VAE."""
    if not compat.IS_FORGE_FAMILY:
        return devices.fp8, getattr(shared.opts, "cache_fp16_weight", False)
    if not compat.LOADS_BY_PARAMETERS:
        return tuple(getattr(shared.opts, name, None) for name in _OPTIONS)
    wanted = sd_models.model_data.forge_loading_parameters
    others = tuple(Version.of(file) for file in wanted.get("additional_modules") or ())
    embeddings = Version.of(shared.cmd_opts.embeddings_dir)  # which are a part of what is built
    return others, wanted.get("unet_storage_dtype"), shared.opts.emphasis, embeddings


def form_of(model: Any) -> Hashable:
    """What a model was built by."""
    return _built[model].form if model in _built else None


def keeps_by_itself(info: Any) -> bool:
    """Whether a setting of the host's has it keep the live model, or it has ``info``'s."""
    listed = getattr(sd_models.model_data, "loaded_sd_models", [])
    return info.filename in compat.kept() or 0 < len(listed) < shared.opts.sd_checkpoints_limit


def is_whole(model: Any) -> bool:
    """Whether it can be kept: reForge takes a model apart before it loads another, and what it took apart stays its
    live one if that fails."""
    return not compat.IS_REFORGE or model in sd_models.model_data.loaded_sd_models


def sizes(model: Any) -> dict[str, Weights]:
    """By component, tensors without numbers as large as the model's. Not these themselves: the host puts others in
    their place when it moves them."""
    found = _components(model)
    return {name: {key: tensor.detach().to("meta") for key, tensor in part.items()} for name, part in found.items()}


def nbytes_in_ram(model: Any) -> int:
    """Of the same, what is not on a GPU."""
    tensors = [tensor for part in _components(model).values() for tensor in part.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor.device.type == "cpu")


def put_down(model: Any, *, kept: bool) -> None:
    """Take the live model from the host, which has none from now on, and make it as it was built.

    Args:
        kept: somebody else holds it; else it is gone.
    """
    data = sd_models.model_data
    if not compat.IS_FORGE_FAMILY:
        compat.model_hijack().undo_hijack(model)  # which ends tiling too
        if kept:
            sd_models.send_model_to_cpu(model)
        else:
            sd_models.send_model_to_trash(model)
    elif kept:
        _as_built(model)
    if model in getattr(data, "loaded_sd_models", []):  # else the host takes it apart, or loads into it
        data.loaded_sd_models.remove(model)
    data.sd_model = None


def take_up(model: Any, info: Any, *, of_another_family: bool) -> None:
    """Make a model that was put down the host's live one. Extensions are not told, as the host tells none when it uses
    a model again that it has."""
    data = sd_models.model_data
    if compat.LOADS_BY_PARAMETERS:
        data.set_sd_model(model)
        data.forge_hash = str(data.forge_loading_parameters)
    else:
        data.set_sd_model(model, already_loaded=True)
        if compat.IS_REFORGE:
            data.loaded_sd_models.insert(0, model)
    if compat.IS_FORGE_FAMILY:
        model.forge_objects = model.forge_objects_after_applying_lora.shallow_copy()
    else:
        sd_models.send_model_to_device(model)
        compat.model_hijack().hijack(model)
    if of_another_family and not compat.LOADS_BY_PARAMETERS and not compat.IS_REFORGE:
        # of the embeddings those that fit it, as when it is loaded
        compat.model_hijack().embedding_db.load_textual_inversion_embeddings(force_reload=True)
    model.sd_checkpoint_info = info
    shared.opts.data["sd_checkpoint_hash"] = info.sha256


def family(model: Any) -> Hashable:
    """Models of one family take the same embeddings."""
    return tuple(getattr(model, name, None) for name in ("is_sd1", "is_sd2", "is_sdxl", "is_sd3"))


def unload_all() -> None:
    """Have the Forge family's management of memory let go of every model that it has moved."""
    if compat.LOADS_BY_PARAMETERS:
        from backend import memory_management

        memory_management.unload_all_models()
    elif compat.IS_FORGE_FAMILY:
        from ldm_patched.modules import model_management

        model_management.unload_all_models()


def _as_built(model: Any) -> None:
    """Take off a model what a request puts on the one that it begins with, and then takes off another."""
    if getattr(model, "tiling_enabled", False) and not compat.LOADS_BY_PARAMETERS:
        from modules_forge.forge_util import apply_circular_forge

        apply_circular_forge(model, False)
    built, noise = _built.get(model), _noise(model)
    if built is not None and built.sigmas is not None and noise.sigmas is not built.sigmas:
        noise.set_sigmas(built.sigmas)
    if built is not None and built.alphas_cumprod is not None:
        model.alphas_cumprod = built.alphas_cumprod


def _noise(model: Any) -> Any:
    """Where the Forge family has a model's noise schedule."""
    if not compat.IS_FORGE_FAMILY:
        return None
    inner = model.forge_objects.unet.model
    return inner.predictor if compat.LOADS_BY_PARAMETERS else inner.model_sampling


def _components(model: Any) -> dict[str, Weights]:
    """All tensors that a model takes room with."""
    if not compat.IS_FORGE_FAMILY:
        return weights.split(weights.held(model), COMPONENTS)
    built = model.forge_objects_original
    parts = {
        "unet": getattr(built.unet, "model", None),
        "text_encoder": getattr(built.clip, "cond_stage_model", None),
        "vae": getattr(built.vae, "first_stage_model", None),
    }
    found = {name: weights.held(part) for name, part in parts.items() if part is not None}
    aside = _put_aside(model)
    return {**found, "networks": aside} if aside else found


def _put_aside(model: Any) -> Mapping[str, Tensor]:
    """The layers as they were, into which the Forge family has merged networks."""
    found: dict[str, Tensor] = {}
    for owner in (model.forge_objects.unet, getattr(model.forge_objects.clip, "patcher", None)):
        loader = getattr(owner, "lora_loader", owner)
        for name, tensor in getattr(loader, "backup", {}).items():
            if isinstance(tensor, Tensor):
                found[f"{id(owner)}.{name}"] = tensor
    return found
