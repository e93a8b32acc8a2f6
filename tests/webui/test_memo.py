"""The memo (C21): what the UNet answered is not computed again, and the picture is the same to the bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multipass.progress import TIMINGS_NAME
from tests.webui.asking import REQUEST, a_then_b, asking_for, cache, clear_cache, hires, plan, settings, without_run
from tests.webui.host import Answer, Webui
from tests.webui.samplers import SAMPLERS, Sampler

Counted = tuple[Answer, int]


@pytest.fixture(autouse=True)
def empty(webui: Webui) -> None:
    """Each test begins with nothing remembered."""
    clear_cache(webui)


def counted(webui: Webui, kind: str = "txt2img", **request: Any) -> Counted:
    """The answer, and how often the UNet was called for it."""
    answer = webui.generate(kind, **request)
    return answer, len(webui.state()["unets"])


def plainly(webui: Webui, kind: str = "txt2img", **request: Any) -> Counted:
    """The same with the memo off, which therefore forgets."""
    with settings(webui, multipass_memo_mb=0):
        return counted(webui, kind, **request)


def manifest(webui: Webui) -> dict[str, Any]:
    return webui.get("/multipass/v1/runs/latest")


def told(webui: Webui) -> list[tuple[int, int]]:
    """Of each pass of the last run's pictures: evaluations, and those that were spared."""
    images = manifest(webui)["images"]
    return [(own["unet_evaluations"], own["memo_hits"]) for image in images for own in image["passes"]]


