"""Where the hosts differ: AUTOMATIC1111 and the Forge family. Everything else in this package is the same for all."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from modules import (
    devices,
    masking,
    script_callbacks,
    sd_models,
    sd_samplers,
    sd_samplers_cfg_denoiser,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    shared,
)
from PIL import Image

from multipass.hosts.webui import hooks

IS_FORGE_FAMILY = importlib.util.find_spec("modules_forge") is not None  # Forge, Forge Classic, reForge
LOADS_BY_PARAMETERS = hasattr(sd_models, "forge_model_reload")  # Forge alone; the others by `reload_model_weights`
IS_REFORGE = hasattr(sd_models, "complete_model_teardown")  # which lists the models that it has loaded, as A1111 does
_SCHEDULE_OPTIONS = ("sd_noise_schedule", "use_downcasted_alpha_bar")


def loaded() -> Any:
    """The ``CheckpointInfo`` of the model in place, or ``None`` before the first one is loaded."""
    return getattr(shared.sd_model, "sd_checkpoint_info", None)


def kept() -> frozenset[str]:
    """The files of the models that the host keeps in memory by itself."""
    models = getattr(sd_models.model_data, "loaded_sd_models", ())  # not Forge
    return frozenset(model.sd_checkpoint_info.filename for model in models)


def of_request(p: Any) -> Any:
    """The ``CheckpointInfo`` that the host will put in place when it begins the request, as far as can be told before;
    else ``None``."""
    overriding = sd_models.checkpoint_aliases.get(p.override_settings.get("sd_model_checkpoint"))
    if overriding is not None:
        return overriding
    if LOADS_BY_PARAMETERS:
        return sd_models.model_data.forge_loading_parameters.get("checkpoint_info")
    return sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)


def have_a_model() -> None:
    """Forge loads its first model when the first picture asks for it, not when it starts."""
    if LOADS_BY_PARAMETERS and loaded() is None:
        sd_models.forge_model_reload()


def chosen() -> Any:
    """What the host would load for the next picture, beside what its options say."""
    return sd_models.model_data.forge_loading_parameters if LOADS_BY_PARAMETERS else None


def choose(chosen_before: Any) -> None:
    """Put ``chosen()`` back: overridden options change it in Forge, and their being put back does not always.

    What the options name is taken from them: a person may have chosen another while the picture was made.
    """
    if LOADS_BY_PARAMETERS:
        named = {
            "checkpoint_info": sd_models.select_checkpoint(),
            "additional_modules": shared.opts.forge_additional_modules,
        }
        sd_models.model_data.forge_loading_parameters = {**chosen_before, **named}


@contextmanager
def loading_by_default(info: Any) -> Iterator[None]:
    """While this lasts, Forge loads this checkpoint where nothing else is chosen; the others go by their options. What
    somebody chooses meanwhile stays."""
    if not LOADS_BY_PARAMETERS:
        yield
        return
    data = sd_models.model_data
    before = data.forge_loading_parameters
    data.forge_loading_parameters = {**before, "checkpoint_info": info}
    try:
        yield
    finally:
        now = data.forge_loading_parameters
        if now.get("checkpoint_info") is info:
            data.forge_loading_parameters = {**now, "checkpoint_info": before["checkpoint_info"]}


def load(info: Any) -> bool:
    """Put a checkpoint's weights in place with the host's own means; options and config.json are left alone.

    Returns:
        whether anything was loaded: ``False`` if that checkpoint was in place.

    Raises:
        RuntimeError: if the host says nothing and holds another model afterwards. What the host raises, passes; then
            what was in place before is in place again.
    """
    before = loaded()
    if before is not None and before.filename == info.filename:
        return False
    try:
        _load(info)
    except BaseException:
        if before is not None:
            _load(before, again=True)
        raise
    now = loaded()
    if now is None or now.filename != info.filename:
        raise RuntimeError(f"the webui did not load {info.title}, it holds {now.title if now else 'no model'}")
    devices.torch_gc()
    return True


def load_anew(info: Any) -> None:
    """As ``load``, whatever is in place."""
    if info is not None:
        _load(info, again=True)


def precision_changed() -> bool:
    """Whether A1111's next load would change how it stores the weights that it has (the fp8 option)."""
    return hasattr(sd_models, "check_fp8") and sd_models.check_fp8(shared.sd_model) not in (None, devices.fp8)


def _load(info: Any, *, again: bool = False) -> None:
    """``again``: also where the host believes it is loaded. A load that fails on its way leaves A1111 with the old
    model's attention un-hijacked, and Forge with no model under the old one's name."""
    with sd_models.SkipWritingToConfig():
        if not LOADS_BY_PARAMETERS:
            sd_models.reload_model_weights(info=info, forced_reload=again)
            return
        # Forge loads what its parameters name, and reloads by itself once they name something else again
        data = sd_models.model_data
        wanted = data.forge_loading_parameters
        data.forge_loading_parameters = {**wanted, "checkpoint_info": info}
        if again:
            data.forge_hash = ""
        try:
            sd_models.forge_model_reload()
        finally:
            data.forge_loading_parameters = wanted


