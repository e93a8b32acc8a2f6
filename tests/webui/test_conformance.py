"""What must hold on the real host. Equality means bit-identical latents and pixels; C-numbers are the contract's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.webui.asking import (
    FEW,
    LOOPBACK,
    REQUEST,
    a_then_b,
    alone,
    asking_for,
    clear_cache,
    hires,
    plan,
    refined,
    runs,
)
from tests.webui.host import Webui, changes
from tests.webui.samplers import HOSTS, SAMPLERS, SCHEDULES, STEPS, UNITS, Sampler

# --- the same as the host ------------------------------------------------------------------------------------------


def test_c1_off_is_as_without_the_extension(webui: Webui, plain_webui: Webui) -> None:
    assert webui.generate(**REQUEST).same_picture(plain_webui.generate(**REQUEST))
    with_us, without = webui.circumstances(), plain_webui.circumstances()
    for name in [name for name in with_us["options"] if name.startswith("multipass_")]:  # settings of our own
        del with_us["options"][name]
    for told in ("options", "checkpoint"):
        assert with_us[told] == without[told]
    # of the modules that both have imported by now
    both = with_us["functions"].keys() & without["functions"].keys()
    assert {name: with_us["functions"][name] for name in both} == {name: without["functions"][name] for name in both}
    assert len(both) > 1000
    config, plain_config = json.loads(with_us["config.json"]), json.loads(without["config.json"])
    assert {name: value for name, value in config.items() if not name.startswith("multipass_")} == plain_config


@pytest.mark.parametrize("args", [[False, a_then_b(0.5)], [False], [True, ""], [None], [True]], ids=repr)
def test_c1_false_or_no_plan_is_off(webui: Webui, args: list[Any]) -> None:
    off = webui.generate(plan=args, **REQUEST)
    assert off.same_picture(webui.generate(**REQUEST))
    assert "Multipass" not in off.infotexts[0]


def test_c2_one_pass_without_overrides_is_no_plan(webui: Webui) -> None:
    assert webui.generate_unchanged(plan=plan({}), **REQUEST).same_picture(webui.generate(**REQUEST))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    ("sampler", "at"), [(sampler, at) for sampler in SAMPLERS for at in sampler.boundaries()], ids=str
)
def test_c3_two_passes_are_the_builtin_refiner(webui: Webui, sampler: Sampler, at: float, unit: str) -> None:
    """Of the samplers that take two evaluations a step, by steps and at a boundary: the Refiner switches inside too."""
    request = asking_for(webui, sampler)
    if sampler.unlike:
        pytest.skip(f"{sampler}: {sampler.unlike}")
    if unit != "steps" and not sampler.is_first_order:
        pytest.skip("the Refiner switches inside a step")
    ours = webui.generate_unchanged(plan=a_then_b(at, unit), **request)
    refiner = webui.generate(**refined(webui, at, unit), **request)
    assert ours.evaluations == refiner.evaluations
    assert ours.same_picture(refiner)
    assert len(set(ours.evaluations)) == 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_c3_with_every_schedule_type(webui: Webui, schedule: str) -> None:
    if not HOSTS[webui.install.host].schedules:
        pytest.skip("this host has no schedule types")
    request = {**REQUEST, "scheduler": schedule}
    ours = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    assert ours.same_picture(webui.generate(**refined(webui, 0.5), **request))
    assert len(set(ours.evaluations)) == 2


def test_c3_ddim_with_steps_that_do_not_divide_a_thousand(webui: Webui) -> None:
    """The host runs 62 steps when asked for 60 (and 9 when asked for 10); its fractions are of what it was asked."""
    request = {**REQUEST, "sampler_name": "DDIM", "steps": 60}
    ours = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    refiner = webui.generate(**refined(webui, 0.5), **request)
    assert len(ours.evaluations) == 62
    assert ours.same_picture(refiner)


def test_c3_restart_rises_again_and_a_boundary_fires_once(webui: Webui) -> None:
    """From 20 steps on Restart goes back up to noisier levels."""
    request = {**REQUEST, "sampler_name": "Restart", "steps": 20}
    ours = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    refiner = webui.generate(**refined(webui, 0.5), **request)
    assert [name for name, _ in runs(ours)] == ["soft", "ink"]
    assert ours.same_picture(refiner)
    low = webui.generate_unchanged(plan=a_then_b(1.5, "sigma"), **request)
    assert [name for name, _ in runs(low)] == ["soft", "ink"]


@pytest.mark.parametrize("unit", ["timestep", "steps"])
def test_c3_with_hires_fix(webui: Webui, unit: str) -> None:
    """The Refiner's "first pass" option; both name the hires checkpoint, because what they mean without one differs."""
    request = {**REQUEST, **hires(webui), "hr_checkpoint_name": "noise1"}
    ours = webui.generate_unchanged(plan=a_then_b(0.5, unit), **request)
    refiner = webui.generate(**refined(webui, 0.5, unit, hires_fix_refiner_pass="first pass"), **request)
    assert [name for name, _ in runs(ours)] == ["soft", "ink", "noise1"]
    assert ours.same_picture(refiner)


