"""What decides an evaluation of the UNet beside what it is given: its weights, the code that runs, the settings read.

What cannot be told (code of an extension inside the UNet, which may remember or draw what it likes) is an
``UnknownError``. Not seen is what leaves no trace in any of this: an extension that writes into the loaded weights.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from modules import devices, paths, sd_unet, shared
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from multipass.cache.memo import UnknownError, bits_of
from multipass.hosts.webui import compat, models, networks
from multipass.hosts.webui.files import Version

_METHODS = ("forward", "_forward")  # by which a layer, and an attention block inside it, is run
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_OPTIONS = ("upcast_attn", "lora_functional")  # which A1111 reads while it evaluates
_MERGES_TOKENS = "tomesd"
_CASTS = "manual_cast_forward.<locals>.forward_wrapper"  # A1111's, where torch's autocast will not do
# what the Forge family tells every layer of an evaluation, and what of that is not in the latent or the noise level
_TOLD = {"cond_or_uncond"}
_TOLD_AGAIN = {"sigmas", "cond_mark", "cond_indices", "uncond_indices", "uuids"}

_numbers = itertools.count()
_numbered = WeakTensorKeyDictionary()  # tensors of networks, each with a number that no other gets


def seam(denoiser: Any) -> tuple[Any, str]:
    """The object whose method evaluates the UNet, below guidance, and the method's name."""
    wrapper = denoiser.inner_model
    if compat.IS_FORGE_FAMILY:
        return wrapper.inner_model.forge_objects.unet.model, "apply_model"
    return wrapper, "forward"


def of_code(denoiser: Any) -> Hashable:
    """What does not change while a pass is sampled. Raises UnknownError."""
    model = shared.sd_model
    if compat.IS_FORGE_FAMILY:
        unet, patcher = seam(denoiser)[0], model.forge_objects.unet
        _refuse_patches(model, patcher)
        noise = unet.predictor if compat.LOADS_BY_PARAMETERS else unet.model_sampling
        return _plain(unet), _runs(unet), _plain(noise), _networks(patcher)
    if sd_unet.current_unet is not None:
        raise UnknownError(f"an SD Unet is in the checkpoint's place ({sd_unet.current_unet_option.label})")
    from modules import sd_hijack_unet

    if "cat" in vars(sd_hijack_unet.th):
        raise UnknownError("an extension has changed how the UNet joins its features (FreeU does)")
    if "apply_model" in vars(model):
        raise UnknownError("an extension has replaced the model's apply_model")
    wrapper = denoiser.inner_model
    kind = type(model), model.parameterization, model.model.conditioning_key
    return kind, _runs(model.model), _plain(wrapper), _content(model.alphas_cumprod)


def of_settings() -> Hashable:
    """What may change with every evaluation. Raises UnknownError."""
    model = shared.sd_model
    common = models.in_place(), networks.loaded(), torch.is_autocast_enabled(), torch.is_autocast_cpu_enabled()
    if compat.IS_FORGE_FAMILY:
        patcher = model.forge_objects.unet
        _refuse_changes(patcher.model.diffusion_model)
        return *common, model.current_lora_hash, _strengths(patcher), getattr(model, "tiling_enabled", False)
    unet = model.model.diffusion_model
    _refuse_changes(unet)
    merging = getattr(unet, "_tome_info", {}).get("args", {}) if getattr(model, "applied_token_merged_ratio", 0) else {}
    return (
        *common,
        tuple(_hypernetworks()),
        tuple((name, str(value)) for name, value in merging.items() if name != "generator"),
        tuple(getattr(shared.opts, name, None) for name in _OPTIONS),
        (devices.dtype_unet, devices.dtype_inference, devices.unet_needs_upcast),
        compat.model_hijack().circular_enabled,
    )


def of_given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """What the method of ``seam`` is called with, fit to be compared. Raises UnknownError."""
    if not compat.IS_FORGE_FAMILY:
        return args, kwargs
    if kwargs.get("control") is not None:
        raise UnknownError("ControlNet acts on the UNet")
    options: Mapping[str, Any] = kwargs.get("transformer_options", {})
    patches = options.keys() - _TOLD - _TOLD_AGAIN
    if patches:
        raise UnknownError(f"an extension, or token merging, has patched the UNet ({', '.join(sorted(patches))})")
    told = {name: options[name] for name in _TOLD & options.keys()}
    rest = {name: value for name, value in kwargs.items() if name not in ("transformer_options", "control_model")}
    return args, rest, told


# --- inside -----------------------------------------------------------------------------------------------------------


def _hypernetworks() -> Iterator[tuple[Any, ...]]:
    for network in shared.loaded_hypernetworks:
        multipliers = {layer.multiplier for layers in network.layers.values() for layer in layers}
        yield network.name, Version.of(network.filename or ""), frozenset(multipliers)


def _refuse_patches(model: Any, patcher: Any) -> None:
    """The Forge family's, but for those that LoRAs are."""
    if patcher.object_patches:
        raise UnknownError(f"an extension has replaced parts of the model ({', '.join(patcher.object_patches)})")
    if _patches(patcher) != _patches(model.forge_objects_after_applying_lora.unet):
        raise UnknownError("an extension has patched the UNet's weights")