@contextmanager
def swapping(x: Any) -> Iterator[None]:
    """Around a change of the model while the sampler runs; Forge plans its memory by ``x``, the noisy latent."""
    if not IS_FORGE_FAMILY:
        yield
        return
    sd_samplers_kdiffusion.sampling_cleanup(shared.sd_model.forge_objects.unet)
    yield
    sd_samplers_kdiffusion.sampling_prepare(shared.sd_model.forge_objects.unet, x=x)


@contextmanager
def sampling_nothing() -> Iterator[None]:
    """While a sampler is only run to see its steps: other extensions are not told of it, and Forge, which would move
    the model into place for it, does not."""

    def nothing(*_: Any, **__: Any) -> None: ...

    names = ["extra_noise_callback", "sampling_prepare", "sampling_cleanup"]
    with ExitStack() as stack:
        for module in (sd_samplers_kdiffusion, sd_samplers_timesteps):
            stack.enter_context(hooks.replaced(module, **{name: nothing for name in names if hasattr(module, name)}))
        yield


@contextmanager
def scheduled_for(p: Any) -> Iterator[None]:
    """While this lasts, the model has the noise schedule that the host will give it when it begins the request.

    Without it the model has that of the last request (A1111) or the one it came with (the Forge family, where only
    Forge's is known here).
    """
    asked = {name: p.override_settings[name] for name in _SCHEDULE_OPTIONS if name in p.override_settings}
    with hooks.options(asked), _scheduled_in_forge() if LOADS_BY_PARAMETERS else _scheduled():
        yield


@contextmanager
def _scheduled() -> Iterator[None]:
    model = shared.sd_model
    before = getattr(model, "alphas_cumprod", None)
    if before is None or not hasattr(sd_models, "apply_alpha_schedule_override"):  # as in Forge Classic
        yield
        return
    sd_models.apply_alpha_schedule_override(model)
    try:
        yield
    finally:
        model.alphas_cumprod = before


@contextmanager
def _scheduled_in_forge() -> Iterator[None]:
    from backend.modules.k_prediction import rescale_zero_terminal_snr_sigmas

    model = shared.sd_model
    predictor: Any = model.forge_objects.unet.model.predictor if loaded() is not None else None
    by_option = shared.opts.sd_noise_schedule == "Zero Terminal SNR"
    if not hasattr(predictor, "set_sigmas") or not (by_option or getattr(model.model_config, "ztsnr", False)):
        yield
        return
    before = predictor.sigmas
    predictor.set_sigmas(rescale_zero_terminal_snr_sigmas(before))
    try:
        yield
    finally:
        predictor.set_sigmas(before)


def prepare_loaded(p: Any) -> None:
    """What the request asked of the model and a fresh load lost: tiling, token merging, the noise schedule option."""
    apply_tiling(p)
    merge_tokens(p)
    if not IS_FORGE_FAMILY:  # whose own Refiner leaves this as it is
        sd_models.apply_alpha_schedule_override(p.sd_model, p)


def merge_tokens(p: Any) -> None:
    """Let the model merge tokens as the request now says; the Forge family does so with every sampling."""
    if not IS_FORGE_FAMILY:
        sd_models.apply_token_merging(p.sd_model, p.get_token_merging_ratio())


def apply_tiling(p: Any) -> None:
    """Have the model in place tile as the request asks; the host does that for the first one, at the beginning."""
    if not IS_FORGE_FAMILY:
        model_hijack().apply_circular(p.tiling)
    elif not LOADS_BY_PARAMETERS:  # Forge itself cannot
        from modules_forge.forge_util import apply_circular_forge

        apply_circular_forge(shared.sd_model, bool(p.tiling))


def restore_schedule(model: Any) -> None:
    """reForge rescales the noise schedule of the model that a picture begins with, and puts back that of the model that
    it ends with. This does so for the one that it began with."""
    own = vars(model)  # of a model that it has taken apart meanwhile, nothing else can be asked
    rescaled = own.get("forge_objects") is not None and own.get("sigmas_original") is not None
    if model is not shared.sd_model and rescaled:
        model.forge_objects.unet.model.model_sampling.set_sigmas(model.sigmas_original)
        model.alphas_cumprod = model.alphas_cumprod_original


def uncommented(text: str) -> str:
    """A text without its comments, where the host takes them out: Forge where it applies styles, the others by a
    script, which can only be asked as it is before tokens are counted."""
    asked = script_callbacks.BeforeTokenCounterParams(
        prompt=shared.prompt_styles.apply_styles_to_prompt(text, []), steps=1, styles=[]
    )
    script_callbacks.before_token_counter_callback(asked)
    return asked.prompt


