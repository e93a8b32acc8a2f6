"""What enlarges a picture between two trajectories, by its name in the webui. Needs nothing installed."""

from __future__ import annotations

import msgspec

from multipass.plan import PlanError, Problem


class Upscaler(msgspec.Struct, frozen=True):
    """One that the command has.

    Attributes:
        latent_mode: of torch's ``interpolate``, which enlarges the latent; ``None``: it enlarges pixels.
        antialias: goes with it.
        nearest: whether pixels are repeated; else they are resampled with Lanczos's window.
    """

    name: str
    latent_mode: str | None = None
    antialias: bool = False
    nearest: bool = False


# modules/shared.py, latent_upscale_modes; modules/upscaler.py
UPSCALERS = (
    Upscaler("Latent", "bilinear"),
    Upscaler("Latent (antialiased)", "bilinear", antialias=True),
    Upscaler("Latent (bicubic)", "bicubic"),
    Upscaler("Latent (bicubic antialiased)", "bicubic", antialias=True),
    Upscaler("Latent (nearest)", "nearest"),
    Upscaler("Latent (nearest-exact)", "nearest-exact"),
    Upscaler("None"),  # the webui resizes with Lanczos what no upscaler has enlarged
    Upscaler("Lanczos"),
    Upscaler("Nearest", nearest=True),
)
_BY_NAME = {upscaler.name.casefold(): upscaler for upscaler in UPSCALERS}
LATENT, LANCZOS = _BY_NAME["latent"], _BY_NAME["lanczos"]


def find(name: str, place: str) -> Upscaler:
    """The upscaler of that name, in any case.

    Raises:
        PlanError: with ``place``, for one that the command does not have.
    """
    found = _BY_NAME.get(name.strip().casefold())
    if found is None:
        known = ", ".join(upscaler.name for upscaler in UPSCALERS)
        raise PlanError(Problem(place, f"the command has no upscaler {name!r}, it has {known}"))
    return found
