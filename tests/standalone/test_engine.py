"""The loop: the same seed is the same picture, and a pass acts on its own steps and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Component
from multipass.hosts.standalone.schedules import SAMPLERS
from tests.standalone.helpers import STEPS, draw, plan

ALL_SAMPLERS = [sampler.name for sampler in SAMPLERS]

A, B, C = ({"checkpoint": name} for name in "abc")


def at(where: float, own: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"switch_at": where, **own, **more}


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_the_same_seed_is_the_same_picture(checkpoints: Path, store: Checkpoints, sampler: str) -> None:
    raw = plan(A, at(0.5, B), sampler_name=sampler)
    first = draw(raw, checkpoints, store)
    assert first.equals(draw(raw, checkpoints, Checkpoints(store.place)))
    assert not first.equals(draw(raw, checkpoints, store, seed=2))


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_c5_the_same_checkpoint_in_every_pass_is_that_checkpoint_alone(
    checkpoints: Path, store: Checkpoints, sampler: str
) -> None:
    several = draw(plan(A, at(0.3, A), at(0.7, {}), sampler_name=sampler), checkpoints, store)
    assert len(several.passes) == 3
    assert several.equals(draw(plan(A, sampler_name=sampler), checkpoints, store))


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
@pytest.mark.parametrize("unit", ["steps", "timestep"])
def test_c7_switch_at_0_is_the_second_alone_and_1_the_first(
    checkpoints: Path, store: Checkpoints, sampler: str, unit: str
) -> None:
    alone = {name: draw(plan({"checkpoint": name}, sampler_name=sampler), checkpoints, store) for name in "ab"}
    assert not alone["a"].equals(alone["b"])
    assert draw(plan(A, at(0, B), unit=unit, sampler_name=sampler), checkpoints, store).equals(alone["b"])
    assert draw(plan(A, at(1, B), unit=unit, sampler_name=sampler), checkpoints, store).equals(alone["a"])


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_c9_a_b_a_c_repeats_and_a_after_b_is_a(checkpoints: Path, store: Checkpoints, sampler: str) -> None:
    raw = plan(A, at(0.2, B), at(0.5, A), at(0.8, C), sampler_name=sampler)
    first = draw(raw, checkpoints, store)
    assert first.equals(draw(raw, checkpoints, store))
    assert draw(plan(A, sampler_name=sampler), checkpoints, store).equals(
        draw(plan(A, sampler_name=sampler), checkpoints, Checkpoints(store.place))
    )


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ({"prompt": "a cat"}, "prompt"),
        ({"prompt": "drawn", "prompt_mode": "append"}, "append"),
        ({"negative_prompt": "blurry"}, "negative"),
        ({"cfg_scale": 9}, "cfg"),
        ({"clip_skip": 2}, "clip skip"),
        (B, "checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_pass_sets_acts_from_its_first_step_and_not_before(
    checkpoints: Path, store: Checkpoints, own: dict[str, Any], place: str
) -> None:
    plain = draw(plan(A), checkpoints, store)
    changed = draw(plan(A, at(3, own, switch_unit="step")), checkpoints, store)
    assert changed.passes == [(0, 0), (1, 3)]
    equal = [torch.equal(*pair) for pair in zip(plain.latents, changed.latents, strict=True)]
    assert equal == [True] * 3 + [False] * (STEPS - 3)


def test_a_pass_s_settings_end_with_it(checkpoints: Path, store: Checkpoints) -> None:
    """The last step, taken from the same latent, does not remember the pass between."""
    weighted = {"cfg_scale": 9, "prompt": "a cat", "clip_skip": 2}
    once = draw(plan(A, at(2, weighted, switch_unit="step"), at(3, {}, switch_unit="step")), checkpoints, store)
    assert [index for index, _ in once.passes] == [0, 1, 2]
    # the third pass inherits from the head, not from the second: one with the head's values spelled out is the same
    spelled = {"cfg_scale": 4, "prompt": "a fox", "clip_skip": 1}
    other = draw(plan(A, at(2, weighted, switch_unit="step"), at(3, spelled, switch_unit="step")), checkpoints, store)
    assert once.equals(other)


def test_each_checkpoint_reads_the_text_with_its_own_encoder(checkpoints: Path, store: Checkpoints) -> None:
    """Context widths differ (32 and 64): encoding with the wrong one would not fit."""
    mixed = draw(plan(A, at(0.5, {"checkpoint": "wide"}), at(0.8, A)), checkpoints, store)
    assert [index for index, _ in mixed.passes] == [0, 1, 2]


def test_the_picture_is_decoded_by_the_last_pass_s_vae(checkpoints: Path, store: Checkpoints) -> None:
    latent = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    both = draw(plan(A, at(0.5, B)), checkpoints, store)
    from multipass.hosts.standalone.checkpoints import CheckpointFolder

    folder = CheckpointFolder(checkpoints)
    a, b = (store.get(folder.find(name, "")) for name in "ab")
    with store.using(a, Component.VAE), store.using(b, Component.VAE):
        assert not torch.equal(a.decode(latent), b.decode(latent))
        seen = (b.decode(both.latents[-1])[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    assert (both.pixels == seen).all()


def test_the_record_of_the_passes(checkpoints: Path, store: Checkpoints) -> None:
    one, two = draw(plan(A, at(0.5, B, name="style")), checkpoints, store).records
    assert (one.name, one.kind, one.first_step, one.end_step, one.unet_evaluations) == ("Pass 1", "first", 0, 3, 3)
    assert (two.name, two.kind, two.first_step, two.end_step, two.unet_evaluations) == ("style", "switch", 3, 6, 3)
    assert one.sigma_in > one.sigma_out == two.sigma_in > two.sigma_out == 0
    assert one.checkpoint == f"a [{one.sha256[:10]}]"
    assert two.checkpoint.startswith("b [")


def test_sdxl_with_both_text_encoders(checkpoints: Path, store: Checkpoints) -> None:
    xl = {"checkpoint": "xl"}
    first = draw(plan(xl, at(0.5, {"prompt": "a cat"})), checkpoints, store)
    assert first.equals(draw(plan(xl, at(0.5, {"prompt": "a cat"})), checkpoints, store))
    assert not first.equals(draw(plan(xl), checkpoints, store))
    wide = draw(plan(xl, width=128), checkpoints, store)
    assert wide.pixels.shape == (64, 128, 3)


def test_velocity_prediction_is_told_by_the_config(checkpoints: Path, store: Checkpoints) -> None:
    """The same weights as a's, read as velocities: another picture, and still a finite one."""
    velocity = draw(plan({"checkpoint": "velocity"}), checkpoints, store)
    assert velocity.latents[-1].isfinite().all()
    assert not velocity.equals(draw(plan(A), checkpoints, store))


def test_texts_of_different_length_and_no_guidance(checkpoints: Path, store: Checkpoints) -> None:
    long = "a very long text, " * 20
    assert draw(plan(A, prompt=long), checkpoints, store).latents[-1].isfinite().all()
    plain = draw(plan(A, cfg_scale=1), checkpoints, store)
    assert plain.equals(draw(plan(A, cfg_scale=1, negative_prompt="anything"), checkpoints, store))