def note_encoding(p: Any) -> None:
    """What the encoding of texts has to tell in the picture's text (embeddings, emphasis), as the host does it after
    its own encoding."""
    told = p.sd_model.extra_generation_params if LOADS_BY_PARAMETERS else model_hijack().extra_generation_params
    p.extra_generation_params.update(told)


def model_hijack() -> Any:
    """What A1111 and its kin hold of the model in place."""
    from modules.sd_hijack import model_hijack as found

    return found


def predicted(denoiser: Any, x: Any, level: Any, answer: Any) -> Any:
    """The finished picture, as latents, that the denoiser has just seen in ``x``, guided: what the sampler goes by.

    DDIM and its kin are answered with noise, and the Forge family turns the picture into that as the last thing.
    """
    if getattr(denoiser, "classic_ddim_eps_estimation", False):
        return denoiser.sampler.last_latent
    return denoiser.get_pred_x0(x, answer, level)


def tell_controlnet(p: Any) -> None:
    """Tell the ControlNet extension which texts are the negative ones, as it asks of those who change them; it tells
    itself of those with which sampling begins. Without, "ControlNet is more important" would hold for both.
    """
    tell = getattr(sys.modules.get("scripts.hook"), "mark_prompt_context", None)
    if tell is None or IS_FORGE_FAMILY or not hasattr(shared.sd_model.model.diffusion_model, "_original_forward"):
        return  # not there, or not on this UNet, which would take the marks for words
    tell(p.c, positive=True)
    tell(p.uc, positive=False)


def hires_checkpoint(p: Any) -> Any:
    """The ``CheckpointInfo`` that a request names for its hires fix, before the host has looked it up; ``None`` where
    there is no hires fix, or it names none."""
    name = getattr(p, "hr_checkpoint_name", None) if getattr(p, "enable_hr", False) else None
    if not name or name == "Use same checkpoint":
        return None
    return sd_models.get_closet_checkpoint_match(name)


def keep_for_hires(p: Any, info: Any) -> None:
    """Let the hires pass run on ``info`` where the request names no checkpoint; Forge stays on the last by itself."""
    if not LOADS_BY_PARAMETERS and getattr(p, "enable_hr", False) and p.hr_checkpoint_info is None:
        p.hr_checkpoint_info = info


def sampler(name: str, scheduler: str) -> dict[str, str] | None:
    """The fields of a request that name a sampler; ``None`` if the host has none of that name.

    Forge Classic has no schedule types: there a sampler's name says it too ("DPM++ 2M Karras"), which the others
    understand for the sake of old pictures.
    """
    if importlib.util.find_spec("modules.sd_schedulers") is None:
        names = [name] if scheduler == "Automatic" else [f"{name} {scheduler}", name]
        listed = {known.name.lower(): known.name for known in sd_samplers.all_samplers}
        known = next((listed[name.lower()] for name in names if name.lower() in listed), None)
        return {"sampler_name": known} if known else None
    from modules import sd_schedulers

    sampler_name, found = sd_samplers.get_sampler_and_scheduler(name, scheduler)
    rest = name.removeprefix(sampler_name).strip()  # of an unknown name the host makes its default
    if not name.startswith(sampler_name) or (rest and rest not in sd_schedulers.schedulers_map):
        return None
    return {"sampler_name": sampler_name, "scheduler": found}


def schedulers(sampler_name: str) -> list[str]:
    """The schedule types that go with a sampler, by the names that ``sampler`` takes."""
    if importlib.util.find_spec("modules.sd_schedulers") is None:
        prefix = f"{sampler_name} "
        named = [known.name.removeprefix(prefix) for known in sd_samplers.all_samplers if known.name.startswith(prefix)]
        return ["Automatic", *named, *map(str.lower, named)]
    from modules import sd_schedulers

    return list(sd_schedulers.schedulers_map)


def scheduler_labels() -> list[str]:
    """The schedule types as people read them; none in Forge Classic."""
    if importlib.util.find_spec("modules.sd_schedulers") is None:
        return []
    from modules import sd_schedulers

    return [known.label for known in sd_schedulers.schedulers]


def sampling_function_home() -> Any:
    """The module in which the Forge family looks up the function that applies the CFG scale."""
    if hasattr(sd_samplers_cfg_denoiser, "sampling_function"):
        return sd_samplers_cfg_denoiser
    from modules_forge import forge_sampler  # Forge Classic

    return forge_sampler


@contextmanager
def masking_nothing() -> Iterator[None]:
    """While this lasts, a host's img2img prepares a request that masks nothing as one that masks all, to no effect:
    Forge Classic divides by the height of what is masked. The others know themselves that it is nothing."""
    if hasattr(masking, "get_crop_region_v2"):
        yield
        return
    original = masking.get_crop_region

    def get_crop_region(mask: Any, pad: int = 0) -> Any:
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        return original(mask, pad) if image.getbbox() else (0, 0, *image.size)

    with hooks.replaced(masking, get_crop_region=get_crop_region):
        yield
