"""What the host renders by where nobody names another: a checkpoint, a VAE, a clip skip; they are in its options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from modules import shared

from multipass.hosts.webui import checkpoints, compat, hooks
from multipass.hosts.webui.conditioning import CLIP_SKIP

_CHECKPOINT, _VAE = "sd_model_checkpoint", "sd_vae"
_VAE_FIRST = "sd_vae_overrides_per_model_preferences"


class Choice(NamedTuple):
    """A ``CheckpointInfo``, a VAE as the host's setting names it (``None``: as that is set), and a clip skip.

    Attributes:
        vae_first: whether a VAE that a request names goes before what its checkpoint says, or has beside it.
    """

    checkpoint: Any
    vae: str | None
    clip_skip: int
    vae_first: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The host's settings that say so."""
        found = {_CHECKPOINT: self.checkpoint.title, CLIP_SKIP: self.clip_skip}
        if self.vae is not None:
            found[_VAE] = self.vae
        if self.vae is not None or self.vae_first:
            found[_VAE_FIRST] = True
        return found


@contextmanager
def by_default(p: Any, choice: Choice) -> Iterator[None]:
    """While this lasts, a request that somebody begins, or renders by a copy of ``p``, is rendered by this choice where
    it names no other. Nothing is loaded for that. What a person chooses meanwhile stays."""
    ours, data = choice.options, shared.opts.data
    before = {name: data.get(name, hooks.ABSENT) for name in ours}
    data.update(ours)
    try:
        with (
            compat.loading_by_default(choice.checkpoint),
            hooks.replaced(p, override_settings=hooks.WithOurs(p.override_settings, ours)),
        ):
            yield
    finally:
        hooks.put_back(data, {name: value for name, value in before.items() if _is(name, data.get(name), ours[name])})


def _is(option: str, value: object, ours: object) -> bool:
    return checkpoints.same(value, ours) if option == _CHECKPOINT else value == ours