# --- what is spared ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_c21_a_sweep_evaluates_each_state_of_each_checkpoint_once(webui: Webui, sampler: Sampler) -> None:
    request = asking_for(webui, sampler)
    steps = len(sampler.evaluations)
    boundaries = sorted({steps // 4, steps // 2, 3 * steps // 4} - {0})
    plans = [a_then_b(at, "step") for at in boundaries]
    references = [plainly(webui, plan=own, **request) for own in plans]
    calls = references[0][1] / sum(sampler.evaluations)  # of the UNet in an evaluation
    assert calls == int(calls)
    found = [counted(webui, plan=own, **request) for own in plans]
    for (answer, _), (reference, _) in zip(found, references, strict=True):
        assert answer.same_picture(reference)
    of_a = sum(sampler.evaluations[: max(boundaries)])
    of_b = sum(sum(sampler.evaluations[at:]) for at in boundaries)
    assert sum(made for _, made in found) == calls * (of_a + of_b)
    again, made = counted(webui, plan=plans[0], **request)
    assert made == 0
    assert again.same_picture(references[0][0])


def test_c21_a_second_pass_of_another_prompt_costs_that_pass_alone(webui: Webui) -> None:
    first, made = counted(webui, plan=a_then_b(0.6), **REQUEST)
    assert made == 10
    other = a_then_b(0.6, prompt="an owl", cfg_scale=7)
    reference, _ = plainly(webui, plan=other, **REQUEST)
    counted(webui, plan=a_then_b(0.6), **REQUEST)
    changed, made = counted(webui, plan=other, **REQUEST)
    assert made == 4
    assert told(webui) == [(0, 6), (4, 0)]
    assert changed.same_picture(reference)
    assert not changed.same_picture(first)
    back, made = counted(webui, plan=a_then_b(0.6), **REQUEST)
    assert made == 0
    assert told(webui) == [(0, 6), (0, 4)]
    assert back.same_picture(first)
    assert cache(webui)["memo"]["hits"] >= 6 + 10


@pytest.mark.parametrize(
    "more",
    [
        {"n_iter": 2, "batch_size": 2},
        {"prompt": "a red apple AND a star :0.7"},
        {"prompt": "a [red:green:0.5] apple", "negative_prompt": "[a bus:an owl:0.3]"},
        {"prompt": "a red apple " * 40},
        {"prompt": "a red apple <lora:one:0.8>"},
        {"sampler_name": "DPM++ SDE", "scheduler": "Karras", "override_settings": {"s_min_uncond": 4}},
        {"sampler_name": "Heun", "override_settings": {"s_min_uncond": 4}},
        {"sampler_name": "Euler a", "subseed": 3, "subseed_strength": 0.4, "eta": 0.7},
        {"override_settings": {"batch_cond_uncond": False}},
        {"cfg_scale": 1},
    ],
    ids=lambda more: ",".join(more) + str(len(more.get("prompt", ""))),
)
def test_c21_a_repeat_costs_nothing_whatever_the_request(webui: Webui, more: dict[str, Any]) -> None:
    request = {**REQUEST, **more}
    if webui.install.host == "classic":
        request.pop("scheduler", None)
    reference, made = plainly(webui, plan=a_then_b(0.5), **request)
    first, made_first = counted(webui, plan=a_then_b(0.5), **request)
    again, made_again = counted(webui, plan=a_then_b(0.5), **request)
    assert made == made_first > made_again == 0
    assert first.same_picture(reference)
    assert again.same_picture(reference)
    assert without_run(again.infotexts) == without_run(reference.infotexts)


def test_c21_the_hires_pass_and_refine_passes_are_remembered_too(webui: Webui) -> None:
    own = plan(
        {},
        {"checkpoint": "ink", "switch_at": 0.5},
        {"kind": "refine", "checkpoint": "soft", "denoising_strength": 0.6, "steps": 5, "scale": 1.5},
        {"checkpoint": "ink", "switch_at": 0.5, "prompt": "an owl"},
    )
    request = {**REQUEST, **hires(webui)}
    reference, _ = plainly(webui, plan=own, **request)
    assert [hits for _, hits in told(webui)] == [0] * 5
    first, made = counted(webui, plan=own, **request)
    again, made_again = counted(webui, plan=own, **request)
    assert made > made_again == 0
    assert [made for made, _ in told(webui)] == [0] * 5
    own["passes"][3] = {**own["passes"][3], "prompt": "a star"}
    changed, made_last = counted(webui, plan=own, **request)
    assert made_last == [made for made, _ in told(webui)][-1] == 2
    assert first.same_picture(reference)
    assert again.same_picture(reference)
    assert not changed.same_picture(reference)


def test_c21_img2img(webui: Webui, picture: str) -> None:
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7, "sampler_name": "Euler a"}
    reference, _ = plainly(webui, "img2img", plan=a_then_b(0.5), **request)
    first, made = counted(webui, "img2img", plan=a_then_b(0.5), **request)
    again, made_again = counted(webui, "img2img", plan=a_then_b(0.5), **request)
    assert made > made_again == 0
    assert first.same_picture(reference)
    assert again.same_picture(reference)


def test_c21_a_plan_is_not_needed_to_have_another_shape_only_the_same_states(webui: Webui) -> None:
    """A alone after A to B: a state is known by itself, not by its place in a plan."""
    counted(webui, plan=a_then_b(0.5), **REQUEST)
    alone, made = counted(webui, plan=plan({"checkpoint": "soft"}), **REQUEST)
    assert made == 5
    assert alone.same_picture(webui.generate(**REQUEST))


def test_a_request_without_a_plan_is_computed(webui: Webui) -> None:
    counted(webui, plan=plan({}), **REQUEST)
    _, made = counted(webui, **REQUEST)
    assert made == 10


# --- what decides an answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"seed": 8},
        {"width": 64},
        {"prompt": "a red apple <lora:one:0.7>"},
        {"tiling": True},
        {"override_settings": {"token_merging_ratio": 0.5}},
        {"override_settings": {"CLIP_stop_at_last_layers": 2}},
        {"override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}},
    ],
    ids=str,
)
def test_what_changes_the_picture_is_told_apart(webui: Webui, more: dict[str, Any]) -> None:
    """There, back, and there again, each as it is without the memo."""
    one = {**REQUEST, "prompt": "a red apple <lora:one:0.8>"}
    other = {**one, **more}
    references = [plainly(webui, plan=a_then_b(0.5), **request)[0] for request in (one, other)]
    has_none = {"forge": "tiling", "classic": "sd_noise_schedule"}.get(webui.install.host, "-")
    if has_none not in str(more):  # Forge says so, Forge Classic has but the option
        assert not references[0].same_picture(references[1])
    for request, reference in zip((one, other, one, other), (*references, *references), strict=True):
        assert webui.generate(plan=a_then_b(0.5), **request).same_picture(reference)


def test_a_setting_that_shows_with_half_precision_alone_is_told_apart(webui: Webui) -> None:
    """A CPU computes in full precision, so only the evaluations tell."""
    if webui.install.is_forge_family:
        pytest.skip("this host reads it when it starts")
    counted(webui, plan=a_then_b(0.5), **REQUEST)
    _, made = counted(webui, plan=a_then_b(0.5), **REQUEST, override_settings={"upcast_attn": True})
    assert made == 10
    _, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
    assert made == 0


