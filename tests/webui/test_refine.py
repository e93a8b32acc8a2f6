"""Refine passes: a finished latent enlarged, made noisy and sampled again.

Where a test says `= the hires fix` it means bit-identical latents and pixels.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from PIL import Image, ImageChops, ImageStat

from tests.webui.asking import REQUEST, b64, clear_cache, hires, image_of, plan, runs, settings
from tests.webui.host import Answer, Webui
from tests.webui.samplers import HOSTS
from tests.webui.test_switch import needs_in_place

REFINE = {"kind": "refine", "denoising_strength": 0.6, "steps": 4}


def refine(**more: Any) -> dict[str, Any]:
    return {**REFINE, "scale": 2, "upscaler": "Latent", **more}


def by_hires(webui: Webui, **more: Any) -> Answer:
    """The host's hires fix; its sampler and schedule where none is asked for are the request's."""
    return webui.generate(**{**REQUEST, **hires(webui), **more})


def recorded(webui: Webui, image: int = 0) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What the last run tells of a picture's passes, and the pixels of each."""
    run = webui.get("/multipass/v1/runs/latest")
    passes = run["images"][image]["passes"]
    pictures: list[bytes] = []
    for index in range(len(passes)):
        answer = requests.get(f"{webui.url}/multipass/v1/runs/{run['run']}/{index}/{image}", timeout=60)
        answer.raise_for_status()
        pictures.append(Image.open(io.BytesIO(answer.content)).convert("RGB").tobytes())
    return passes, pictures


def size(pixels: bytes) -> int:
    return len(pixels) // 3


