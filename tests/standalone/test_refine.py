"""Refine passes: what they begin with, what they run, and what is kept of every pass."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Checkpoint, Component
from multipass.hosts.standalone.schedules import SAMPLERS
from multipass.manifest import Through
from multipass.plan import PlanError
from tests.standalone.helpers import STEPS, draw, job, plan

ALL_SAMPLERS = [sampler.name for sampler in SAMPLERS]
A, B = ({"checkpoint": name} for name in "ab")


def refine(own: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": "refine", "denoising_strength": 0.5, **(own or {}), **more}


def at(where: float, own: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"switch_at": where, **own, **more}


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a VAE decodes and encodes, a UNet is asked, and what is read, by name."""
    counted: Counter[str] = Counter()
    for name in ("decode", "encode_picture"):
        real = getattr(Checkpoint, name)

        def spied(self: Checkpoint, tensor: Any, real: Any = real, name: str = name) -> Any:
            counted[f"{name} {self.file.name}"] += 1
            return real(self, tensor)

        monkeypatch.setattr(Checkpoint, name, spied)
    read = Checkpoint.read

    def spied_read(self: Checkpoint, component: Component, *rest: Any) -> Any:
        counted[f"read {self.file.name} {component.value}"] += 1
        return read(self, component, *rest)

    monkeypatch.setattr(Checkpoint, "read", spied_read)
    return counted


# --- what is sampled --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_a_refine_pass_goes_on_from_what_the_first_ended_with(
    checkpoints: Path, store: Checkpoints, sampler: str
) -> None:
    alone = draw(plan(A, sampler_name=sampler), checkpoints, store)
    refined = draw(plan(A, refine(B, steps=4), sampler_name=sampler), checkpoints, store)
    again = draw(plan(A, refine(B, steps=4), sampler_name=sampler), checkpoints, Checkpoints(store.place))
    first = len(alone.latents)
    assert all(map(torch.equal, alone.latents, refined.latents[:first]))
    assert len(refined.latents) == first + (2 if sampler == "DDIM" else 4)
    assert refined.equals(again)
    assert (refined.pixels != alone.pixels).any()


def test_any_number_of_them_each_with_switches_of_its_own(checkpoints: Path, store: Checkpoints) -> None:
    raw = plan(A, at(0.5, B), refine(B, steps=4), at(0.5, A, name="back"), refine(A, steps=2, denoising_strength=0.2))
    drawn = draw(raw, checkpoints, store)
    told = [(own.name, own.kind, own.first_step, own.end_step, own.checkpoint[0]) for own in drawn.records]
    assert told == [
        ("Pass 1", "first", 0, 3, "a"),
        ("Pass 2", "switch", 3, 6, "b"),
        ("Pass 3", "refine", 0, 2, "b"),
        ("back", "switch", 2, 4, "a"),
        ("Pass 5", "refine", 0, 2, "a"),
    ]
    assert [own.through for own in drawn.records] == [None, None, Through.LATENT, None, Through.LATENT]
    assert drawn.records[2].sigma_in > drawn.records[4].sigma_in > 0 == drawn.records[3].sigma_out


def test_c5_the_same_checkpoint_from_any_step_of_a_refine_pass_on_changes_nothing(
    checkpoints: Path, store: Checkpoints
) -> None:
    for sampler in ALL_SAMPLERS:
        once = draw(plan(A, refine(B), sampler_name=sampler), checkpoints, store)
        several = draw(plan(A, refine(B), at(0.3, B), at(0.6, {}), sampler_name=sampler), checkpoints, store)
        assert several.equals(once)


def test_c7_a_switch_at_0_of_a_refine_pass_is_what_refines(checkpoints: Path, store: Checkpoints) -> None:
    switched = draw(plan(A, refine(A, scale=2), at(0, B)), checkpoints, store)
    assert switched.equals(draw(plan(A, refine(B, scale=2)), checkpoints, store))
    assert [own.through for own in switched.records] == [None, Through.LATENT]