def test_hires_without_a_checkpoint_of_its_own_stays_on_the_last_pass(webui: Webui) -> None:
    request = {**REQUEST, **hires(webui)}
    chosen = webui.generate(plan=a_then_b(0.5), hr_checkpoint_name="ink", **request)
    inherited = webui.generate_unchanged(plan=a_then_b(0.5), **request)
    assert inherited.same_picture(chosen)
    with_text = webui.generate(plan=a_then_b(0.5, prompt="a rocket"), **request)
    asked = webui.generate(plan=a_then_b(0.5, prompt="a rocket"), hr_prompt="a rocket", **request)
    assert with_text.same_picture(asked)
    assert not with_text.same_picture(inherited)


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
@pytest.mark.parametrize("sampler", FEW, ids=str)
def test_c5_the_same_checkpoint_in_every_pass_is_that_checkpoint(
    webui: Webui, picture: str, sampler: Sampler, kind: str
) -> None:
    request = asking_for(webui, sampler)
    if kind == "img2img":
        request |= {"init_images": [picture], "denoising_strength": 0.7}
    same = plan({}, {"switch_at": 0.3}, {"switch_at": 0.6, "checkpoint": "soft"})
    ours = webui.generate_unchanged(kind, plan=same, **request)
    assert ours.same_picture(webui.generate(kind, **request))


@pytest.mark.parametrize("unit", ["steps", "timestep", "step"])
def test_c7_from_the_start_is_b_alone_and_at_the_end_a_alone(webui: Webui, unit: str) -> None:
    end = STEPS if unit == "step" else 1
    only_b = webui.generate_unchanged(plan=a_then_b(0, unit), **REQUEST)
    assert runs(only_b) == [("ink", STEPS)]
    assert only_b.same_picture(alone(webui, "ink"))
    only_a = webui.generate_unchanged(plan=a_then_b(end, unit), **REQUEST)
    assert runs(only_a) == [("soft", STEPS)]
    assert only_a.same_picture(alone(webui, "soft"))


@pytest.mark.parametrize(("sampler", "steps"), [("UniPC", 30), ("PLMS", 30), ("DDIM", 60)])
def test_c7_the_end_is_a_alone_where_the_sampler_runs_more_than_asked(webui: Webui, sampler: str, steps: int) -> None:
    request = {**REQUEST, "sampler_name": sampler, "steps": steps}
    only_a = webui.generate(plan=a_then_b(1), **request)
    assert set(only_a.evaluations) == {"soft"}
    assert len(only_a.evaluations) > steps


def test_c7_a_sigma_above_the_first_is_b_alone(webui: Webui) -> None:
    assert webui.generate_unchanged(plan=a_then_b(1000, "sigma"), **REQUEST).same_picture(alone(webui, "ink"))


def test_c7_in_img2img_b_encodes_the_picture(webui: Webui, picture: str) -> None:
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7}
    ours = webui.generate_unchanged("img2img", plan=a_then_b(0), **request)
    settings = {"override_settings": {"sd_model_checkpoint": "ink"}}
    assert ours.same_picture(webui.generate("img2img", **request, **settings))


# --- right ---------------------------------------------------------------------------------------------------------