def furthest(one: bytes, other: bytes) -> int:
    """The largest difference of two pictures, of 255."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


# --- the same as the host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "upscaler",
    ["Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (nearest-exact)", "Lanczos", "Nearest", "None"],
)
def test_c6_every_way_to_enlarge_is_the_hires_fix(webui: Webui, upscaler: str) -> None:
    ours = webui.generate_unchanged(plan=plan({}, refine(upscaler=upscaler)), **REQUEST)
    host = by_hires(webui, hr_upscaler=upscaler)
    assert runs(ours) == runs(host) == [("soft", 14)]
    assert ours.pixels == host.pixels
    assert size(ours.pixels[0]) == 256 * 128


@pytest.mark.parametrize("scale", [1.5, 2])
def test_c6_a_model_that_enlarges_is_the_hires_fixs(webui: Webui, scale: float) -> None:
    """ESRGAN, which enlarges four times, and is cut down to what was asked."""
    own = refine(scale=scale, checkpoint="ink")
    ours = webui.generate_unchanged(plan=plan({}, {**own, "upscaler": "enlarger"}), **REQUEST)
    host = by_hires(webui, hr_upscaler="enlarger", hr_scale=scale, hr_checkpoint_name="ink")
    assert runs(ours) == runs(host) == [("soft", 10), ("ink", 4)]
    assert ours.pixels == host.pixels
    resampled = webui.generate(plan=plan({}, {**own, "upscaler": "Lanczos"}), **REQUEST)
    assert furthest(ours.pixels[0], resampled.pixels[0]) > 20, "the host resamples where it cannot read the model"


SAME = [
    ({}, {}),
    ({"checkpoint": "ink"}, {"hr_checkpoint_name": "ink"}),
    ({"sampler_name": "Euler a"}, {"hr_sampler_name": "Euler a"}),
    ({"sampler_name": "DPM++ 2M", "scheduler": "karras"}, {"hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras"}),
    ({"scheduler": "Exponential"}, {"hr_scheduler": "Exponential"}),
    ({"sampler_name": "DDIM", "steps": 7}, {"hr_sampler_name": "DDIM", "hr_second_pass_steps": 7}),
    ({"steps": None}, {"hr_second_pass_steps": 0}),
    ({"denoising_strength": 0.3}, {"denoising_strength": 0.3}),
    ({"denoising_strength": 1}, {"denoising_strength": 1}),
    ({"prompt": "a rocket", "negative_prompt": "an owl"}, {"hr_prompt": "a rocket", "hr_negative_prompt": "an owl"}),
    ({"prompt": "[a rocket:an owl:0.5]"}, {"hr_prompt": "[a rocket:an owl:1.5]"}),
    ({"prompt": "a rocket <lora:one:0.8>"}, {"hr_prompt": "a rocket <lora:one:0.8>"}),
    (
        {"checkpoint": "ink", "prompt": "a fox <lora:one:0.8>", "upscaler": "Lanczos", "scale": 1.5},
        {"hr_checkpoint_name": "ink", "hr_prompt": "a fox <lora:one:0.8>", "hr_upscaler": "Lanczos", "hr_scale": 1.5},
    ),
    ({"checkpoint": "ink", "upscaler": "Lanczos"}, {"hr_checkpoint_name": "ink", "hr_upscaler": "Lanczos"}),
    (
        {"prompt": "a <lora:one:0.8>", "upscaler": "Lanczos"},
        {"hr_prompt": "a <lora:one:0.8>", "hr_upscaler": "Lanczos"},
    ),
    ({"scale": 1.5, "upscaler": "Lanczos"}, {"hr_scale": 1.5, "hr_upscaler": "Lanczos"}),
    ({"scale": 1, "upscaler": None}, {"hr_scale": 1}),
    ({"scale": 1.3}, {"hr_scale": 1.3}),
]


@pytest.mark.parametrize(("own", "asked"), SAME, ids=[json.dumps(own) for own, _ in SAME])
def test_c6_what_a_pass_has_of_its_own_is_what_the_hires_fix_has(
    webui: Webui, own: dict[str, Any], asked: dict[str, Any]
) -> None:
    if "scheduler" in own and not HOSTS[webui.install.host].schedules:
        pytest.skip("this host has no schedule types")
    asked_of_pass = {name: value for name, value in refine(**own).items() if value is not None}
    ours = webui.generate_unchanged(plan=plan({}, asked_of_pass), **REQUEST)
    host = by_hires(webui, **asked)
    assert runs(ours) == runs(host)
    assert ours.pixels == host.pixels


SETTINGS = [
    {"token_merging_ratio_hr": 0.5},
    {"token_merging_ratio": 0.5},
    {"eta_noise_seed_delta": 31337},
    {"img2img_extra_noise": 0.1},
    {"CLIP_stop_at_last_layers": 2},
    {"use_old_scheduling": True},
    {"sd_noise_schedule": "Zero Terminal SNR"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda own: next(iter(own)))
def test_c6_the_hosts_settings_act_as_in_the_hires_fix(webui: Webui, settings: dict[str, Any]) -> None:
    own = {"prompt": "a fox", "sampler_name": "Euler a"}
    asked = {"hr_prompt": own["prompt"], "hr_sampler_name": "Euler a", "override_settings": settings}
    ours = webui.generate(plan=plan({}, refine(**own)), **REQUEST, override_settings=settings)
    assert ours.pixels == by_hires(webui, **asked).pixels
    if not webui.install.is_forge:  # whose API fails on any infotext
        assert webui.generate(infotext=ours.infotexts[0]).pixels == ours.pixels


OF_REQUEST = [
    {"subseed": 3, "subseed_strength": 0.5},
    {"tiling": True},
    {"seed_resize_from_w": 64, "seed_resize_from_h": 64},
]


@pytest.mark.parametrize("more", OF_REQUEST, ids=lambda own: next(iter(own)))
def test_c6_what_the_request_says_acts_as_in_the_hires_fix(webui: Webui, more: dict[str, Any]) -> None:
    ours = webui.generate_unchanged(plan=plan({}, refine(upscaler="Nearest")), **REQUEST, **more)
    assert ours.pixels == by_hires(webui, hr_upscaler="Nearest", **more).pixels


def test_c6_what_a_pass_leaves_out_is_the_requests(webui: Webui) -> None:
    request = {"sampler_name": "Euler a", "prompt": "[a rocket:an owl:0.5] <lora:two:1>", "cfg_scale": 6}
    forge = {"hr_cfg": 6} if webui.install.host in ("forge", "reforge") else {}
    ours = webui.generate_unchanged(plan=plan({}, refine()), **{**REQUEST, **request})
    edited = {"hr_prompt": "[a rocket:an owl:1.5] <lora:two:1>"}
    assert ours.pixels == by_hires(webui, **request, **forge, **edited).pixels


def test_c6_after_a_switch_it_goes_on_as_the_hires_fix_does(webui: Webui) -> None:
    to_ink = {"checkpoint": "ink", "switch_at": 0.5, "cfg_scale": 4}
    ours = webui.generate_unchanged(plan=plan({}, to_ink, refine()), **REQUEST)
    host = webui.generate(plan=plan({}, to_ink), **REQUEST, **hires(webui))
    assert runs(ours) == runs(host) == [("soft", 5), ("ink", 9)]
    assert ours.pixels == host.pixels


# --- right ---------------------------------------------------------------------------------------------------------

# two checkpoints and another sampler in each of three trajectories, of which the second is enlarged in pixels
CHAIN = plan(
    {"name": "base"},
    {"name": "ink", "checkpoint": "ink", "switch_at": 0.5},
    refine(name="large", sampler_name="Euler a", upscaler="Lanczos", scale=1.5, checkpoint="soft", steps=6),
    {"name": "noise", "checkpoint": "noise1", "switch_at": 0.5, "prompt": "a rocket <lora:one:0.5>"},
    refine(name="fine", sampler_name="Heun", denoising_strength=0.4, scale=1, upscaler=None, checkpoint="ink", steps=4),
    {"name": "last", "checkpoint": "soft", "switch_at": 2, "switch_unit": "step", "cfg_scale": 6},
)
CHAIN_RUNS = [("soft", 5), ("ink", 5), ("soft", 3), ("noise1", 3), ("ink", 4), ("soft", 3)]


def told(answer: Answer) -> str:
    found = re.search(r'Multipass passes: "?([^"]*?)"?, Multipass:', answer.infotexts[0])
    assert found is not None
    return re.sub(r" \w+ \[\w+\]", "", found[1])


def test_c8_each_trajectory_runs_the_steps_that_are_announced(webui: Webui) -> None:
    ours = webui.generate_unchanged(plan=CHAIN, **REQUEST)
    assert runs(ours) == CHAIN_RUNS
    answer = webui.post("/multipass/v1/validate", {"plan": CHAIN, "steps": 10, "sampler_name": "Euler"}).json()
    ranges = [(own["name"], own["first_step"], own["end_step"]) for own in answer["passes"]]
    assert ranges == [
        ("base", 0, 5), ("ink", 5, 10), ("large", 0, 3), ("noise", 3, 6), ("fine", 0, 2), ("last", 2, 4),
    ]  # fmt: skip
    assert told(ours) == "base 1-5; ink 6-10; large 1-3; noise 4-6; fine 1-2; last 3-4"


def test_every_pass_of_a_chain_is_on_record_with_its_picture(webui: Webui) -> None:
    webui.generate(plan=CHAIN, **REQUEST)
    passes, pictures = recorded(webui)
    assert [own["name"] for own in passes] == [own["name"] for own in CHAIN["passes"]]
    assert [own["kind"] for own in passes] == ["first", "switch", "refine", "switch", "refine", "switch"]
    assert [own["through"] for own in passes] == [None, None, "pixels", None, "latent", None]
    assert [size(pixels) for pixels in pictures] == [128 * 64] * 2 + [192 * 96] * 4


def test_c9_a_chain_repeats_and_leaves_nothing_behind(webui: Webui) -> None:
    plain = webui.generate(**REQUEST)
    first = webui.generate_unchanged(plan=CHAIN, **REQUEST)
    assert webui.generate(plan=CHAIN, **REQUEST).same_picture(first)
    assert webui.generate(**REQUEST).same_picture(plain)


def test_c10_a_switch_within_a_refine_pass_is_a_switch(webui: Webui) -> None:
    """As in any trajectory: the same checkpoint, and 0 and 1, are no switch."""
    only = webui.generate(plan=plan({}, refine(checkpoint="ink")), **REQUEST)
    same = plan({}, refine(checkpoint="ink"), {"switch_at": 0.5})
    assert webui.generate(plan=same, **REQUEST).same_picture(only)
    at_once = plan({}, refine(checkpoint="noise1"), {"checkpoint": "ink", "switch_at": 0})
    assert webui.generate(plan=at_once, **REQUEST).same_picture(only)
    never = plan({}, refine(checkpoint="ink"), {"checkpoint": "noise1", "switch_at": 1, "prompt": "an owl"})
    assert webui.generate(plan=never, **REQUEST).same_picture(only)


def test_c10_the_texts_cfg_and_clip_skip_of_a_pass_are_in_that_pass_alone(webui: Webui) -> None:
    """The hires fix with a request that has them, on a picture from a request that has not."""
    own = {"prompt": "a rocket <lora:two:1>", "cfg_scale": 7, "clip_skip": 2}
    ours = webui.generate_unchanged(plan=plan({}, refine(**own), refine(scale=1, prompt="a red apple")), **REQUEST)
    again = webui.generate(plan=plan({}, refine(**own), refine(scale=1, **own | {"prompt": "a red apple"})), **REQUEST)
    assert ours.same_picture(again), "a head inherits CFG and clip skip from the head before"
    back = {"prompt": "a red apple", "cfg_scale": 4, "clip_skip": 1}
    assert not webui.generate(plan=plan({}, refine(**own), refine(scale=1, **back)), **REQUEST).same_picture(ours)
    assert not webui.generate(plan=plan({}, refine(), refine(scale=1)), **REQUEST).same_picture(ours)


def test_c10_the_last_pass_s_vae_decodes_and_a_pass_s_own_encodes(webui: Webui) -> None:
    needs_in_place(webui)
    plain = webui.generate(plan=plan({}, refine()), **REQUEST)
    own = webui.generate_unchanged(plan=plan({}, refine(vae="other.vae")), **REQUEST)
    assert own.latents == plain.latents
    other = {"override_settings": {"sd_vae": "other.vae.safetensors"}}
    assert own.pixels == webui.generate(plan=plan({}, refine()), **REQUEST, **other).pixels != plain.pixels
    first = webui.generate_unchanged(plan=plan({"vae": "other.vae"}, refine(vae="None")), **REQUEST)
    assert first.same_picture(plain), "a latent is not touched by a VAE"


@pytest.mark.usefixtures("computed")
def test_a_strength_of_0_only_enlarges(webui: Webui) -> None:
    only = {"denoising_strength": 0, "checkpoint": "ink"}
    ours = webui.generate_unchanged(plan=plan({}, refine(**only, upscaler="Nearest"), {"switch_at": 0.5}), **REQUEST)
    plain = webui.generate(**REQUEST)
    assert runs(ours) == [("soft", 10)]
    large = Image.frombytes("RGB", (256, 128), ours.pixels[0])
    small = Image.frombytes("RGB", (128, 64), plain.pixels[0]).resize((256, 128), Image.Resampling.NEAREST)
    assert max(ImageStat.Stat(ImageChops.difference(large, small)).mean) < 8
    told_of, pictures = recorded(webui)
    assert [(own["kind"], own["end_step"], own["unet_evaluations"], own["through"]) for own in told_of] == [
        ("first", 10, 10, None),
        ("refine", 0, 0, "pixels"),
    ]
    assert (told_of[1]["first_step"], told_of[1]["sigma_in"], told_of[1]["sigma_out"]) == (0, 0, 0)
    assert told_of[1]["checkpoint"] == told_of[0]["checkpoint"], "what decoded it"
    assert pictures == [plain.pixels[0], ours.pixels[0]]
    request = {"plan": plan({}, refine(**only), {"switch_at": 0.5}), "steps": 10, "sampler_name": "Euler"}
    passes = webui.post("/multipass/v1/validate", request).json()["passes"]
    assert [(own["first_step"], own["end_step"]) for own in passes] == [(0, 10), (0, 0), (0, 0)]


@pytest.mark.usefixtures("computed")
def test_a_strength_of_0_between_two_passes_is_on_record(webui: Webui) -> None:
    only = {"denoising_strength": 0, "name": "large"}
    own = plan({}, refine(**only), refine(scale=1, upscaler=None, checkpoint="ink"))
    ours = webui.generate_unchanged(plan=own, **REQUEST)
    told_of, pictures = recorded(webui)
    assert [(own["name"], own["unet_evaluations"], own["through"]) for own in told_of] == [
        ("Pass 1", 10, None),
        ("large", 0, "latent"),
        ("Pass 3", 4, "latent"),
    ]
    assert [size(pixels) for pixels in pictures] == [128 * 64, 256 * 128, 256 * 128]
    assert pictures[1] == webui.generate(plan=plan({}, refine(**only)), **REQUEST).pixels[0]
    assert pictures[2] == ours.pixels[0] != pictures[1]
    at_once = webui.generate(plan=plan({}, refine(checkpoint="ink")), **REQUEST)
    assert at_once.same_picture(ours), "enlarged by a pass of its own"
    assert webui.generate_unchanged(plan={**own, "save_passes": False}, **REQUEST).same_picture(ours)


def test_a_later_pass_has_another_noise(webui: Webui) -> None:
    """The host's img2img of a picture adds the noise that the picture began with."""
    pixel = {"scale": 1, "upscaler": "None", "denoising_strength": 0.5, "checkpoint": "soft"}
    once = webui.generate(plan=plan({}, refine(**pixel)), **REQUEST)
    again = {
        "init_images": [png(once, 128, 64)], "denoising_strength": 0.5, "steps": 4,
        "override_settings": {"img2img_fix_steps": True},
    }  # fmt: skip
    same_noise = webui.generate("img2img", **{**REQUEST, **again})
    twice = webui.generate(plan=plan({}, refine(**pixel), refine(**pixel)), **REQUEST)
    assert runs(twice) == [("soft", 18)]
    assert not twice.same_picture(same_noise)


