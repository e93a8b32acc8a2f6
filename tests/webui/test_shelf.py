"""Whole models kept: the Forge family builds one from every file that it loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webui.asking import REQUEST, a_then_b, alone, cache, clear_cache, hires, kept, plan, refined, settings
from tests.webui.conftest import EXTENSIONS
from tests.webui.host import Webui, running

GB = 1 << 30
THERE_AND_BACK = plan(
    {"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "soft", "switch_at": 0.6}
)
TO_COPIED = plan({"checkpoint": "soft"}, {"checkpoint": "copied", "switch_at": 0.5})
QUICK = {**REQUEST, "steps": 2, "width": 64}


@pytest.fixture(autouse=True)
def whole(webui: Webui) -> Iterator[None]:
    if not webui.install.is_forge_family:
        pytest.skip("this host's checkpoints are switched in place")
    with settings(webui, sd_checkpoints_limit=1):  # else reForge keeps them by itself
        webui.generate(**REQUEST)
        clear_cache(webui)
        yield


def test_c19_a_batch_reads_each_checkpoint_once_and_the_next_one_none(webui: Webui) -> None:
    refiner = webui.generate(n_iter=3, **refined(webui, 0.5), **REQUEST)
    assert len(refiner.loads) > 3
    webui.generate(**REQUEST)
    clear_cache(webui)
    before = cache(webui)
    first = webui.generate_unchanged(plan=a_then_b(0.5), n_iter=3, **REQUEST)
    assert first.loads == ("ink",)
    again = webui.generate_unchanged(plan=a_then_b(0.5), n_iter=3, **REQUEST)
    assert again.loads == ()
    assert first.same_picture(refiner)
    assert again.same_picture(refiner)
    after = cache(webui)
    assert after["loads_from_disk"] - before["loads_from_disk"] == 1
    assert after["hits"] > before["hits"]
    assert {part for name, part in kept(webui) if name == "ink"} == {"unet", "text_encoder", "vae"}
    assert {name for name, _ in kept(webui)} == {"ink"}, "what the host has loaded is its own"


def test_c9_there_and_back_from_kept_models(webui: Webui) -> None:
    refiner = webui.generate(**refined(webui, 0.5), **REQUEST)
    first = webui.generate_unchanged(plan=THERE_AND_BACK, **REQUEST)
    for _ in range(2):
        assert webui.generate_unchanged(plan=THERE_AND_BACK, **REQUEST).same_picture(first)
        assert webui.generate_unchanged(plan=a_then_b(0.5), **REQUEST).same_picture(refiner)
    clear_cache(webui)
    assert webui.generate_unchanged(plan=THERE_AND_BACK, **REQUEST).same_picture(first)


def test_c9_a_kept_model_has_the_networks_that_are_asked_for(webui: Webui) -> None:
    def of(text: str) -> dict[str, Any]:
        return plan({"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.5, "prompt": text})

    texts = ["a red apple <lora:one:0.8>", "a red apple", "a red apple <lora:one:0.4>", "a bus <lora:two:1>"]
    fresh = []
    for text in texts:
        clear_cache(webui)
        fresh.append(webui.generate_unchanged(plan=of(text), **REQUEST))
    assert not fresh[0].same_picture(fresh[2])
    for text, expected in [*zip(texts, fresh, strict=True)][::-1]:
        again = webui.generate_unchanged(plan=of(text), **REQUEST)
        assert again.loads == ()
        assert again.same_picture(expected)


def test_c15_tiling_of_one_request_is_not_the_next_ones(webui: Webui) -> None:
    plain = webui.generate(plan=THERE_AND_BACK, **REQUEST)
    webui.generate(plan=plan({"checkpoint": "ink"}, {"checkpoint": "soft", "switch_at": 0.5}), tiling=True, **REQUEST)
    assert webui.generate(plan=THERE_AND_BACK, **REQUEST).same_picture(plain)


@pytest.mark.parametrize("managed", [False, True])
def test_c15_a_noise_schedule_of_one_request_is_not_the_next_ones(webui: Webui, managed: bool) -> None:
    """The host rescales that of the model with which a picture begins, and puts back that with which it ends."""
    plain, other = webui.generate(**REQUEST), alone(webui, "ink")
    webui.generate(**REQUEST)
    zero = {**REQUEST, "n_iter": 2, "override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}}
    refiner = refined(webui, 0.5, sd_noise_schedule="Zero Terminal SNR")
    with settings(webui, multipass_manage_checkpoints=managed):
        first = webui.generate(plan=a_then_b(0.5), **zero)
        assert webui.generate(plan=a_then_b(0.5), **zero).same_picture(first)
        webui.generate(**{**REQUEST, **refiner})
        assert webui.generate(**REQUEST).same_picture(plain)
        assert alone(webui, "ink").same_picture(other)
        assert webui.generate(plan=a_then_b(0.5), **zero).same_picture(first)
    webui.generate(**REQUEST)


def test_two_that_just_fit_are_never_read_again(webui: Webui) -> None:
    webui.generate(plan=a_then_b(0.5), **QUICK)
    with settings(webui, multipass_ram_budget_gb=2.2 * sum(kept(webui).values()) / GB):
        for _ in range(2):
            assert webui.generate(plan=THERE_AND_BACK, **REQUEST).loads == ()
        assert webui.state()["comments"] == []


def test_hires_on_a_kept_model(webui: Webui) -> None:
    request = {**REQUEST, **hires(webui)}
    first = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    again = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    assert again.loads == ()
    assert again.same_picture(first)


def test_a_budget_without_room_for_a_second_one_streams_and_says_so(webui: Webui) -> None:
    refiner = webui.generate(n_iter=2, **refined(webui, 0.5), **REQUEST)
    with settings(webui, multipass_ram_budget_gb=0.001):
        ours = webui.generate_unchanged(plan=a_then_b(0.5), n_iter=2, **REQUEST)
        assert cache(webui)["entries"] == []
    assert ours.same_picture(refiner)
    assert ours.loads.count("ink") >= 2
    assert any("do not hold ink beside another" in comment for comment in webui.state()["comments"])


def test_two_that_fit_stay_and_a_third_pushes_the_oldest_out(webui: Webui) -> None:
    webui.generate(plan=a_then_b(0.5), **QUICK)
    own = sum(kept(webui).values())
    with settings(webui, multipass_ram_budget_gb=3.5 * own / GB):
        before = cache(webui)
        to_noise = plan({"checkpoint": "soft"}, {"checkpoint": "noise1", "switch_at": 0.5})
        for several in (to_noise, a_then_b(0.5), to_noise, a_then_b(0.5)):
            webui.generate(plan=several, **QUICK)
        there = cache(webui)
        assert there["loads_from_disk"] == before["loads_from_disk"] + 1, "noise1, once"
        webui.generate(plan=plan({"checkpoint": "soft"}, {"checkpoint": "noise2", "switch_at": 0.5}), **QUICK)
        assert {name for name, _ in kept(webui)} == {"ink", "noise2"}, "noise1 was used longest ago"
        told = cache(webui)
        assert told["evictions"] > there["evictions"]
        assert told["held"]["ram_bytes"] <= told["budgets"]["ram_bytes"]


def test_c17_a_hundred_pictures_and_the_memory_is_flat_after_the_tenth(webui: Webui) -> None:
    memory = []
    for number in range(100):
        webui.generate(plan=THERE_AND_BACK if number % 2 else a_then_b(0.5), **QUICK)
        told = cache(webui)
        assert told["held"]["ram_bytes"] <= told["budgets"]["ram_bytes"]
        memory.append(webui.get("/probe/memory"))
    assert max(memory[10:]) - memory[9] < 16 << 20, "a tenth of one more checkpoint"


def test_a_file_that_was_replaced_is_read_again(webui: Webui, models: tuple[Path, Path], copied: Path) -> None:
    ink = webui.generate(plan=a_then_b(0.5), **REQUEST)
    assert webui.generate(plan=TO_COPIED, **REQUEST).same_picture(ink)
    shutil.copy(models[0] / "noise1.safetensors", copied)
    to_noise = plan({"checkpoint": "soft"}, {"checkpoint": "noise1", "switch_at": 0.5})
    assert webui.generate(plan=TO_COPIED, **REQUEST).same_picture(webui.generate(plan=to_noise, **REQUEST))


def test_a_load_that_fails_leaves_the_first_in_place(webui: Webui, unchanged: Callable[[], None]) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind="load", at="ink")
    answer = webui.try_generate(plan=a_then_b(0.5), **REQUEST)
    assert answer.status_code == 500
    unchanged()
    assert webui.generate(**REQUEST).same_picture(plain)
    assert webui.generate(plan=a_then_b(0.5), **REQUEST).loads == ("ink",)


def test_every_change_of_checkpoint_can_go_through_the_cache(webui: Webui) -> None:
    own = {name: alone(webui, name) for name in ("soft", "ink", "noise1")}
    refiner = webui.generate(**refined(webui, 0.5), **REQUEST)
    with settings(webui, multipass_manage_checkpoints=True):
        for name in ("ink", "noise1", "soft"):
            assert alone(webui, name).same_picture(own[name])
        for name in ("ink", "noise1", "ink", "soft"):
            answer = alone(webui, name)
            assert answer.same_picture(own[name])
            assert answer.loads == ()
        again = webui.generate(**refined(webui, 0.5), **REQUEST)
        assert again.loads == ()
        assert again.same_picture(refiner), "the host's own Refiner gains too"
        assert webui.generate(plan=a_then_b(0.5), **REQUEST).same_picture(refiner)
    webui.generate(**REQUEST)
    assert alone(webui, "noise1").same_picture(own["noise1"])
    assert webui.generate(**REQUEST).same_picture(own["soft"])


def test_the_first_request_of_all_may_have_a_plan(
    webui: Webui, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Forge has no model before it."""
    if not webui.install.is_forge:
        pytest.skip("this host has a model when it starts")
    expected = webui.generate(plan=a_then_b(0.5), **REQUEST)
    with running(webui.install, tmp_path_factory.mktemp("fresh") / "data", *models, EXTENSIONS) as fresh:
        assert fresh.generate(plan=a_then_b(0.5), **REQUEST).pixels == expected.pixels
