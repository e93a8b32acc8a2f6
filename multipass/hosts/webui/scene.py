"""What the request itself asks of the picture that subjects are repainted on, and of nothing else: its own inpainting,
ControlNet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from modules import processing, scripts
from PIL import Image
from torch import Tensor

from multipass.hosts.webui import hooks, pixels, refining
from multipass.hosts.webui.heads import Size

_SOFT_INPAINTING, _CONTROLNET = "soft inpainting", "controlnet"
_OF_THE_MASK = ("mask", "nmask", "overlay_images", "paste_to")


def finished(p: Any, latent: Tensor, decoded: Tensor, size: Size) -> list[Image.Image]:
    """The scene's pictures, laid into what the request does not mask as the host does it with finished ones.

    Args:
        latent: the scene's. Soft Inpainting compares it with what it was made of, if a refine pass has not enlarged it.
        decoded: what the VAE made of it.
        size: of the pictures that were decoded.
    """
    with hooks.replaced(p, **refining.overlays(p, size)):
        given = getattr(p, "init_latent", None)
        softens = given is not None and given.shape == latent.shape
        soft = _with(p.scripts, lambda title: softens and title == _SOFT_INPAINTING)
        soft.post_sample(p, scripts.PostSampleArgs(latent))
        found: list[Image.Image] = []
        for place, image in enumerate(pixels.images_of(decoded)):
            overlay = p.overlay_images[place] if p.overlay_images else None
            told = scripts.PostProcessMaskOverlayArgs(place, getattr(p, "mask_for_overlay", None), overlay)
            soft.postprocess_maskoverlay(p, told)
            corrected = image
            if p.color_corrections is not None and place < len(p.color_corrections):
                corrected = processing.apply_color_correction(p.color_corrections[place], image)
            found.append(processing.apply_overlay(corrected, p.paste_to, told.overlay_image)[0])
    return found


@contextmanager
def inpainting_withdrawn(p: Any) -> Iterator[None]:
    """While this lasts, the request masks nothing: what comes now may be outside of it."""
    without = {name: None for name in _OF_THE_MASK if getattr(p, name, None) is not None}
    runner = _with(p.scripts, lambda title: title != _SOFT_INPAINTING)
    corrections = p.color_corrections
    if corrections is not None:
        p.color_corrections = []
    with hooks.replaced(p, scripts_value=runner, **without):
        yield
    if p.color_corrections is not None:  # the host drops them when all is rendered
        p.color_corrections = corrections


@contextmanager
def controls_withdrawn(p: Any) -> Iterator[None]:
    """While this lasts, ControlNet does not act: Forge's patches the UNet when a sampling begins, and the extension has
    it patched, and asks for its units with each evaluation."""
    with ExitStack() as stack:
        for script in p.scripts.alwayson_scripts:
            network = getattr(script, "latest_network", None) if _title(script) == _CONTROLNET else None
            if network is not None:
                reading = {name: type(getattr(network, name)).Read for name in _MACHINES}
                stack.enter_context(hooks.replaced(network, control_params=[], **reading))
        runner = _with(p.scripts, lambda title: title != _CONTROLNET)
        stack.enter_context(hooks.replaced(p, scripts_value=runner))
        yield


_MACHINES = ("attention_auto_machine", "gn_auto_machine")  # in which its attention layers read, if there is something


def _with(runner: Any, wanted: Callable[[str], bool]) -> Any:
    """The host's runner of scripts, with some of these that are always on."""
    found = copy.copy(runner)
    found.alwayson_scripts = [script for script in runner.alwayson_scripts if wanted(_title(script))]
    found.callback_map = {}  # which A1111 keeps by the number of scripts
    return found


def _title(script: Any) -> str:
    return script.title().lower()