@pytest.mark.parametrize("beside", ["nothing", "hires fix"])
def test_c12_each_picture_of_three_is_that_seed_alone_through_all_passes(webui: Webui, beside: str) -> None:
    request = REQUEST if beside == "nothing" else {**REQUEST, **hires(webui)}
    if not webui.install.is_forge_family:
        clear_cache(webui)
    three = webui.generate_unchanged(plan=CHAIN, n_iter=3, **request)
    singles = [webui.generate(plan=CHAIN, **{**request, "seed": 7 + i}) for i in range(3)]
    assert three.latents == tuple(latent for one in singles for latent in one.latents)
    assert three.pixels[-3:] == tuple(one.pixels[0] for one in singles)


def test_c12_a_batch_is_as_near_as_the_hosts_own(webui: Webui) -> None:
    own = plan({}, refine(sampler_name="Euler a"), refine(scale=1, upscaler=None, denoising_strength=0.4))
    ours = webui.generate(plan=own, batch_size=3, **REQUEST)
    alone = [webui.generate(plan=own, **{**REQUEST, "seed": 7 + i}) for i in range(3)]
    assert max(furthest(one, other.pixels[0]) for one, other in zip(ours.pixels[-3:], alone, strict=True)) <= 4


def test_c13_the_plan_in_the_picture_renders_the_picture_again(webui: Webui) -> None:
    request = {**REQUEST, "sampler_name": "DPM++ 2M", "prompt": "a red apple <lora:one:0.5>"}
    ours = webui.generate_unchanged(plan=CHAIN, **request)
    quoted = re.search(r'Multipass: ("(?:\\.|[^\\"])+")', ours.infotexts[0])
    assert quoted is not None
    assert webui.generate(plan=json.loads(quoted[1]), **request).same_picture(ours)
    for told_of_request in ("Steps: 10", "Sampler: DPM++ 2M", "CFG scale: 4", "Size: 128x64"):
        assert re.search(rf"{re.escape(told_of_request)}(\.0)?,", ours.infotexts[0])
    assert "Denoising strength" not in ours.infotexts[0]
    if not webui.install.is_forge:  # whose API fails on any infotext
        assert webui.generate(infotext=ours.infotexts[0]).same_picture(ours)