def test_weights_that_the_webui_stores_as_fp8_are_told_apart(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("this host stores them otherwise")
    exact, _ = counted(webui, plan=a_then_b(0.5), **REQUEST)
    with settings(webui, fp8_storage="Enable"):
        lossy, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
        assert made == 10
    assert not lossy.same_picture(exact)


def test_another_attention_is_told_apart(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("this host chooses its attention when it starts")
    counted(webui, plan=a_then_b(0.5), **REQUEST)
    with settings(webui, cross_attention_optimization="Doggettx"):
        answer, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
        assert made == 10
        assert answer.same_picture(plainly(webui, plan=a_then_b(0.5), **REQUEST)[0])


def test_a_network_that_was_replaced_is_another(webui: Webui, models: tuple[Path, Path]) -> None:
    """Where the host notices it; the Forge family does once it has read enough others, and the memo then too."""
    others = [models[0].parent / f"loras/other{number}.safetensors" for number in range(5)]
    for other in others:
        shutil.copy(models[0].parent / "loras/one.safetensors", other)
    file = models[0].parent / "loras/replaced.safetensors"
    request = {**REQUEST, "prompt": "a red apple <lora:replaced:0.8>"}
    pictures: list[Answer] = []
    for number, name in enumerate(("one", "two", "one")):
        shutil.copy(file.with_stem(name), file)
        os.utime(file, (number + 1e9, number + 1e9))
        webui.post("/sdapi/v1/refresh-loras", {})
        pictures.append(webui.generate(plan=a_then_b(0.5), **request))
        assert pictures[-1].same_picture(plainly(webui, plan=a_then_b(0.5), **request)[0])
    if webui.install.is_forge_family:
        for other in others:
            webui.generate(plan=plan({}), **{**REQUEST, "prompt": f"a red apple <lora:{other.stem}:0.8>"})
        reread = webui.generate(plan=a_then_b(0.5), **request)
        assert reread.same_picture(plainly(webui, plan=a_then_b(0.5), **request)[0])
    for path in (file, *others):
        path.unlink()
    if webui.install.is_forge_family:
        return
    assert pictures[0].same_picture(pictures[2])
    assert not pictures[0].same_picture(pictures[1])


def test_a_checkpoint_that_was_replaced_is_another(webui: Webui, copied: Path, models: tuple[Path, Path]) -> None:
    own = plan({}, {"checkpoint": "copied", "switch_at": 0.5})
    as_ink = webui.generate(plan=own, **REQUEST)
    assert as_ink.same_picture(webui.generate(plan=a_then_b(0.5), **REQUEST))
    shutil.copy(models[0] / "noise1.safetensors", copied)
    replaced, made = counted(webui, plan=own, **REQUEST)
    assert made == 5
    assert replaced.same_picture(plainly(webui, plan=a_then_b(0.5, checkpoint="noise1"), **REQUEST)[0])


# --- where it is off -----------------------------------------------------------------------------------------------


def test_a_patch_of_the_unet_that_nobody_can_see_through_turns_it_off(webui: Webui) -> None:
    """As ControlNet's: on the Forge family it is around the UNet's one method, and told apart by what comes of it."""
    first = webui.generate_with({"kind": "patch"}, a_then_b(0.5), **REQUEST)
    again = webui.generate_with({"kind": "patch"}, a_then_b(0.5), **REQUEST)
    made = len(webui.state()["unets"])
    assert again.same_picture(first)
    assert again.patched == first.patched != ()
    if webui.install.is_forge_family:
        assert made == 0
    else:
        assert made == 10
        assert "probe.py" in manifest(webui)["memo"]
    plain, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
    assert not plain.same_picture(first)
    assert manifest(webui)["memo"] is None


@pytest.mark.parametrize("fault", ["draw", "hook", "layer", "argument", "unreadable"])
def test_what_it_cannot_know_turns_it_off_and_is_told(webui: Webui, fault: str) -> None:
    """An evaluation that draws, a hook, a layer's own forward, an argument that is none or cannot be looked at: each
    as without it."""
    if fault == "unreadable" and webui.install.is_forge_family:
        pytest.skip("this host passes no argument on that others can set")
    expected = {"draw": "random numbers", "hook": "probe.py", "layer": "probe.py", "argument": "cannot be compared"}
    expected["unreadable"] = "cannot be read: RuntimeError"
    if webui.install.is_forge_family:
        expected["argument"] = "patched the UNet (probe)"
    own = a_then_b(0.5)
    with settings(webui, multipass_memo_mb=0):
        reference = webui.generate_with({"kind": "unet", "at": fault}, own, **{**REQUEST, "sampler_name": "Euler a"})
    for _ in range(2):
        answer = webui.generate_with({"kind": "unet", "at": fault}, own, **{**REQUEST, "sampler_name": "Euler a"})
        assert answer.same_picture(reference)
        assert len(webui.state()["unets"]) == 10
        assert told(webui) == [(5, 0), (5, 0)]
        reason = manifest(webui)["memo"]
        assert reason is not None
        assert expected[fault] in reason


def test_a_callback_that_draws_random_numbers_draws_them_all_the_same(webui: Webui) -> None:
    """It stands above the UNet, and is called as ever: what it changes is a part of what the UNet is given."""
    own, request = a_then_b(0.5), {**REQUEST, "sampler_name": "Euler a"}
    plain = webui.generate(plan=own, **request)  # what is read, is read: that would draw too
    with settings(webui, multipass_memo_mb=0):
        reference = webui.generate_with({"kind": "noisy callback"}, own, **request)
    for made in (10, 0):
        assert webui.generate_with({"kind": "noisy callback"}, own, **request).same_picture(reference)
        assert len(webui.state()["unets"]) == made
    assert not plain.same_picture(reference)


def test_tiling_that_a_callback_turns_on_is_seen(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("this host tiles otherwise")
    tiled = webui.generate_with({"kind": "tile"}, plan({}), **REQUEST)
    plain = webui.generate(plan=plan({}), **REQUEST)
    assert plain.same_picture(webui.generate(**REQUEST))
    assert not plain.same_picture(tiled)


# --- however it ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [{"kind": "interrupt", "at": 7}, {"kind": "raise", "at": 7}, {"kind": "skip", "at": 3}]
)
def test_c15_what_was_computed_before_it_ended_is_remembered_and_right(
    webui: Webui, fault: dict[str, Any], unchanged: Callable[[], None]
) -> None:
    reference, _ = plainly(webui, plan=a_then_b(0.5), **REQUEST)
    webui.arm(**fault)
    webui.try_generate(plan=a_then_b(0.5), **REQUEST)
    unchanged()
    answer, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
    assert 10 - fault["at"] <= made <= 11 - fault["at"]
    assert answer.same_picture(reference)


def test_the_budget_is_kept_and_cleared(webui: Webui) -> None:
    counted(webui, plan=a_then_b(0.5), **REQUEST)
    held = cache(webui)["memo"]
    assert held["budget_bytes"] == 512 << 20
    assert 0 < held["held_bytes"] <= held["budget_bytes"]
    assert held["entries"] == 10
    clear_cache(webui)
    assert (cache(webui)["memo"]["entries"], cache(webui)["memo"]["held_bytes"]) == (0, 0)
    three = 3 * held["held_bytes"] // 10
    with settings(webui, multipass_memo_mb=three / (1 << 20)):
        counted(webui, plan=a_then_b(0.5), **REQUEST)
        assert cache(webui)["memo"]["entries"] == 3
        answer, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
        assert made == 10, "what was needed first had to go first"
    with settings(webui, multipass_memo_mb=three / (2 << 20)):
        assert cache(webui)["memo"]["entries"] == 1, "at once"
    with settings(webui, multipass_memo_mb=0):
        assert (cache(webui)["memo"]["entries"], cache(webui)["memo"]["held_bytes"]) == (0, 0)
        again, made = counted(webui, plan=a_then_b(0.5), **REQUEST)
        assert made == 10
        assert cache(webui)["memo"]["entries"] == 0
    assert again.same_picture(answer)


def test_no_pace_is_learned_from_what_was_not_computed(webui: Webui) -> None:
    timings = webui.data / "multipass" / TIMINGS_NAME
    request = {**REQUEST, "sampler_name": "DPM++ 3M SDE"}
    counted(webui, plan=plan({}), **request)
    learned = paces(timings)
    for _ in range(3):
        counted(webui, plan=plan({}), **request)
        assert told(webui) == [(0, 10)]
    assert paces(timings) == learned != {}


def paces(file: Path) -> dict[str, Any]:
    """What is learned of sampling."""
    found = json.loads(file.read_text())
    return {name: pace for name, pace in found["paces"].items() if name.startswith("sample|")}