def test_c9_there_and_back_repeats_and_leaves_a_as_it_was(webui: Webui) -> None:
    plain = webui.generate(**REQUEST)
    later = (("ink", 2), ("soft", 5), ("noise1", 7))
    there_and_back = plan({}, *({"checkpoint": name, "switch_at": at} for name, at in later), switch_unit="step")
    first = webui.generate_unchanged(plan=there_and_back, **REQUEST)
    assert runs(first) == [("soft", 2), ("ink", 3), ("soft", 2), ("noise1", 3)]
    assert webui.generate(plan=there_and_back, **REQUEST).same_picture(first)
    assert webui.generate(**REQUEST).same_picture(plain)


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_c8_the_steps_that_ran_are_the_steps_that_are_told(
    webui: Webui, picture: str, sampler: Sampler, kind: str
) -> None:
    later = (("b", "ink", 0.3), ("c", "noise1", 0.7))
    three = plan({"name": "a"}, *({"name": name, "checkpoint": own, "switch_at": at} for name, own, at in later))
    request = asking_for(webui, sampler)
    if kind == "img2img":
        request |= {"init_images": [picture], "denoising_strength": 0.9, "steps": 12}
    ours = webui.generate_unchanged(kind, plan=three, **request)
    told = re.search(r'Multipass passes: "?([^"]*?)"?, Multipass:', ours.infotexts[0])
    assert told is not None
    spans = [(int(first), int(last or first)) for first, last in re.findall(r"\] (\d+)(?:-(\d+))?", told[1])]
    assert [name for name, _ in runs(ours)] == ["soft", "ink", "noise1"]
    assert spans[0][0] == 1
    assert [first for first, _ in spans[1:]] == [last + 1 for _, last in spans[:-1]]
    if kind == "txt2img":
        expected = sampler.evaluations
        assert [count for _, count in runs(ours)] == [sum(expected[first - 1 : last]) for first, last in spans]


def test_c4_a_pass_holds_its_texts_from_its_first_step(webui: Webui) -> None:
    """The host's prompt editing acts one evaluation later than its Refiner: [a:b:k-1] for a boundary at step k."""
    texts = {"prompt": "a rocket", "negative_prompt": "an owl"}
    ours = webui.generate_unchanged(plan=a_then_b(5, "step", **texts), **REQUEST)
    edited = {"prompt": "[a red apple:a rocket:4]", "negative_prompt": "[a bus:an owl:4]"}
    refiner = webui.generate(**refined(webui, 0.5), **{**REQUEST, **edited})
    assert ours.same_picture(refiner)
    assert not ours.same_picture(webui.generate(plan=a_then_b(5, "step"), **REQUEST))


def test_the_first_pass_has_its_own_texts_and_the_picture_tells_the_requests(webui: Webui) -> None:
    own = plan({"prompt": "a rocket", "negative_prompt": ""}, common={"prompt": "blue", "negative_prompt": ""})
    ours = webui.generate_unchanged(plan=own, **REQUEST)
    asked = webui.generate(**{**REQUEST, "prompt": "a rocket, blue", "negative_prompt": ""})
    assert ours.same_picture(asked)
    assert ours.infotexts[0].startswith("a red apple\nNegative prompt: a bus\n")


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DDIM", "DDIM CFG++"])
def test_c10_a_pass_holds_its_cfg_from_its_first_evaluation_and_no_longer(webui: Webui, sampler: str) -> None:
    if sampler not in webui.samplers:
        pytest.skip(f"this host has no {sampler}")
    request = {**REQUEST, "sampler_name": sampler}
    first = 9 if sampler == "Heun" else 5
    multiplier = 1 / 12.5 if sampler == "DDIM CFG++" and not webui.install.is_forge_family else 1
    later = plan({}, {"switch_at": 4, "cfg_scale": 7}, switch_unit="step")
    ours = webui.generate_unchanged(plan=later, **request)
    reference = webui.generate_with({"kind": "cfg", "at": first, "scale": 7 * multiplier}, None, **request)
    assert ours.same_picture(reference)
    assert not ours.same_picture(webui.generate(**request))
    assert "CFG scale: 4" in ours.infotexts[0]


def test_c10_a_switch_inherits_the_cfg_of_its_head(webui: Webui) -> None:
    whole = webui.generate_unchanged(plan=plan({"cfg_scale": 7}), **REQUEST)
    assert whole.same_picture(webui.generate(**{**REQUEST, "cfg_scale": 7}))
    between = ({"cfg_scale": 7}, {"switch_at": 4, "cfg_scale": 3})
    inherits = webui.generate(plan=plan(*between, {"switch_at": 8}, switch_unit="step"), **REQUEST)
    says_it = webui.generate(plan=plan(*between, {"switch_at": 8, "cfg_scale": 7}, switch_unit="step"), **REQUEST)
    assert inherits.same_picture(says_it)
    assert not inherits.same_picture(webui.generate(plan=plan(*between, switch_unit="step"), **REQUEST))