def test_after_the_hires_fix_its_latent_goes_on(webui: Webui) -> None:
    """Enlarged by the hires fix and then by a pass of strength 0: the hires fix alone, and no VAE between."""
    request = {**REQUEST, **hires(webui)}
    alone = webui.generate(**request)
    nothing_more = refine(scale=1, upscaler=None, denoising_strength=0)
    through = webui.generate_unchanged(plan=plan({}, nothing_more), **request)
    assert through.pixels == alone.pixels
    ours = webui.generate_unchanged(
        plan=plan({}, refine(scale=1.5, denoising_strength=0.4, checkpoint="ink")), **request
    )
    assert runs(ours) == [("soft", 14), ("ink", 4)]
    assert size(ours.pixels[0]) == 384 * 192
    inheriting = plan({}, {"kind": "refine", "steps": 4})
    asked = {"plan": inheriting, "steps": 10, "sampler_name": "Euler", "enable_hr": True}
    assert webui.post("/multipass/v1/validate", asked).json()["passes"][1]["end_step"] == 4
    inherits = webui.generate(plan=inheriting, **request)
    says_it = webui.generate(plan=plan({}, {"kind": "refine", "steps": 4, "denoising_strength": 0.6}), **request)
    assert inherits.same_picture(says_it)


# --- img2img and inpainting ----------------------------------------------------------------------------------------


