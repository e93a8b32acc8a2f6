"""Rendering a plan as far as the finished latent, with everything that happened on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.engine import make_ready, render
from multipass.hosts.standalone.job import Job, prepare
from multipass.hosts.standalone.layout import lay_out_plan
from multipass.hosts.standalone.memory import Checkpoints
from multipass.manifest import PassRecord
from multipass.plan import decode
from multipass.schedule import Segment

STEPS = 6


def plan(*passes: dict[str, Any], unit: str = "steps", **request: Any) -> dict[str, Any]:
    """A plan of few steps and few pixels."""
    small = {"prompt": "a fox", "steps": STEPS, "width": 64, "height": 64, "sampler_name": "Euler", "cfg_scale": 4}
    return {"version": 1, "switch_unit": unit, "passes": list(passes), "request": small | request}


def job(raw: dict[str, Any], checkpoints: Path) -> Job:
    return prepare(lay_out_plan(decode(raw)), CheckpointFolder(checkpoints))


@dataclass
class Drawn:
    """A picture and its making."""

    latents: list[Tensor] = field(default_factory=list)
    passes: list[tuple[int, int]] = field(default_factory=list)
    records: list[PassRecord] = field(default_factory=list)
    kept: list[Image.Image] = field(default_factory=list)
    masks: list[Image.Image] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    image: Image.Image | None = None

    def pass_begins(self, part: Segment, subject: str = "") -> None:
        self.passes.append((part.pass_index, len(self.latents)))

    def doing(self, what: str) -> None:
        self.done.append(what)

    def step_done(self, index: int, latent: Tensor) -> None:
        self.latents.append(latent.clone())

    def say(self, text: str) -> None:
        self.done.append(text)

    def keep(self, part: Segment, image: Image.Image, *, is_mask: bool = False) -> str:
        (self.masks if is_mask else self.kept).append(image)
        return f"{'mask' if is_mask else 'pass'} {part.pass_index}"

    @property
    def pixels(self) -> np.ndarray:
        assert self.image is not None
        return np.asarray(self.image)

    def equals(self, other: Drawn) -> bool:
        """Bit for bit, in every latent and the picture."""
        return (
            len(self.latents) == len(other.latents)
            and all(map(torch.equal, self.latents, other.latents))
            and bool((self.pixels == other.pixels).all())
        )


def draw(raw: dict[str, Any], checkpoints: Path, store: Checkpoints, seed: int = 1, *, keep: bool = False) -> Drawn:
    made = job(raw, checkpoints)
    passes = {part.pass_index: make_ready(made, part, store) for part in made.parts}
    drawn = Drawn()
    try:
        drawn.image = render(
            made, passes, store, seed, drawn, record=drawn.records.append, keep=drawn.keep if keep else None
        )
    finally:
        store.expect_nothing()
    return drawn