def test_c10_a_pass_holds_its_clip_skip(webui: Webui) -> None:
    skipping = {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    whole = webui.generate_unchanged(plan=plan({"clip_skip": 2}), **REQUEST)
    assert whole.same_picture(webui.generate(**REQUEST, **skipping))
    second = webui.generate_unchanged(plan=a_then_b(0.5, clip_skip=2), **REQUEST)
    assert not second.same_picture(webui.generate(plan=a_then_b(0.5), **REQUEST))
    from_the_start = webui.generate_unchanged(plan=a_then_b(0, clip_skip=2), **REQUEST)
    settings = {"sd_model_checkpoint": "ink", **skipping["override_settings"]}
    assert from_the_start.same_picture(webui.generate(**REQUEST, override_settings=settings))
    both = plan({"clip_skip": 2}, {"checkpoint": "ink", "switch_at": 0.5})
    refiner = refined(webui, 0.5)
    refiner["override_settings"] |= skipping["override_settings"]
    assert webui.generate(plan=both, **REQUEST).same_picture(webui.generate(**refiner, **REQUEST))


@pytest.mark.parametrize("beside", ["nothing", "hires fix"])
def test_c12_each_picture_of_three_is_that_seed_alone(webui: Webui, beside: str) -> None:
    request = REQUEST if beside == "nothing" else {**REQUEST, **hires(webui)}
    three = webui.generate_unchanged(plan=a_then_b(0.5), n_iter=3, **request)
    singles = [webui.generate(plan=a_then_b(0.5), **{**request, "seed": 7 + i}) for i in range(3)]
    assert three.latents == tuple(latent for one in singles for latent in one.latents)
    assert three.pixels[-3:] == tuple(one.pixels[0] for one in singles)


def test_c13_the_plan_in_the_picture_renders_the_picture_again(webui: Webui) -> None:
    text = 'two, "quoted": words\nand a line'
    ours = webui.generate_unchanged(
        plan=a_then_b(0.5, name="ink, please", prompt=text, prompt_mode="append"), **REQUEST
    )
    quoted = re.search(r'Multipass: ("(?:\\.|[^\\"])+")', ours.infotexts[0])
    assert quoted is not None
    again = webui.generate(plan=json.loads(quoted[1]), **REQUEST)
    assert again.same_picture(ours)
    told = json.loads(json.loads(quoted[1]))
    assert [own["checkpoint"].split(" [")[0] for own in told["passes"]] == ["soft", "ink"]
    if not webui.install.is_forge:  # whose API fails on any infotext
        assert webui.generate(infotext=ours.infotexts[0]).same_picture(ours)


# --- restored ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 5, 6, 9])
@pytest.mark.parametrize("kind", ["raise", "interrupt", "skip"])
def test_c15_whatever_stops_a_picture_the_host_is_as_before(
    webui: Webui, unchanged: Callable[[], None], kind: str, at: int
) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind=kind, at=at)
    answer = webui.try_generate(plan=a_then_b(0.5), **REQUEST)
    evaluations = webui.state()["evaluations"]
    unchanged()
    if kind == "raise":
        assert answer.status_code == 500
        assert "injected" in answer.text
    else:
        assert answer.status_code == 200
        assert answer.json()["images"], "what was rendered so far is kept"
    assert evaluations == ["soft"] * min(at, 5) + ["ink"] * max(0, at - 5)
    assert webui.generate(**REQUEST).same_picture(plain)


def test_c15_a_checkpoint_that_cannot_be_read(webui: Webui, unchanged: Callable[[], None]) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind="load", at="noise2")
    broken = plan({}, {"checkpoint": "noise2", "switch_at": 0.5})
    answer = webui.try_generate(plan=broken, **REQUEST)
    assert answer.status_code == 500
    assert "cannot read" in answer.text
    unchanged()
    # read before anything is sampled where the weights are switched in place, else when its pass begins
    assert webui.state()["evaluations"] == (["soft"] * 5 if webui.install.is_forge_family else [])
    assert webui.generate(**REQUEST).same_picture(plain)


def test_c15_the_checkpoint_of_the_header_is_back_after_a_plan_without_it(webui: Webui) -> None:
    webui.generate_unchanged(plan=plan({"checkpoint": "noise1"}, {"checkpoint": "ink", "switch_at": 0.5}), **REQUEST)