def png(answer: Answer, width: int, height: int) -> str:
    return b64(Image.frombytes("RGB", (width, height), answer.pixels[0]))


def test_in_img2img_a_pass_by_pixels_is_img2img_of_the_picture(webui: Webui, picture: str) -> None:
    """As good as, which encodes it with other numbers of the generator: with the same noise, that of the hires fix."""
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7}
    ours = webui.generate_unchanged("img2img", plan=plan({}, refine(scale=1, upscaler="None")), **request)
    first = webui.generate("img2img", **request)
    more = {"init_images": [png(first, 128, 64)], "denoising_strength": 0.6, "steps": 4}
    fixed = {"img2img_fix_steps": True}
    second = webui.generate("img2img", **{**REQUEST, **more, "override_settings": fixed})
    assert furthest(ours.pixels[0], second.pixels[0]) <= 4
    another_noise = webui.generate("img2img", **{**REQUEST, **more, "seed": 8, "override_settings": fixed})
    assert furthest(ours.pixels[0], another_noise.pixels[0]) > 20


def test_in_img2img_the_first_pass_may_be_sampled_otherwise(webui: Webui, picture: str) -> None:
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7}
    own = {"steps": 14, "sampler_name": "Euler a", "scheduler": "Karras", "denoising_strength": 0.5}
    if webui.install.host == "classic":
        own = {"steps": 14, "sampler_name": "DPM++ 2M Karras", "denoising_strength": 0.5}
    asked = webui.generate("img2img", **{**request, **own})
    ours = webui.generate_unchanged("img2img", plan=plan(own), **request)
    assert ours.same_picture(asked)
    for told_of_request in ("Steps: 10", "Sampler: Euler", "Denoising strength: 0.7"):
        assert f"{told_of_request}," in ours.infotexts[0]
    two = webui.generate("img2img", plan=plan(own), n_iter=2, **request)
    assert two.latents[0] == ours.latents[0]
    inherited = plan(own, {"kind": "refine"})
    said = plan(own, {"kind": "refine", **own})
    assert webui.generate("img2img", plan=inherited, **request).same_picture(
        webui.generate("img2img", plan=said, **request)
    )


