"""Where the hosts differ: AUTOMATIC1111 and the Forge family. Everything else in this package is the same for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from modules import devices, sd_models, sd_samplers_kdiffusion, sd_samplers_timesteps, shared

from multipass.hosts.webui import hooks

IS_FORGE = hasattr(sd_models, "forge_model_reload")


def loaded() -> Any:
    """The ``CheckpointInfo`` of the model in place, or ``None`` before the first one is loaded."""
    return getattr(shared.sd_model, "sd_checkpoint_info", None)


def have_a_model() -> None:
    """Forge loads its first model when the first picture asks for it, not when it starts."""
    if IS_FORGE and loaded() is None:
        sd_models.forge_model_reload()


def chosen() -> Any:
    """What the host would load for the next picture, beside what its options say."""
    return sd_models.model_data.forge_loading_parameters if IS_FORGE else None


def choose(chosen_before: Any) -> None:
    """Put ``chosen()`` back: overridden options change it in Forge, and their being put back does not always.

    What the options name is taken from them: a person may have chosen another while the picture was made.
    """
    if IS_FORGE:
        named = {
            "checkpoint_info": sd_models.select_checkpoint(),
            "additional_modules": shared.opts.forge_additional_modules,
        }
        sd_models.model_data.forge_loading_parameters = {**chosen_before, **named}


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


def _load(info: Any, *, again: bool = False) -> None:
    """``again``: also where the host believes it is loaded. A load that fails on its way leaves A1111 with the old
    model's attention un-hijacked, and Forge with no model under the old one's name."""
    with sd_models.SkipWritingToConfig():
        if not IS_FORGE:
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
    if not IS_FORGE:
        yield
        return
    from backend.sampling.sampling_function import sampling_cleanup, sampling_prepare

    sampling_cleanup(shared.sd_model.forge_objects.unet)
    yield
    sampling_prepare(shared.sd_model.forge_objects.unet, x=x)


@contextmanager
def sampling_nothing() -> Iterator[None]:
    """While a sampler is only run to see its steps: other extensions are not told of it, and Forge, which would move
    the model into place for it, does not."""

    def nothing(*_: Any, **__: Any) -> None: ...

    names = ["extra_noise_callback", *(["sampling_prepare", "sampling_cleanup"] if IS_FORGE else [])]
    with ExitStack() as stack:
        for module in (sd_samplers_kdiffusion, sd_samplers_timesteps):
            stack.enter_context(hooks.replaced(module, **dict.fromkeys(names, nothing)))
        yield


def prepare_loaded(p: Any) -> None:
    """What the request asked of the model and a fresh load lost: tiling, token merging, the noise schedule option."""
    if not IS_FORGE:
        from modules.sd_hijack import model_hijack

        model_hijack.apply_circular(p.tiling)
        sd_models.apply_token_merging(p.sd_model, p.get_token_merging_ratio())
    sd_models.apply_alpha_schedule_override(p.sd_model, p)


def keep_for_hires(p: Any, info: Any) -> None:
    """Let the hires pass run on ``info`` where the request names no checkpoint; Forge stays on the last by itself."""
    if not IS_FORGE and getattr(p, "enable_hr", False) and p.hr_checkpoint_info is None:
        p.hr_checkpoint_info = info