PROMPTS = {"List of prompt inputs": "an owl\na bus"}
SEEDS = {"X type": 1, "X values": "7,8", "Y type": 0, "Z type": 0}


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("Loopback", LOOPBACK), ("Prompts from file or textbox", PROMPTS), ("X/Y/Z plot", SEEDS)],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_c15_after_the_hosts_scripts_that_render_several_times(
    webui: Webui, picture: str, script: str, arguments: dict[str, Any]
) -> None:
    """They render one request twice, or copies that are never closed; every one by the plan."""
    way = {"init_images": [picture], "denoising_strength": 0.9} if script == "Loopback" else {}
    more = {**webui.script(script, arguments), **way}
    answer = webui.generate_unchanged("img2img" if way else "txt2img", plan=a_then_b(0.5), **REQUEST, **more)
    assert [name for name, _ in runs(answer)] == ["soft", "ink"] * 2


@pytest.mark.parametrize("way", ["alone", "X/Y/Z plot"])
def test_c15_out_of_memory_when_the_picture_is_decoded(webui: Webui, unchanged: Callable[[], None], way: str) -> None:
    """The X/Y/Z plot renders copies, which nobody closes then, and leaves a cell empty."""
    plain = webui.generate(**REQUEST)
    script = webui.script(way, SEEDS) if way != "alone" else {}
    webui.arm(kind="decode")
    answer = webui.try_generate(plan=plan({"checkpoint": "noise1"}, a_then_b(0.5)["passes"][1]), **REQUEST, **script)
    assert answer.status_code == (200 if script else 500)
    if not script:
        unchanged()
    assert webui.generate(**REQUEST).same_picture(plain)


@pytest.mark.parametrize("scripts", ["scripts", "no scripts"])
def test_c15_a_copy_rendered_in_the_middle_is_not_the_plans(webui: Webui, scripts: str) -> None:
    if scripts == "no scripts" and webui.install.host == "reforge":
        pytest.skip("this host renders nothing without scripts")
    before = webui.circumstances()
    inside = webui.generate_with(
        {"kind": "copy", "at": scripts}, plan({}, {"checkpoint": "ink", "switch_at": 0.5}), **REQUEST
    )
    assert runs(inside) == [("soft", 5), ("ink", 15)]
    assert changes(before, webui.circumstances()) == {}
    plan_told = inside.infotexts[0].partition("Multipass: ")[2]
    assert plan_told.index("soft [") < plan_told.index("ink [")


def test_c15_the_option_when_the_request_keeps_its_overrides(webui: Webui) -> None:
    webui.generate_unchanged(plan=plan({"checkpoint": "noise1"}), override_settings_restore_afterwards=False, **REQUEST)


BREAKABLE = [
    ("conditioning.pass_texts", "any"),
    ("rendering.infotext_values", "any"),
    ("sampling._timesteps", "any"),
    ("passes.PlanRun", "any"),
    ("compat.prepare_loaded", "any"),
    ("networks.unmerge", "a1111"),
    ("inplace.weights.take", "a1111"),
    ("inplace.weights.point", "a1111"),
    ("inplace.weights.taking_in", "a1111"),
    ("inplace.weights.split", "a1111"),
    ("files.without_unet", "a1111"),
    ("architecture._same", "a1111"),
    ("inplace.weights._on", "a1111"),
    ("whole.sizes", "family"),
    ("whole.put_down", "family"),
    ("whole.form", "family"),
]


@pytest.mark.parametrize(("function", "host"), BREAKABLE, ids=[name for name, _ in BREAKABLE])
def test_c16_a_failure_of_ours_is_an_error_and_the_host_is_as_before(
    webui: Webui, unchanged: Callable[[], None], function: str, host: str
) -> None:
    if host not in ("any", "family" if webui.install.is_forge_family else "a1111"):
        pytest.skip(
            "weights are not switched in place"
            if host == "a1111"
            else "checkpoints of one architecture are switched in place"
        )
    plain = webui.generate(**REQUEST)
    clear_cache(webui)
    module, _, name = function.rpartition(".")
    path = {"inplace.weights": "multipass.cache.weights"}.get(module, f"multipass.hosts.webui.{module}")
    webui.arm(kind="break", at=f"{path}.{name}")
    answer = webui.try_generate(plan=a_then_b(0.5), **REQUEST)
    assert answer.status_code == 500
    assert "injected" in answer.text
    unchanged()
    assert set(webui.state()["evaluations"]) <= {"soft"}
    assert webui.generate(**REQUEST).same_picture(plain)


