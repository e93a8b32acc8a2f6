"""Checkpoints that predict differently, or belong to another family, in one trajectory (C11)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.webui import checkpoints, families
from tests.webui.asking import (
    FEW,
    REQUEST,
    alone,
    asking_for,
    clear_cache,
    kept,
    plan,
    refined,
    runs,
    settings,
)
from tests.webui.conftest import EXTENSIONS, settle
from tests.webui.host import Install, Webui, running
from tests.webui.samplers import Sampler

SAMPLERS = [sampler for sampler in FEW if str(sampler) != "Euler a"]
SCHEDULES = ["Default", "Zero Terminal SNR"]
PAIRS = [
    ("soft", "velocity"),
    ("velocity", "soft"),
    ("two", "two_v"),
    ("two_v", "two"),
    ("soft", "two_v"),
    ("xl", "xl_other"),
    ("xl", "xl_v"),
    ("xl_v", "xl"),
    ("xl", "xl_refiner"),
]


@pytest.fixture(scope="module")
def webui(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """One with checkpoints of all families."""
    folder = tmp_path_factory.mktemp("families") / "checkpoints"
    config = checkpoints.make(folder)
    families.make(folder)
    if install.is_forge:
        checkpoints.forge_configs(install.folder, config)
    data = tmp_path_factory.mktemp("families") / "data"
    with running(install, data, folder, config, EXTENSIONS) as host:
        settle(host)
        yield host


def has(webui: Webui, *names: str) -> None:
    """Forge recognises families by their true sizes."""
    if webui.install.is_forge_family and not {*names} <= {"soft", "velocity", "noise1"}:
        pytest.skip("this host knows no small models of this family")


def two(first: str, second: str, at: float = 0.5, unit: str = "steps") -> dict[str, Any]:
    return plan({"checkpoint": first}, {"checkpoint": second, "switch_at": at}, switch_unit=unit)


def by_the_refiner(webui: Webui, first: str, second: str, unit: str = "steps", **settings: Any) -> dict[str, Any]:
    asked = refined(webui, 0.5, unit, sd_model_checkpoint=first, **settings)
    return asked | {"refiner_checkpoint": second}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("pair", PAIRS, ids=" then ".join)
def test_c11_each_pass_predicts_as_its_checkpoint_does(
    webui: Webui, pair: tuple[str, str], sampler: Sampler, schedule: str
) -> None:
    has(webui, *pair)
    request = asking_for(webui, sampler)
    noise = {"sd_noise_schedule": schedule}
    ours = webui.generate_unchanged(plan=two(*pair), override_settings=noise, **request)
    if (
        webui.install.host == "reforge" and schedule != "Default"
    ):  # its Refiner leaves the first model rescaled for good
        assert webui.generate(plan=two(*pair), override_settings=noise, **request).same_picture(ours)
        return
    refiner = webui.generate(**by_the_refiner(webui, *pair, **noise), **request)
    half = 5
    assert runs(ours) == [(pair[0], half), (pair[1], len(ours.evaluations) - half)]
    assert ours.evaluations == refiner.evaluations
    assert ours.same_picture(refiner)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_c11_by_the_timestep_of_the_first_checkpoints_schedule(webui: Webui, sampler: Sampler, schedule: str) -> None:
    request = asking_for(webui, sampler)
    noise = {"sd_noise_schedule": schedule}
    ours = webui.generate(plan=two("soft", "velocity", unit="timestep"), override_settings=noise, **request)
    refiner = webui.generate(**by_the_refiner(webui, "soft", "velocity", "timestep", **noise), **request)
    assert ours.evaluations == refiner.evaluations
    assert ours.same_picture(refiner)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_c11_the_same_weights_read_as_noise_and_as_velocity(webui: Webui, sampler: Sampler) -> None:
    request = asking_for(webui, sampler)
    as_noise, as_velocity = (webui.generate(plan=two("soft", name), **request) for name in ("noise1", "velocity"))
    assert not as_noise.same_picture(as_velocity)
    settings = {"sd_model_checkpoint": "velocity"}
    alone = webui.generate(override_settings=settings, **request)
    assert webui.generate_unchanged(plan=two("soft", "velocity", 0), **request).same_picture(alone)
    assert webui.generate_unchanged(plan=two("velocity", "soft", 1), **request).same_picture(alone)


@pytest.mark.parametrize(
    "names", [("soft", "velocity", "soft"), ("soft", "two_v", "velocity"), ("xl", "xl_v", "xl_refiner", "xl")]
)
def test_c9_there_and_back_and_the_host_is_as_before(webui: Webui, names: tuple[str, ...]) -> None:
    has(webui, *names)
    plain = webui.generate(**REQUEST)
    first, *others = names
    passes = [{"checkpoint": name, "switch_at": 3 * number} for number, name in enumerate(others, 1)]
    several = plan({"checkpoint": first}, *passes, switch_unit="step")
    once = webui.generate_unchanged(plan=several, **REQUEST)
    assert tuple(name for name, _ in runs(once)) == names
    assert webui.generate_unchanged(plan=several, **REQUEST).same_picture(once)
    assert webui.generate(**REQUEST).same_picture(plain)


def test_c24_another_extension_chooses_a_checkpoint_that_does_not_fit(webui: Webui) -> None:
    """After we were asked; it is in place before we can know, and nothing is sampled."""
    has(webui, "xl")
    webui.generate(**REQUEST)
    before = webui.circumstances()
    webui.arm(kind="checkpoint", at="xl")
    answer = webui.try_generate(plan=plan({}, {"checkpoint": "ink", "switch_at": 0.5}), **REQUEST)
    assert answer.status_code == 422
    assert "ink (SD 1.x, 4 UNet channels) cannot continue what xl (SDXL, 4" in answer.json()["detail"]
    assert webui.state()["evaluations"] == []
    assert webui.circumstances() == before


@pytest.mark.parametrize(("before", "now"), list(product(SCHEDULES, SCHEDULES)))
def test_c8_what_the_last_picture_did_to_the_noise_schedule_does_not_show(webui: Webui, before: str, now: str) -> None:
    """A1111 leaves the schedule that a request asked for in the model until the next request begins."""
    webui.generate(override_settings={"sd_noise_schedule": before}, **REQUEST)
    webui.set_options(sd_noise_schedule=now)
    try:
        asked = two("soft", "velocity", 3.0, "sigma")
        told = webui.post("/multipass/v1/validate", {"plan": asked, "steps": 10, "sampler_name": "Euler"}).json()
        ours = webui.generate(plan=asked, **REQUEST)
    finally:
        webui.set_options(sd_noise_schedule="Default")
    assert told["ok"], told
    assert [own["end_step"] - own["first_step"] for own in told["passes"]] == [count for _, count in runs(ours)]


def test_c19_a_module_of_another_family_is_built_once(webui: Webui) -> None:
    has(webui, "two")
    there_and_back = plan({"checkpoint": "soft"}, {"checkpoint": "two", "switch_at": 0.3},
                          {"checkpoint": "soft", "switch_at": 0.6})  # fmt: skip
    webui.generate(**REQUEST)
    clear_cache(webui)
    first = webui.generate_unchanged(plan=there_and_back, n_iter=2, **REQUEST)
    assert first.loads == ("two",)
    again = webui.generate_unchanged(plan=there_and_back, n_iter=2, **REQUEST)
    assert again.loads == ()
    assert again.same_picture(first)
    assert {part for name, part in kept(webui) if name == "two"} >= {"unet", "text_encoder", "vae"}
    for other, name in ((two("soft", "two"), "two"), (two("two_v", "soft"), "two_v"), (two("two", "two_v"), "two_v")):
        clear_cache(webui)
        fresh = webui.generate_unchanged(plan=other, **REQUEST)
        assert name in fresh.loads
        assert webui.generate_unchanged(plan=other, **REQUEST).same_picture(fresh)
    clear_cache(webui)
    assert webui.generate_unchanged(plan=there_and_back, n_iter=2, **REQUEST).same_picture(first)


def test_every_change_of_family_can_go_through_the_cache(webui: Webui) -> None:
    has(webui, "two")
    own = {name: alone(webui, name) for name in ("two", "xl", "soft")}
    with settings(webui, multipass_manage_checkpoints=True):
        for name in ("two", "xl", "soft"):
            assert alone(webui, name).same_picture(own[name])
        for name in ("two", "soft", "xl", "two"):
            answer = alone(webui, name)
            assert answer.loads == ()
            assert answer.same_picture(own[name])
    assert webui.generate(**REQUEST).same_picture(own["soft"])


def test_c15_tiling_of_one_family_is_not_the_other_ones(webui: Webui) -> None:
    has(webui, "two")
    plain = webui.generate(**REQUEST)
    tiled = webui.generate(plan=two("soft", "two"), tiling=True, n_iter=2, **REQUEST)
    assert webui.generate(**REQUEST).same_picture(plain)
    untiled = webui.generate(plan=two("soft", "two"), **REQUEST)
    assert webui.generate(plan=two("soft", "two"), tiling=True, n_iter=2, **REQUEST).same_picture(tiled)
    clear_cache(webui)
    assert webui.generate(plan=two("soft", "two"), **REQUEST).same_picture(untiled)
    assert webui.generate(plan=two("soft", "two"), tiling=True, n_iter=2, **REQUEST).same_picture(tiled)
    assert tiled.pixels[0] != untiled.pixels[0]
    half = webui.generate(plan=two("soft", "two", at=0.0), tiling=True, **REQUEST)
    only = alone(webui, "two", tiling=True)
    assert half.same_picture(only), "the second half is tiled too"
    webui.generate(**REQUEST)