def mask() -> str:
    """Its right half is painted anew."""
    whole = Image.new("L", (128, 64), 0)
    whole.paste(255, (64, 0, 128, 64))
    return b64(whole)


def inpainting(picture: str, **more: Any) -> dict[str, Any]:
    return {
        **REQUEST, "init_images": [picture], "mask": mask(), "mask_blur": 0, "inpainting_fill": 1,
        "inpaint_full_res": False, "denoising_strength": 0.7, **more,
    }  # fmt: skip


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_mask_holds_in_later_passes(webui: Webui, picture: str, scale: int, upscaler: str) -> None:
    """What is not masked is the init image, to the bit, as the host lays it over its own inpainting at that size."""
    way = {"scale": scale, "upscaler": upscaler, "checkpoint": "ink"}
    passes = plan({}, refine(**way), refine(scale=1, denoising_strength=0.3))
    ours = webui.generate_unchanged("img2img", plan=passes, n_iter=2, **inpainting(picture))
    width, height = 128 * scale, 64 * scale
    host = webui.generate("img2img", **inpainting(picture, width=width, height=height))
    without = webui.generate("img2img", **inpainting(picture, denoising_strength=0.01))
    for pixels in ours.pixels[-2:]:
        found = Image.frombytes("RGB", (width, height), pixels)
        expected = Image.frombytes("RGB", (width, height), host.pixels[0])
        kept = (0, 0, width // 2 - 8 * scale, height)
        assert found.crop(kept).tobytes() == expected.crop(kept).tobytes()
        anew = found.crop((width // 2, 0, width, height)).resize((64, 64))
        before = Image.frombytes("RGB", (128, 64), without.pixels[0]).crop((64, 0, 128, 64))
        assert max(high for _, high in ImageChops.difference(anew, before).getextrema()) > 20


def test_the_masked_part_of_a_picture_is_pasted_back_into_the_whole(webui: Webui, picture: str) -> None:
    """Only the masked area is rendered, and refined, at whatever size; the picture keeps its own."""
    request = inpainting(picture, inpaint_full_res=True, inpaint_full_res_padding=8)
    ours = webui.generate_unchanged("img2img", plan=plan({}, refine()), **request)
    plain = webui.generate("img2img", **request)
    assert size(ours.pixels[0]) == size(plain.pixels[0]) == 128 * 64
    left = (0, 0, 60, 64)
    kept = [Image.frombytes("RGB", (128, 64), one.pixels[0]).crop(left).tobytes() for one in (ours, plain)]
    assert kept[0] == kept[1]
    assert ours.pixels != plain.pixels


# --- restored ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 10, 11, 13, 14, 17])
@pytest.mark.parametrize("kind", ["raise", "interrupt", "skip"])
def test_c15_whatever_stops_a_refine_pass_the_host_is_as_before(
    webui: Webui, unchanged: Callable[[], None], kind: str, at: int
) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind=kind, at=at)
    answer = webui.try_generate(plan=CHAIN, **REQUEST)
    evaluations = webui.state()["evaluations"]
    unchanged()
    assert answer.status_code == (500 if kind == "raise" else 200)
    if kind != "raise":
        body = answer.json()
        image = image_of(body["images"][0])
        assert image.size == ((128, 64) if at <= 10 else (192, 96)), "what was rendered so far is kept"
    assert len(evaluations) == at
    assert webui.generate(**REQUEST).same_picture(plain)


BREAKABLE = ["refining.sampled", "refining.encoded", "refining.enlarged_latent", "heads.fields", "heads.sizes"]


@pytest.mark.parametrize("function", BREAKABLE)
def test_c16_a_failure_of_ours_between_the_passes(webui: Webui, unchanged: Callable[[], None], function: str) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind="break", at=f"multipass.hosts.webui.{function}")
    answer = webui.try_generate(plan=CHAIN, **REQUEST)
    assert answer.status_code == 500
    assert "injected" in answer.text
    unchanged()
    assert webui.generate(**REQUEST).same_picture(plain)


def test_c15_a_checkpoint_of_a_later_pass_that_cannot_be_read(webui: Webui, unchanged: Callable[[], None]) -> None:
    plain = webui.generate(**REQUEST)
    webui.arm(kind="load", at="noise2")
    answer = webui.try_generate(plan=plan({}, refine(checkpoint="noise2")), **REQUEST)
    assert answer.status_code == 500
    assert "cannot read" in answer.text
    unchanged()
    assert webui.generate(**REQUEST).same_picture(plain)


# --- refused -------------------------------------------------------------------------------------------------------

REFUSED = [
    (refine(sampler_name="Eular"), "passes[1].sampler_name", 'the webui has no sampler "Eular"; did you mean "Euler"?'),
    (refine(sampler_name="DPM adaptive"), "passes[1].sampler_name", "multipass cannot switch inside DPM adaptive"),
    (refine(scheduler="Karos"), "passes[1].scheduler", 'the webui has no schedule type "Karos"'),
    (refine(upscaler="Lanczo"), "passes[1].upscaler", 'the webui has no upscaler "Lanczo"; did you mean "Lanczos"?'),
    (refine(denoising_strength=None), "passes[1].denoising_strength", "required: "),
    (refine(sampler_name="DDIM", denoising_strength=0.001), "passes[1].denoising_strength", "too low for 4 steps: "),
    (refine(sampler_name="DDIM", steps=1), "passes[1].steps", "too few: DDIM runs no step"),
    (refine(scale=0.25), "passes[1].scale", "expected sides from 64 to 16384 pixels, got 32x16"),
    (refine(checkpoint="gone"), "passes[1].checkpoint", "the webui lists no checkpoint"),
    ({"kind": "subject"}, "passes[1].target", "a subject pass needs a target to find, or a mask"),
]


@pytest.mark.parametrize(("second", "path", "message"), REFUSED, ids=[path for _, path, _ in REFUSED])
def test_c24_refused_with_its_place_before_anything_is_rendered(
    webui: Webui, unchanged: Callable[[], None], second: dict[str, Any], path: str, message: str
) -> None:
    webui.arm()
    asked = plan({}, {name: value for name, value in second.items() if value is not None})
    answer = webui.try_generate(plan=asked, **REQUEST)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{path}: {message}")
    state = webui.state()
    assert state["evaluations"] == state["loads"] == []
    told = webui.post("/multipass/v1/validate", {"plan": asked, "steps": 10, "width": 128, "height": 64}).json()
    assert told["errors"][0]["path"] == path


def test_c6_a_schedule_type_of_its_own_where_the_sampler_s_name_says_it(webui: Webui) -> None:
    if HOSTS[webui.install.host].schedules:
        pytest.skip("this host has schedule types")
    ours = webui.generate_unchanged(plan=plan({}, refine(sampler_name="DPM++ 2M", scheduler="karras")), **REQUEST)
    assert ours.pixels == by_hires(webui, hr_sampler_name="DPM++ 2M Karras").pixels


@pytest.mark.parametrize("field", [{"steps": 12}, {"sampler_name": "DDIM"}, {"denoising_strength": 0.5}], ids=str)
def test_c24_what_the_first_pass_cannot_have_in_txt2img(webui: Webui, field: dict[str, Any]) -> None:
    answer = webui.try_generate(plan=plan(field), **REQUEST)
    assert answer.status_code == 422
    assert (
        answer.json()["detail"] == f"passes[0].{next(iter(field))}: in txt2img it is the request's for the first pass"
    )


# --- other kinds of model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("soft", "xl"), ("xl", "soft")], ids=" then ".join)
def test_c6_into_another_latent_space_is_the_hires_fix_by_pixels(both: Webui, pair: tuple[str, str]) -> None:
    """The host draws from a generator when it builds the other module, and encodes with it after that: it is compared
    where it has both, as a plan's picture is the same whether something had to be built for it or not."""
    first, second = pair
    second_pass = {**REFINE, "scale": 2, "checkpoint": second}
    ours = both.generate_unchanged(plan=plan({"checkpoint": first}, second_pass), **REQUEST)
    assert runs(ours) == [(first, 10), (second, 4)]
    assert any("was decoded and encoded again" in comment for comment in both.state()["comments"])
    assert [own["through"] for own in recorded(both)[0]] == [None, "pixels"]
    asked = {"hr_upscaler": "None", "hr_checkpoint_name": second}
    with settings(both, sd_checkpoints_limit=2):
        for _ in range(2):
            host = by_hires(both, override_settings={"sd_model_checkpoint": first}, **asked)
    assert runs(host) == runs(ours)
    assert ours.pixels == host.pixels


def test_c24_a_latent_upscaler_between_latent_spaces(both: Webui) -> None:
    answer = both.try_generate(plan=plan({}, refine(checkpoint="xl")), **REQUEST)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("passes[1].upscaler: it enlarges a latent of SD 1.x, which xl (SDXL)")


def test_c11_within_sdxl_a_refine_pass_is_told_its_own_size(both: Webui) -> None:
    settings = {"override_settings": {"sd_model_checkpoint": "xl"}}
    ours = both.generate_unchanged(plan=plan({}, refine(checkpoint="xl_other")), **REQUEST, **settings)
    host = by_hires(both, hr_checkpoint_name="xl_other", **settings)
    assert runs(ours) == runs(host) == [("xl", 10), ("xl_other", 4)]
    assert ours.pixels == host.pixels


INPAINT = {"override_settings": {"sd_model_checkpoint": "inpaint"}}


def test_c6_an_inpainting_model_without_a_mask_is_shown_what_the_hires_fix_shows_it(both: Webui) -> None:
    """At the first size: the host shows it a picture of that size in the hires fix too."""
    ours = both.generate_unchanged(plan=plan({}, refine(scale=1)), **REQUEST, **INPAINT)
    assert ours.pixels == by_hires(both, hr_scale=1, **INPAINT).pixels
    assert runs(both.generate_unchanged(plan=plan({}, refine()), **REQUEST, **INPAINT)) == [("inpaint", 14)]


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_the_mask_holds_for_an_inpainting_model(both: Webui, picture: str, upscaler: str) -> None:
    request = inpainting(picture, **INPAINT)
    masked = both.generate_unchanged("img2img", plan=plan({}, refine(upscaler=upscaler)), **request)
    host = both.generate("img2img", **inpainting(picture, width=256, height=128, **INPAINT))
    kept = [Image.frombytes("RGB", (256, 128), one.pixels[0]).crop((0, 0, 112, 128)) for one in (masked, host)]
    assert kept[0].tobytes() == kept[1].tobytes()


# --- beside the host's hires fix -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "hr_prompt", "own"),
    [
        ("a red apple", "a red apple <lora:one:1>", "a red apple"),
        ("a red apple <lora:one:1>", "a red apple", "a red apple <lora:one:1>"),
    ],
)
def test_c10_a_network_of_the_hires_fix_is_not_the_refine_passes(
    webui: Webui, prompt: str, hr_prompt: str, own: str
) -> None:
    """As if a pass in between had taken the networks out: one with another text."""
    request = {**REQUEST, **hires(webui), "prompt": prompt, "hr_prompt": hr_prompt}
    ours = webui.generate_unchanged(plan=plan({}, refine(scale=1)), **request)
    said = webui.generate_unchanged(plan=plan({}, refine(scale=1, prompt=own)), **request)
    other = webui.generate_unchanged(plan=plan({}, refine(scale=1, prompt=hr_prompt)), **request)
    assert ours.same_picture(said)
    assert not ours.same_picture(other)


