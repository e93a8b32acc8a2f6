"""Patches of the UNet by other extensions act in every pass (C14): the probe's, and the real ControlNet's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webui import controls, test_subject
from tests.webui.asking import LOOPBACK, REQUEST, a_then_b, alone, hires, plan, refined, runs
from tests.webui.conftest import PROBE, settle
from tests.webui.host import ROOT, Install, Webui, running

PATCH = {"kind": "patch"}


def test_c14_a_patch_of_the_unet_acts_in_every_pass(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("a patch goes with the model that a switch takes away, as with this host's Refiner")
    three = plan({}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "noise1", "switch_at": 0.7})
    patched = webui.generate_with(PATCH, three, **REQUEST)
    assert runs(patched) == [("soft", 3), ("ink", 4), ("noise1", 3)]
    assert patched.patched == patched.evaluations
    assert not patched.same_picture(webui.generate_unchanged(plan=three, **REQUEST))


def test_c14_a_patched_plan_is_the_patched_refiner(webui: Webui) -> None:
    ours = webui.generate_with(PATCH, a_then_b(0.5), **REQUEST)
    refiner = webui.generate_with(PATCH, None, **refined(webui, 0.5), **REQUEST)
    assert ours.same_picture(refiner)
    assert ours.patched == refiner.patched
    assert ours.patched == ours.evaluations[: 5 if webui.install.is_forge_family else 10]
    assert not ours.same_picture(webui.generate(plan=a_then_b(0.5), **REQUEST))


# --- ControlNet itself ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controlled(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """With the ControlNet extension beside ours, by the names that a git clone gives them: it comes first."""
    if install.is_forge_family:
        pytest.skip("this host has a ControlNet of its own, which is not tried here")
    extension = Path(os.environ.get("CONTROLNET_DIR", "~/sd-webui-controlnet")).expanduser().resolve()
    if not (extension / "scripts/controlnet.py").is_file():
        pytest.skip("no ControlNet: set CONTROLNET_DIR to a clone of Mikubill/sd-webui-controlnet")

    folder = tmp_path_factory.mktemp("controlnet")
    config = controls.make(folder / "checkpoints")
    extensions = {"sd-webui-controlnet": extension, "sd-webui-multipass": ROOT, "probe": PROBE}
    models = ("--controlnet-dir", str(folder / "control"))
    with running(install, folder / "data", folder / "checkpoints", config, extensions, *models) as host:
        settle(host)
        yield host


@pytest.fixture
def control(controlled: Webui, picture: str) -> Any:
    """The part of a request that turns ControlNet on."""

    def ask(start: float = 0, end: float = 1, **more: Any) -> dict[str, Any]:
        unit = {"model": "adapter", "image": picture, "guidance_start": start, "guidance_end": end, **more}
        return {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True, "save_detected_map": False, **unit}]}}}

    return ask


WHOLE, FIRST_HALF, SECOND_HALF = (0, 1), (0, 0.5), (0.5, 1)


def test_c14_controlnet_acts_in_the_passes_of_its_guidance(controlled: Webui, control: Any) -> None:
    plain = controlled.generate(**REQUEST)
    without = controlled.generate(plan=a_then_b(0.5), **REQUEST)
    pictures = {without.latents}
    for guidance in (WHOLE, FIRST_HALF, SECOND_HALF):
        ours = controlled.generate_unchanged(plan=a_then_b(0.5), **REQUEST, **control(*guidance))
        assert runs(ours) == [("soft", 5), ("ink", 5)]
        assert ours.same_picture(controlled.generate(**refined(controlled, 0.5), **REQUEST, **control(*guidance)))
        pictures.add(ours.latents)
    assert len(pictures) == 4
    assert controlled.generate(plan=a_then_b(0.5), **REQUEST).same_picture(without)
    assert controlled.generate(**REQUEST).same_picture(plain)


def test_c14_controlnet_with_hires_fix(controlled: Webui, control: Any) -> None:
    request = {**REQUEST, **hires(controlled), "hr_checkpoint_name": "ink", **control()}
    ours = controlled.generate_unchanged(plan=a_then_b(0.5), **request)
    refiner = controlled.generate(**refined(controlled, 0.5, hires_fix_refiner_pass="first pass"), **request)
    assert ours.same_picture(refiner)


def test_c14_controlnet_and_a_network_of_the_second_pass(controlled: Webui, control: Any) -> None:
    text = {"prompt": "a rocket <lora:one:0.8>"}
    whole = alone(controlled, "ink", **text, **control())
    assert controlled.generate_unchanged(plan=a_then_b(0, **text), **REQUEST, **control()).same_picture(whole)
    both = controlled.generate_unchanged(plan=a_then_b(0.5, **text), **REQUEST, **control())
    assert not both.same_picture(controlled.generate(plan=a_then_b(0.5, **text), **REQUEST))
    assert not both.same_picture(controlled.generate(plan=a_then_b(0.5, prompt="a rocket"), **REQUEST, **control()))
    assert both.same_picture(controlled.generate(plan=a_then_b(0.5, **text), **REQUEST, **control()))


REFERENCE = {"module": "reference_only", "model": "None"}
MODES = ("Balanced", "My prompt is more important", "ControlNet is more important")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit", [{}, REFERENCE], ids=["adapter", "reference"])
def test_c5_the_same_checkpoint_in_every_pass_under_controlnet(
    controlled: Webui, control: Any, mode: str, unit: dict[str, Any]
) -> None:
    """Not so the Refiner: ControlNet takes its negative text for a positive one."""
    asked = {**REQUEST, **control(control_mode=mode, **unit)}
    ours = controlled.generate_unchanged(plan=plan({}, {"switch_at": 0.5}), n_iter=2, **asked)
    assert ours.latents == controlled.generate(n_iter=2, **asked).latents


def test_c12_each_picture_under_controlnet_is_its_seed_alone(controlled: Webui, control: Any) -> None:
    asked = control(control_mode=MODES[2])
    three = controlled.generate_unchanged(plan=a_then_b(0.5), n_iter=3, **REQUEST, **asked)
    singles = [controlled.generate(plan=a_then_b(0.5), **{**REQUEST, "seed": 7 + i}, **asked) for i in range(3)]
    assert three.latents == tuple(one.latents[0] for one in singles)
    pair = controlled.generate_unchanged(plan=a_then_b(0.5), batch_size=2, **REQUEST, **control())
    refiner = controlled.generate(**refined(controlled, 0.5), batch_size=2, **REQUEST, **control())
    assert pair.same_picture(refiner)
    assert len(set(pair.pixels)) > 1


def test_c12_also_where_the_module_changes_with_the_checkpoint(controlled: Webui, control: Any) -> None:
    """Then ControlNet acts until the switch, as with the Refiner, and on the next picture again."""
    to_other = plan({}, {"checkpoint": "other", "switch_at": 0.5})
    refiner = {**refined(controlled, 0.5), "refiner_checkpoint": "other"}
    ours = controlled.generate_unchanged(plan=to_other, n_iter=2, **REQUEST, **control())
    assert ours.modules > 1
    assert ours.latents == controlled.generate(**refiner, n_iter=2, **REQUEST, **control()).latents
    assert ours.latents != controlled.generate(plan=to_other, n_iter=2, **REQUEST).latents


def test_c15_a_request_under_controlnet_that_is_rendered_again(controlled: Webui, control: Any, picture: str) -> None:
    twice = controlled.script("Loopback", LOOPBACK)
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.9, **twice}
    again = controlled.generate_unchanged("img2img", plan=a_then_b(0.5), **request, **control())
    assert [name for name, _ in runs(again)] == ["soft", "ink"] * 2


@pytest.mark.parametrize("kind", ["raise", "interrupt"])
def test_c15_whatever_stops_a_picture_under_controlnet(controlled: Webui, control: Any, kind: str) -> None:
    plain, before = controlled.generate(**REQUEST), controlled.circumstances()
    controlled.arm(kind=kind, at=7)
    controlled.try_generate(plan=a_then_b(0.5), **REQUEST, **control())
    assert controlled.state()["evaluations"] == ["soft"] * 5 + ["ink"] * 2
    assert controlled.circumstances() == before
    assert controlled.generate(**REQUEST).same_picture(plain)


@pytest.mark.parametrize("unit", [{}, REFERENCE], ids=["adapter", "reference"])
def test_a_subject_is_repainted_without_controlnet(controlled: Webui, control: Any, unit: dict[str, Any]) -> None:
    """It is the scene's: what follows on the scene's picture is as without it."""
    asked = {**REQUEST, "seed": 0}
    scene = controlled.generate(**asked, **control(**unit))
    assert scene.pixels != controlled.generate(**asked).pixels
    for checkpoint in ("soft", "ink"):
        own = test_subject.subject(checkpoint=checkpoint)
        ours = controlled.generate_unchanged(plan=plan({}, own), n_iter=2, **asked, **control(**unit))
        on = {"override_settings": {"sd_model_checkpoint": checkpoint}}
        host = test_subject.inpainted(controlled, test_subject.picture_of(scene), **on)
        assert test_subject.picture_of(ours) == test_subject.picture_of(host)