@pytest.mark.parametrize("first", [{}, {"sampler_name": "Euler a", "scheduler": "Exponential", "steps": 3}])
def test_what_a_refine_pass_leaves_out_is_the_head_s_before(
    checkpoints: Path, store: Checkpoints, first: dict[str, Any]
) -> None:
    """And not the switch's between them."""
    said = {"prompt": "a cat", "negative_prompt": "blurry", "cfg_scale": 3, "clip_skip": 2, **first}
    between = at(0.5, A, prompt="a dog", cfg_scale=9)
    inherited = draw(plan(A | said, between, refine()), checkpoints, store)
    spelled = draw(
        plan(A | said, between, refine(A | {"steps": 6, "sampler_name": "Euler"} | said)), checkpoints, store
    )
    assert inherited.equals(spelled)
    changed = [{"prompt": "a bus"}, {"negative_prompt": "sharp"}, {"cfg_scale": 8}, {"clip_skip": 1}, {"steps": 5}, B]
    changed += [{"sampler_name": "DPM++ 2M"}, {"scheduler": "SGM Uniform"}, {"denoising_strength": 0.7}, {"scale": 2}]
    for own in changed:
        other = draw(plan(A | said, between, refine(own)), checkpoints, store)
        assert other.image != inherited.image, own
    chain = draw(plan(A | said, refine(B, cfg_scale=2), {"kind": "refine"}), checkpoints, store)
    spelled = draw(plan(A | said, refine(B, cfg_scale=2), refine(B, cfg_scale=2)), checkpoints, store)
    assert chain.equals(spelled)