def _patches(patcher: Any) -> int:
    found = patcher.lora_patches if compat.LOADS_BY_PARAMETERS else patcher.patches
    return sum(map(len, found.values()))


def _by_layer(patcher: Any) -> Iterator[tuple[str, list[Any]]]:
    """What networks do to each layer, as the Forge family notes it: a strength, tensors, and the layer's own."""
    if compat.LOADS_BY_PARAMETERS:
        for network in patcher.lora_patches.values():
            yield from network.items()
    else:
        yield from patcher.patches.items()


def _strengths(patcher: Any) -> Hashable:
    """Layer by layer, for extensions set them so (LoRA Block Weight), within a sampling too; and what Forge notes of
    what is merged now."""
    merged = patcher.lora_loader.loaded_hash if compat.LOADS_BY_PARAMETERS else None
    return merged, tuple((layer, *((does[0], does[2]) for does in doing)) for layer, doing in _by_layer(patcher))


def _networks(patcher: Any) -> Hashable:
    """Whose tensors. A network's file does not tell: the Forge family keeps what it has read when that is replaced."""
    tensors = (tensor for _, doing in _by_layer(patcher) for does in doing for tensor in _tensors(does[1]))
    return tuple(_numbered.setdefault(tensor, next(_numbers)) for tensor in tensors)


def _tensors(patch: Any) -> Iterator[Tensor]:
    parts = getattr(patch, "weights", patch)  # reForge has objects for them
    if isinstance(parts, Tensor):
        yield parts
    elif isinstance(parts, tuple | list):
        for part in parts:
            yield from _tensors(part)


def _runs(root: nn.Module) -> Hashable:
    """The functions by which the module's layers are run, and how its convolutions see the picture's edges."""
    kinds: dict[type, Hashable] = {}  # a layer's class, and how that runs it
    edges: list[Any] = []
    left = [root]
    while left:  # torch's own ``modules()`` takes ten times as long
        module = left.pop()
        left += [part for part in vars(module)["_modules"].values() if part is not None]
        kind, own = type(module), vars(module)
        if kind not in kinds:
            kinds[kind] = _functions(kind)
        _refuse_changes(module)
        if "padding_mode" in own:
            edges.append(own["padding_mode"])
    return frozenset(kinds.values()), tuple(edges)


def _refuse_changes(module: nn.Module) -> None:
    """Where somebody has replaced a method of that one layer, or watches it."""
    kind, own = type(module), vars(module)
    for name in _METHODS:
        replaced = own.get(name)
        # the host's own, put there again by who had replaced it, is none
        if replaced is not None and getattr(replaced, "__func__", replaced) is not getattr(kind, name, None):
            raise UnknownError(f"an extension has changed the UNet ({kind.__name__}.{name}, {_home(replaced)})")
    for hooks in _HOOKS:
        for hook in own[hooks].values():
            if not _is_the_hosts(hook):
                raise UnknownError(f"an extension watches or changes the UNet ({kind.__name__}, {_home(hook)})")


def _functions(kind: Any) -> Hashable:
    functions: list[Any] = [getattr(kind, name, None) for name in _METHODS]
    casts = None
    if getattr(functions[0], "__qualname__", None) == _CASTS:  # made anew around each evaluation
        casts = inspect.getclosurevars(functions[0]).nonlocals["target_dtype"]
        functions[0] = kind.org_forward
    for function in functions:
        if _is_of_an_extension(function):
            raise UnknownError(f"an extension has changed the UNet ({kind.__name__}, {_home(function)})")
    if kind.__module__.startswith(_MERGES_TOKENS):  # which makes its classes anew each time
        return vars(kind)["_parent"], casts, *map(_code, functions)
    return kind, casts, *functions


def _code(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    runs = type(function).__call__ if callable(function) and not hasattr(function, "__code__") else function
    return getattr(runs, "__code__", None)


def _is_the_hosts(hook: Any) -> bool:
    """Whether it is the host's own, as those that move layers to the GPU, or that of its token merging."""
    code = _code(hook)
    home = Path(code.co_filename).absolute().parent if code is not None else None
    return home is not None and (home == Path(shared.__file__).absolute().parent or home.name == _MERGES_TOKENS)


def _is_of_an_extension(function: Any) -> bool:
    code = _code(function)
    return code is not None and _is_in_an_extension(code.co_filename)


@functools.cache
def _is_in_an_extension(file: str) -> bool:
    return Path(paths.extensions_dir).absolute() in Path(file).absolute().parents


def _home(function: Any) -> str:
    """Where a function is from, for people."""
    code = _code(function)
    return Path(code.co_filename).name if code is not None else type(function).__name__


def _plain(module: nn.Module) -> Hashable:
    """What a module is, with its own numbers and words, and its tables."""
    own = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    own |= {name: str(value) for name, value in vars(module).items() if isinstance(value, torch.dtype)}
    tables = {name: _content(table) for name, table in module.named_buffers(recurse=False)}
    # by name: the Forge family makes some classes with each model
    names = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__)
    return names, frozenset(own.items()), frozenset(tables.items())


def _content(table: Tensor) -> Hashable:
    return str(table.dtype), bits_of(table).cpu().numpy().tobytes()