def test_what_a_stop_leaves_out_is_told(webui: Webui) -> None:
    """In the last evaluation of the pass before: nothing is cut off, and still something is missing."""
    webui.generate_with({"kind": "interrupt", "at": 10}, plan({}, refine(name="photo")), **REQUEST)
    manifest = webui.get("/multipass/v1/runs/latest")
    assert manifest["status"] == "interrupted"
    assert "before photo" in manifest["error"]
    webui.generate_with({"kind": "interrupt", "at": 10}, plan({}), **REQUEST, **hires(webui))
    manifest = webui.get("/multipass/v1/runs/latest")
    assert (manifest["status"], "before Hires fix" in manifest["error"]) == ("interrupted", True)


def test_c13_a_refined_passes_picture_tells_the_request(webui: Webui) -> None:
    """Also one that is written while a refine pass of another size and sampler holds."""
    several = plan({}, refine(scale=1.5, steps=6, sampler_name="Euler a"), {"switch_at": 0.5, "checkpoint": "ink"})
    webui.generate(plan=several, **REQUEST)
    for index in range(3):
        picture = requests.get(f"{webui.url}/multipass/v1/runs/latest/{index}/0", timeout=60).content
        told = Image.open(io.BytesIO(picture)).info["parameters"]
        assert "Steps: 10, Sampler: Euler, " in told
        assert "Size: 128x64" in told
    said = webui.get("/multipass/v1/runs/latest")["plan"]["request"]
    assert {name: said[name] for name in ("steps", "width", "height", "sampler_name")} == {
        "steps": 10, "width": 128, "height": 64, "sampler_name": "Euler",
    }  # fmt: skip