def test_the_first_pass_may_say_itself_how_it_samples(checkpoints: Path, store: Checkpoints) -> None:
    said = {"steps": 4, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    own = draw(plan(A | said, steps=9, sampler_name="Euler", scheduler="Automatic"), checkpoints, store)
    assert own.equals(draw(plan(A, **said), checkpoints, store))
    run = job(plan(A | said, steps=9, sampler_name="Euler"), checkpoints).plan.request
    assert run is not None
    assert (run.steps, run.sampler_name, run.scheduler) == (4, "DPM++ 2M", "Karras")


# --- how a picture gets from one to the next --------------------------------------------------------------------------

MODES = {
    "Latent": {"mode": "bilinear"},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
}


def decoded(checkpoints: Path, store: Checkpoints, name: str, latent: torch.Tensor) -> np.ndarray:
    checkpoint = store.get(CheckpointFolder(checkpoints).find(name, ""))
    with store.using(checkpoint, Component.VAE):
        return (checkpoint.decode(latent)[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()


@pytest.mark.parametrize("upscaler", [*MODES, None])
def test_a_strength_of_0_enlarges_and_redraws_nothing(
    checkpoints: Path, store: Checkpoints, upscaler: str | None
) -> None:
    own = refine(B, denoising_strength=0, scale=1.5) | ({"upscaler": upscaler} if upscaler else {})
    drawn = draw(plan(A, own), checkpoints, store)
    assert len(drawn.latents) == STEPS
    larger = interpolate(drawn.latents[-1], (12, 12), **MODES[upscaler or "Latent"])  # type: ignore[arg-type]
    assert (drawn.pixels == decoded(checkpoints, store, "b", larger)).all()
    last = drawn.records[-1]
    assert (last.kind, last.first_step, last.end_step, last.unet_evaluations) == ("refine", 0, 0, 0)
    assert (last.sigma_in, last.sigma_out, last.through) == (0, 0, Through.LATENT)


def test_nothing_is_read_of_a_unet_that_nobody_asks(checkpoints: Path, uses: Counter[str]) -> None:
    store = Checkpoints()
    draw(plan(A, refine(B, denoising_strength=0, scale=2)), checkpoints, store)
    assert uses["read a unet"] == uses["decode b"] == uses["read b vae"] == 1
    assert uses["read b unet"] == uses["decode a"] == uses["read a vae"] == 0


@pytest.mark.parametrize(
    ("upscaler", "scale", "resample"),
    [
        ("Lanczos", 2, Image.Resampling.LANCZOS),
        ("None", 2, Image.Resampling.LANCZOS),
        ("Nearest", 2, Image.Resampling.NEAREST),
        ("Nearest", 0.5, Image.Resampling.LANCZOS),
    ],
)
def test_a_pixel_upscaler_enlarges_the_picture(
    *,
    checkpoints: Path,
    store: Checkpoints,
    upscaler: str,
    scale: float,
    resample: Image.Resampling,
    uses: Counter[str],
) -> None:
    own = refine(B, denoising_strength=0, scale=scale, upscaler=upscaler)
    drawn = draw(plan(A, own), checkpoints, store)
    assert uses["decode a"] == uses["encode_picture b"] == uses["decode b"] == 1
    first = Image.fromarray(decoded(checkpoints, store, "a", drawn.latents[-1]))
    side = int(64 * scale)
    larger = np.array(first.resize((side, side), resample), dtype=np.float32) / 255
    b = store.get(CheckpointFolder(checkpoints).find("b", ""))
    with store.using(b, Component.VAE):
        latent = b.encode_picture(torch.from_numpy(larger).permute(2, 0, 1)[None])
    assert (drawn.pixels == decoded(checkpoints, store, "b", latent)).all()
    assert drawn.records[-1].through is Through.PIXELS


def test_at_its_own_size_nothing_is_enlarged_whatever_enlarges(
    checkpoints: Path, store: Checkpoints, uses: Counter[str]
) -> None:
    drawn = draw(plan(A, refine(B)), checkpoints, store)
    for upscaler in ("Lanczos", "Latent (bicubic)"):
        assert draw(plan(A, refine(B, upscaler=upscaler)), checkpoints, store).equals(drawn)
    assert uses["encode_picture b"] == 0


@pytest.mark.parametrize("upscaler", [None, "Latent", "Nearest"])
def test_to_another_latent_space_it_goes_through_pixels(
    checkpoints: Path, store: Checkpoints, upscaler: str | None, uses: Counter[str]
) -> None:
    more = {} if upscaler is None else {"upscaler": upscaler}
    xl = refine({"checkpoint": "xl"}, scale=2, steps=2, **more)
    there = draw(plan(A, xl), checkpoints, store)
    assert [own.through for own in there.records] == [None, Through.PIXELS]
    assert there.pixels.shape == (128, 128, 3)
    assert uses["decode a"] == uses["encode_picture xl"] == uses["decode xl"] == 1
    lanczos = draw(plan(A, xl | {"upscaler": "Lanczos"}), checkpoints, store)
    assert (lanczos.image == there.image) == (upscaler is None)
    back = draw(plan(A, xl, refine(B, steps=2)), checkpoints, store)
    assert [own.through for own in back.records] == [None, Through.PIXELS, Through.PIXELS]
    assert back.pixels.shape == (128, 128, 3)


def test_a_clip_skip_that_sdxl_inherits_is_not_its_mistake(checkpoints: Path) -> None:
    xl = {"checkpoint": "xl"}
    job(plan(A | {"clip_skip": 3}, refine(xl)), checkpoints)
    with pytest.raises(PlanError, match="text encoder has 3 layers, got 4") as refused:
        job(plan(A | {"clip_skip": 4}, refine(xl)), checkpoints)
    assert [problem.path for problem in refused.value.problems] == ["passes[0].clip_skip"]
    with pytest.raises(PlanError, match="SDXL reads the last layer but one") as refused:
        job(plan(xl, refine(xl, clip_skip=3)), checkpoints)
    assert [problem.path for problem in refused.value.problems] == ["passes[1].clip_skip"]


def test_sizes_are_cut_to_what_a_latent_can_have(checkpoints: Path) -> None:
    made = job(plan(A, refine(scale=1.3), at(0.5, B), refine(scale=1.5), width=72), checkpoints)
    assert [(size.width, size.height) for size in made.sizes.values()] == [(72, 64), (88, 80), (88, 80), (128, 120)]


# --- every pass's picture ---------------------------------------------------------------------------------------------

ALL = plan(A, at(0.5, B), refine(A, scale=1.5, upscaler="Lanczos"), at(0.5, B), refine(A, scale=0.5))


def test_keeping_the_pictures_changes_none_and_decodes_each_once(
    checkpoints: Path, store: Checkpoints, uses: Counter[str]
) -> None:
    without = draw(ALL, checkpoints, store)
    assert (uses["decode a"], uses["decode b"]) == (1, 1)  # the last, and what the pixel upscaler takes
    assert [own.picture for own in without.records] == [None] * 5
    uses.clear()
    kept = draw(ALL, checkpoints, store, keep=True)
    assert kept.equals(without)
    assert (uses["decode a"], uses["decode b"], uses["encode_picture a"]) == (3, 2, 1)
    assert [own.picture for own in kept.records] == [f"pass {i}" for i in range(5)]
    assert [picture.size for picture in kept.kept] == [(64, 64), (64, 64), (96, 96), (96, 96), (48, 48)]
    assert kept.kept[-1] == kept.image


def test_a_pass_that_a_switch_ends_is_seen_as_it_foresaw_the_picture(checkpoints: Path, store: Checkpoints) -> None:
    raw = plan(A, at(0.5, B))
    drawn = draw(raw, checkpoints, store, keep=True)
    sigmas = job(raw, checkpoints).stages[0].sampling
    assert sigmas is not None
    before, after = drawn.latents[1:3]
    here, there = sigmas.sigmas[2:4]
    foreseen = before - (after - before) * here / (there - here)  # Euler's step, undone
    difference = np.asarray(drawn.kept[0], dtype=int) - decoded(checkpoints, store, "a", foreseen)
    assert np.abs(difference).max() <= 1
    assert drawn.kept[0] != drawn.image
    assert drawn.kept[1] == drawn.image


def test_with_no_room_for_two_checkpoints_the_pictures_are_the_same(checkpoints: Path, store: Checkpoints) -> None:
    poor = Checkpoints(store.place, lambda _held: 1, lambda _text: None)
    assert draw(ALL, checkpoints, poor, keep=True).equals(draw(ALL, checkpoints, store, keep=True))
    assert poor.cache.ram.held == 0
