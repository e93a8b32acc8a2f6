"""Checkpoints kept in memory: what is kept, within which budget, and what is read again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.webui.asking import (
    REQUEST,
    a_then_b,
    alone,
    cache,
    clear_cache,
    hires,
    kept,
    plan,
    refined,
    runs,
    settings,
)
from tests.webui.host import Answer, Webui

GB = 1 << 30
THERE_AND_BACK = plan(
    {"checkpoint": "soft"}, {"checkpoint": "ink", "switch_at": 0.3}, {"checkpoint": "soft", "switch_at": 0.6}
)
QUICK = {**REQUEST, "steps": 2, "width": 64}


@pytest.fixture(autouse=True)
def in_place(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("this host keeps its weights elsewhere")
    webui.generate(**REQUEST)
    webui.set_options(multipass_read_ahead=True)  # so that config.json has what the host only writes with a setting
    clear_cache(webui)


# --- what is kept --------------------------------------------------------------------------------------------------


def test_it_tells_what_is_kept_and_lets_go_of_it(webui: Webui, models: tuple[Path, Path]) -> None:
    before = cache(webui)
    assert before["entries"] == []
    webui.generate(plan=a_then_b(0.5), **REQUEST)
    after = cache(webui)
    assert {component for name, component in kept(webui) if name == "ink"} >= {"unet", "text_encoder", "vae"}
    assert {name for name, _ in kept(webui)} == {"ink"}, "what the host has loaded is its own"
    assert after["loads_from_disk"] - before["loads_from_disk"] == 1
    size = (models[0] / "ink.safetensors").stat().st_size
    assert 0.99 * size < after["bytes_read"] - before["bytes_read"] <= size
    assert {entry["tier"] for entry in after["entries"]} == {"ram"}
    assert not any(entry["leased"] for entry in after["entries"]), "no picture is being made"
    assert sum(kept(webui).values()) == after["held"]["ram_bytes"] <= after["budgets"]["ram_bytes"]
    webui.generate(plan=a_then_b(0.5), n_iter=2, **REQUEST)
    again = cache(webui)
    assert again["hits"] > after["hits"]
    for counted in ("loads_from_disk", "bytes_read", "evictions"):
        assert again[counted] == after[counted]
    clear_cache(webui)
    assert cache(webui)["entries"] == []


def test_c9_what_is_kept_renders_what_was_read(webui: Webui) -> None:
    refiner = webui.generate(**refined(webui, 0.5), **REQUEST)
    for _ in range(3):
        assert webui.generate_unchanged(plan=a_then_b(0.5), **REQUEST).same_picture(refiner)


def test_what_checkpoints_share_is_kept_once(webui: Webui) -> None:
    """The demo pair has one VAE and one text encoder, bit for bit."""
    webui.generate(plan=plan({"checkpoint": "noise1"}, {"checkpoint": "ink", "switch_at": 0.5}), **REQUEST)
    bytes_of = kept(webui)
    shared = bytes_of["ink", "vae"] + bytes_of["ink", "text_encoder"]
    assert shared == bytes_of["noise1", "vae"] + bytes_of["noise1", "text_encoder"]
    others = sum(bytes_of["ink", part] == bytes_of["noise1", part] for part in ("vae", "text_encoder"))
    assert others == 2
    held = cache(webui)["held"]["ram_bytes"]
    assert sum(bytes_of.values()) - held >= shared


def test_c9_what_networks_make_of_a_checkpoint_is_kept_too(webui: Webui) -> None:
    text = "a red apple <lora:one:0.8>"
    several = plan({"prompt": text}, {"checkpoint": "ink", "switch_at": 0.5, "prompt": text})
    first = webui.generate_unchanged(plan=several, **REQUEST)
    assert {("soft", "networks"), ("ink", "networks")} <= kept(webui).keys()
    assert kept(webui)["ink", "networks"] < kept(webui)["ink", "unet"], "only what they touch"
    assert webui.generate_unchanged(plan=several, n_iter=2, **REQUEST).latents[0] == first.latents[0]
    other = plan({"prompt": text}, {"checkpoint": "ink", "switch_at": 0.5, "prompt": text.replace("0.8", "0.4")})
    assert not webui.generate_unchanged(plan=other, **REQUEST).same_picture(first)
    assert webui.generate_unchanged(plan=several, **REQUEST).same_picture(first)
    clear_cache(webui)
    assert webui.generate_unchanged(plan=several, **REQUEST).same_picture(first)


def test_c9_what_the_host_merges_itself_is_not_kept_for_ours(webui: Webui) -> None:
    """The hires pass activates networks of its own, by the host."""
    request = {**REQUEST, "prompt": "a red apple <lora:one:0.8>", **hires(webui), "hr_prompt": "a bus <lora:two:1>"}
    first = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    assert webui.generate_unchanged(plan=a_then_b(0.5), **request).same_picture(first)
    clear_cache(webui)
    assert webui.generate_unchanged(plan=a_then_b(0.5), **request).same_picture(first)
    assert not webui.generate(plan=a_then_b(0.5), **{**request, "hr_prompt": "a bus"}).same_picture(first)


def test_c15_a_hires_network_on_layers_that_the_passes_leave_alone(webui: Webui) -> None:
    """``unet`` touches fewer layers than ``one``."""
    plain = webui.generate(**REQUEST)
    request = {**REQUEST, "prompt": "a red apple <lora:unet:0.5>", **hires(webui), "hr_prompt": "a bus <lora:one:1>"}
    only = webui.generate(plan=plan({}), **request)
    assert webui.generate_unchanged(plan=plan({}), **request).same_picture(only)
    assert only.same_picture(webui.generate(**request)), "as without a plan"
    webui.generate_unchanged(plan=a_then_b(0.5), **request)
    assert webui.generate(**REQUEST).same_picture(plain)


@pytest.mark.parametrize("read_ahead", [True, False])
def test_the_unet_of_a_pass_is_read_while_the_one_before_samples(webui: Webui, read_ahead: bool) -> None:
    """Seen from outside: what is read although the picture ends before its pass begins."""
    with settings(webui, multipass_read_ahead=read_ahead):
        webui.arm(kind="interrupt", at=7)
        webui.try_generate(plan=a_then_b(0.9), **REQUEST)
    assert (("ink", "unet") in kept(webui)) == read_ahead
    assert ("ink", "text_encoder") in kept(webui), "its texts are encoded before the first pass"


# --- budgets -------------------------------------------------------------------------------------------------------


def test_two_that_fit_stay_and_a_third_pushes_the_oldest_out(webui: Webui) -> None:
    webui.generate(plan=a_then_b(0.5), **REQUEST)
    own = 2 * sum(kept(webui).values())  # the host's and this one
    unet = kept(webui)["ink", "unet"]
    with settings(webui, multipass_ram_budget_gb=(own + 1.5 * unet) / GB):
        to_noise1 = plan({}, {"checkpoint": "noise1", "switch_at": 0.5})
        to_noise2 = plan({}, {"checkpoint": "noise2", "switch_at": 0.5})
        before = cache(webui)
        for several in (to_noise1, a_then_b(0.5), to_noise1, a_then_b(0.5)):
            webui.generate(plan=several, **QUICK)
        there = cache(webui)
        assert there["loads_from_disk"] == before["loads_from_disk"] + 1, "noise1, once"
        assert there["evictions"] == before["evictions"]
        webui.generate(plan=to_noise2, **QUICK)
        after = cache(webui)
        assert after["evictions"] > before["evictions"]
        assert ("noise1", "unet") not in kept(webui), "used longest ago"
        assert {("ink", "unet"), ("noise2", "unet")} <= kept(webui).keys()
        assert after["held"]["ram_bytes"] <= after["budgets"]["ram_bytes"] == int(own + 1.5 * unet)


def test_a_budget_without_room_for_a_second_one_streams_and_says_so(webui: Webui) -> None:
    refiner = webui.generate(n_iter=2, **refined(webui, 0.5), **REQUEST)
    with settings(webui, multipass_ram_budget_gb=0.001):
        ours = webui.generate_unchanged(plan=a_then_b(0.5), n_iter=2, **REQUEST)
        assert cache(webui)["entries"] == []
    assert ours.same_picture(refiner)
    assert ours.loads.count("ink") == 2, "at every switch"
    (comment,) = webui.state()["comments"]
    assert "do not hold ink beside another" in comment


def test_c17_a_hundred_pictures_and_the_memory_is_flat_after_the_tenth(webui: Webui) -> None:
    memory = []
    for number in range(100):
        several = THERE_AND_BACK if number % 2 else a_then_b(0.5)
        assert len(webui.generate(plan=several, **QUICK).pixels) == 1
        told = cache(webui)
        assert told["held"]["ram_bytes"] <= told["budgets"]["ram_bytes"]
        memory.append(webui.get("/probe/memory"))
    assert max(memory[10:]) - memory[9] < 16 << 20, "a tenth of one more checkpoint"


# --- as fp8 --------------------------------------------------------------------------------------------------------


def test_inactive_sets_can_be_kept_as_fp8_and_pictures_say_so(webui: Webui) -> None:
    text = {**REQUEST, "prompt": "a red apple <lora:one:0.8>"}
    exact, plain = webui.generate(plan=a_then_b(0.5), **text), webui.generate(**REQUEST)
    whole = kept(webui)["ink", "unet"]
    with settings(webui, multipass_fp8=True):
        lossy = webui.generate_unchanged(plan=a_then_b(0.5), **text)
        assert runs(lossy) == runs(exact)
        assert not lossy.same_picture(exact)
        assert mean_difference(lossy, exact) < 8, "of 255"
        assert "Multipass storage: fp8" in lossy.infotexts[0]
        (own,) = [entry["nbytes"] for entry in cache(webui)["entries"] if entry["lossy"]]
        assert 0.25 * whole <= own < 0.26 * whole, "a byte for four"
        assert webui.generate(plan=a_then_b(0.5), **text).same_picture(lossy)
        assert webui.generate(**REQUEST).same_picture(plain), "what the webui has loaded is as it was"
    again = webui.generate(plan=a_then_b(0.5), **text)
    assert again.same_picture(exact), "of what is kept lossy, nothing is used for this"
    assert "Multipass storage" not in again.infotexts[0]


def test_no_picture_without_a_plan_is_lossy(webui: Webui) -> None:
    own = alone(webui, "ink")
    exact = webui.generate(plan=a_then_b(0.5), **REQUEST)
    with settings(webui, multipass_manage_checkpoints=True):
        with settings(webui, multipass_fp8=True):
            assert alone(webui, "ink").same_picture(own)
            webui.generate(**REQUEST)
            to_ink = plan({"checkpoint": "noise1"}, {"checkpoint": "ink", "switch_at": 0.5})
            assert "Multipass storage: fp8" in webui.generate(plan=to_ink, **REQUEST).infotexts[0]
            told = alone(webui, "ink")
            assert told.same_picture(own)
            assert "Multipass storage" not in told.infotexts[0]
        assert webui.generate(plan=a_then_b(0.5), **REQUEST).same_picture(exact)
    webui.generate(**REQUEST)


def mean_difference(one: Answer, other: Answer) -> float:
    """Of two pictures, in levels."""
    levels = [np.frombuffer(answer.pixels[0], np.uint8).astype(int) for answer in (one, other)]
    return float(np.abs(levels[0] - levels[1]).mean())


# --- what changes, and what fails ----------------------------------------------------------------------------------


TO_COPIED = plan({}, {"checkpoint": "copied", "switch_at": 0.5})


def test_a_file_that_was_replaced_is_read_again(webui: Webui, models: tuple[Path, Path], copied: Path) -> None:
    ink = webui.generate(plan=a_then_b(0.5), **REQUEST)
    assert webui.generate(plan=TO_COPIED, **REQUEST).same_picture(ink)
    shutil.copy(models[0] / "noise1.safetensors", copied)
    to_noise = plan({}, {"checkpoint": "noise1", "switch_at": 0.5})
    assert webui.generate(plan=TO_COPIED, **REQUEST).same_picture(webui.generate(plan=to_noise, **REQUEST))


def test_the_file_of_the_loaded_checkpoint_was_replaced(webui: Webui, models: tuple[Path, Path], copied: Path) -> None:
    """The webui goes by its name and goes on with what it has; a plan that names it means the file."""
    alone(webui, "copied")
    shutil.copy(models[0] / "noise1.safetensors", copied)
    of_copied, of_noise = (
        plan({"checkpoint": name}, {"checkpoint": "ink", "switch_at": 0.5}) for name in ("copied", "noise1")
    )
    text = {**REQUEST, "prompt": "a red apple <lora:one:0.8>"}
    expected = webui.generate(plan=of_noise, **text)
    alone(webui, "copied")
    assert webui.generate(plan=of_copied, **text).same_picture(expected)


def test_a_file_that_is_gone_is_refused(webui: Webui, copied: Path) -> None:
    webui.generate(plan=TO_COPIED, **REQUEST)
    copied.unlink()
    answer = webui.try_generate(plan=TO_COPIED, **REQUEST)
    assert answer.status_code == 422
    assert "passes[1].checkpoint: copied is not a readable" in answer.json()["detail"]


def test_what_could_not_be_read_ahead_is_read_when_it_is_needed(webui: Webui) -> None:
    good = webui.generate(plan=a_then_b(0.5), **REQUEST)
    clear_cache(webui)
    fault = {"kind": "break", "at": "multipass.hosts.webui.files.unet", "error": "OSError"}
    assert webui.generate_with(fault, a_then_b(0.5), **REQUEST).same_picture(good)


def broken(webui: Webui, unchanged: Callable[[], None], *, read_ahead: bool = True, **fault: Any) -> str:
    """What a request says that has to fail; the host is as before."""
    plain = webui.generate(**REQUEST)
    clear_cache(webui)
    with settings(webui, multipass_read_ahead=read_ahead):
        webui.arm(**fault)
        answer = webui.try_generate(plan=a_then_b(0.5), **REQUEST)
    assert answer.status_code == 500
    unchanged()
    assert set(webui.state()["evaluations"]) == {"soft"}
    assert webui.generate(**REQUEST).same_picture(plain)
    assert ("ink", "unet") not in kept(webui)
    return answer.text


def test_a_disk_that_fails_is_told(webui: Webui, unchanged: Callable[[], None]) -> None:
    assert "injected: cannot read" in broken(webui, unchanged, kind="load unet", at="ink")


def test_out_of_memory_is_tried_once_more(webui: Webui, unchanged: Callable[[], None]) -> None:
    good = webui.generate(plan=a_then_b(0.5), **REQUEST)
    clear_cache(webui)
    webui.generate(plan=plan({}, {"checkpoint": "noise1", "switch_at": 0.5}), **REQUEST)
    short = {"kind": "break", "at": "multipass.hosts.webui.files.unet", "error": "MemoryError"}
    with settings(webui, multipass_read_ahead=False):
        assert webui.generate_with(short, a_then_b(0.5), **REQUEST).same_picture(good)
    assert {name for name, _ in kept(webui)} == {"ink"}, "the other had to go"
    told = broken(webui, unchanged, read_ahead=False, **short, times=2)
    assert "the memory does not hold this checkpoint" in told


# --- without a plan ------------------------------------------------------------------------------------------------


def test_every_change_of_checkpoint_can_go_through_the_cache(webui: Webui, unchanged: Callable[[], None]) -> None:
    own = {name: alone(webui, name) for name in ("soft", "ink", "noise1")}
    refiner = webui.generate(**refined(webui, 0.5), **REQUEST)
    with settings(webui, multipass_manage_checkpoints=True):
        for name in ("ink", "noise1", "soft"):
            assert alone(webui, name).same_picture(own[name])
        there = cache(webui)
        for name in ("ink", "noise1", "ink", "soft"):
            answer = alone(webui, name)
            assert answer.same_picture(own[name])
            assert answer.loads == ()
            assert answer.modules == 1
        assert cache(webui)["loads_from_disk"] == there["loads_from_disk"]
        again = webui.generate(**refined(webui, 0.5), **REQUEST)
        assert again.loads == ()
        assert again.same_picture(refiner), "the host's own Refiner gains too"
        assert webui.generate(plan=a_then_b(0.5), **REQUEST).same_picture(refiner)
        webui.set_options(sd_model_checkpoint="ink")
        assert webui.generate(**REQUEST).same_picture(own["ink"])
        webui.set_options(sd_model_checkpoint="soft")
        assert runs(webui.generate(**REQUEST)) == [("soft", 10)]
    webui.generate(**REQUEST)
    assert alone(webui, "noise1").same_picture(own["noise1"])
    webui.generate(**REQUEST)