# --- refused -------------------------------------------------------------------------------------------------------

REFUSED = [
    ("{", "not JSON"),
    ({"version": 1}, "passes: required"),
    (a_then_b(1.5), "passes[1].switch_at: expected a number from 0 to 1, got 1.5"),
    (plan({}, {"switch_at": 0.5, "checkpont": "x"}), "passes[1].checkpont: unknown field"),
    (plan(*[{}] * 17), "passes: expected a list of 1 to 16 passes, got 17 of them"),
    (plan({"checkpoint": "sof"}), 'passes[0].checkpoint: the webui lists no checkpoint "sof"; did you mean "soft"?'),
    (plan({"checkpoint": "soft [0123456789]"}), 'passes[0].checkpoint: "soft" is there, but as ['),
    (plan({}, {"switch_at": 0.8}, {"switch_at": 0.2}), "passes[2].switch_at: Pass 3 would begin at step 3"),
    (plan({}, {"kind": "refine"}), "passes[1].denoising_strength: required: neither a pass before it nor the request"),
    (plan({"vae": "gone"}), "passes[0].vae: "),
]


@pytest.mark.parametrize(("refused", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_c24_refused_with_the_reason_before_anything_happens(
    webui: Webui, unchanged: Callable[[], None], refused: Any, reason: str
) -> None:
    webui.arm()
    answer = webui.try_generate(
        plan=refused, **REQUEST, override_settings={"sd_model_checkpoint": "noise2", "CLIP_stop_at_last_layers": 2}
    )
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    state = webui.state()
    assert state["evaluations"] == state["loads"] == []


def test_c24_a_refusal_outlives_what_other_extensions_do(webui: Webui, unchanged: Callable[[], None]) -> None:
    webui.arm(kind="settings")
    answer = webui.try_generate(plan=plan({"checkpoint": "gone"}), **REQUEST)
    assert answer.status_code == 422
    assert webui.state()["evaluations"] == []


def test_c24_the_builtin_refiner_at_the_same_time(webui: Webui, unchanged: Callable[[], None]) -> None:
    answer = webui.try_generate(plan=a_then_b(0.5), refiner_checkpoint="ink", refiner_switch_at=0.5, **REQUEST)
    assert answer.status_code == 422
    assert "turn it off" in answer.json()["detail"]


def test_c24_a_sampler_without_visible_boundaries(webui: Webui) -> None:
    answer = webui.try_generate(plan=a_then_b(0.5), **{**REQUEST, "sampler_name": "DPM adaptive"})
    assert answer.status_code == 422
    assert "no step boundary is visible" in answer.json()["detail"]


# --- the API -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [[a_then_b(0.5)], [True, a_then_b(0.5)], [json.dumps(a_then_b(0.5))], [True, json.dumps(a_then_b(0.5))]]
)
def test_the_forms_in_which_a_plan_may_be_sent(webui: Webui, args: list[Any]) -> None:
    assert runs(webui.generate(plan=args, **REQUEST)) == [("soft", 5), ("ink", 5)]


def test_the_script_is_listed_with_its_two_arguments(webui: Webui) -> None:
    listed = [script for script in webui.get("/sdapi/v1/script-info") if script["name"] == "multipass"]
    assert [script["is_img2img"] for script in listed] == [False, True]
    assert all(len(script["args"]) == 2 for script in listed)


@pytest.mark.parametrize("suffix", ["", ".safetensors", " [hash]", "hash", "sha256"])
def test_the_names_a_checkpoint_may_have(webui: Webui, suffix: str) -> None:
    webui.generate(plan=a_then_b(0.5), **REQUEST)  # hashed by now
    listed = next(model for model in webui.get("/sdapi/v1/sd-models") if model["model_name"] == "ink")
    names = {" [hash]": f"renamed [{listed['hash']}]", "hash": listed["hash"], "sha256": listed["sha256"]}
    name = names.get(suffix, f"ink{suffix}")
    assert runs(webui.generate(plan=plan({}, {"checkpoint": name, "switch_at": 0.5}), **REQUEST))[1] == ("ink", 5)
