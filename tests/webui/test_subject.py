"""Subject passes: a region of a finished picture repainted.

Where a test says `= the host's inpainting` it means bit-identical pixels of an img2img request with the same mask.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, ImageChops, ImageDraw
from playwright.sync_api import Page, expect

from tests.webui import asking, test_xyz
from tests.webui.asking import b64, hires, image_of, plan, runs, settings
from tests.webui.browsing import Panel, type_in
from tests.webui.host import Answer, Install, Webui, changes

# the generator that the encoding of a picture draws from is as a request of this seed leaves it: the probe sees to that
REQUEST = {**asking.REQUEST, "seed": 0}
SIZE = (128, 64)
STEPS = 4
SHOW_PHOTO = """
import sys
from PIL import Image
from skimage import data
Image.fromarray(data.astronaut()).save(sys.argv[1])
"""


def box(left: int, upper: int, right: int, lower: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A mask, white in a box."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((left, upper, right - 1, lower - 1), fill=255)
    return mask


MASK = box(40, 16, 72, 48)


def subject(mask: Image.Image | str | None = MASK, **own: Any) -> dict[str, Any]:
    fields = {"kind": "subject", "steps": STEPS, "denoising_strength": 0.6, **own}
    return fields if mask is None else {**fields, "mask": mask if isinstance(mask, str) else b64(mask)}


def picture_of(answer: Answer, size: tuple[int, int] = SIZE, place: int = 0) -> Image.Image:
    return Image.frombytes("RGB", size, answer.pixels[place])


def inpainted(webui: Webui, picture: Image.Image, mask: Image.Image = MASK, **asked: Any) -> Answer:
    """The host's own inpainting, in as many steps as are asked for."""
    request = {
        **REQUEST,
        "init_images": [b64(picture)],
        "mask": b64(mask),
        "mask_blur": 4,
        "inpainting_fill": 1,
        "inpaint_full_res": True,
        "inpaint_full_res_padding": 32,
        "steps": STEPS,
        "denoising_strength": 0.6,
        **asked,
    }
    with settings(webui, img2img_fix_steps=True):
        return webui.generate("img2img", **request)


def furthest(one: Answer, other: Answer) -> int:
    """The largest difference of two pictures, of 255."""
    return max(abs(a - b) for a, b in zip(one.pixels[0], other.pixels[0], strict=True))


def changed(one: Image.Image, other: Image.Image) -> tuple[int, int, int, int] | None:
    """Where the pictures differ."""
    return ImageChops.difference(one, other).getbbox()


def within(inner: tuple[int, int, int, int] | None, outer: tuple[int, int, int, int]) -> bool:
    assert inner is not None, "nothing changed"
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


# --- the same as the host ------------------------------------------------------------------------------------------

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"mask_blur": 0}, {"mask_blur": 0}),
    ({"mask_blur": 9}, {"mask_blur": 9}),
    ({"mask_padding": 0}, {"inpaint_full_res_padding": 0}),
    ({"invert": True}, {"inpainting_mask_invert": 1}),
    ({"only_masked": False}, {"inpaint_full_res": False}),
    ({"width": 64, "height": 64}, {"width": 64, "height": 64}),
    ({"denoising_strength": 1}, {"denoising_strength": 1}),
    ({"steps": 7, "sampler_name": "Euler a"}, {"steps": 7, "sampler_name": "Euler a"}),
    ({"steps": 7, "sampler_name": "DPM++ SDE"}, {"steps": 7, "sampler_name": "DPM++ SDE"}),
    ({"sampler_name": "DDIM"}, {"sampler_name": "DDIM"}),
    ({"cfg_scale": 7}, {"cfg_scale": 7}),
    ({"prompt": "a rocket", "negative_prompt": "an owl"}, {"prompt": "a rocket", "negative_prompt": "an owl"}),
    ({"prompt": "a rocket <lora:one:0.8>"}, {"prompt": "a rocket <lora:one:0.8>"}),
    ({"checkpoint": "ink"}, {"override_settings": {"sd_model_checkpoint": "ink"}}),
    (
        {"checkpoint": "ink", "prompt": "a fox <lora:one:0.8>", "clip_skip": 2},
        {
            "prompt": "a fox <lora:one:0.8>",
            "override_settings": {"sd_model_checkpoint": "ink", "CLIP_stop_at_last_layers": 2},
        },
    ),
]


@pytest.mark.usefixtures("computed")
@pytest.mark.parametrize(("own", "asked"), SAME, ids=[json.dumps(own) for own, _ in SAME])
def test_a_subject_pass_is_the_hosts_inpainting(webui: Webui, own: dict[str, Any], asked: dict[str, Any]) -> None:
    if "sampler_name" in own and own["sampler_name"] not in webui.samplers:
        pytest.skip("this host has no such sampler")
    scene = webui.generate(**REQUEST)
    ours = webui.generate_unchanged(plan=plan({}, subject(**own)), **REQUEST)
    host = inpainted(webui, picture_of(scene), **asked)
    assert furthest(ours, host) == 0
    assert furthest(ours, scene) > 0
    assert [*ours.evaluations] == [*scene.evaluations, *host.evaluations]


def test_it_goes_on_from_what_a_refine_pass_has_enlarged(webui: Webui) -> None:
    enlarge = {"kind": "refine", "denoising_strength": 0, "scale": 2, "upscaler": "Lanczos"}
    large = (256, 128)
    scene = webui.generate(plan=plan({}, enlarge), **REQUEST)
    ours = webui.generate_unchanged(plan=plan({}, enlarge, subject(checkpoint="ink")), **REQUEST)
    mask = MASK.resize(large, Image.Resampling.LANCZOS)
    asked = {"width": 256, "height": 128, "override_settings": {"sd_model_checkpoint": "ink"}}
    host = inpainted(webui, picture_of(scene, large), mask, **asked)
    assert furthest(ours, host) == 0


def test_it_enlarges_the_picture_first(webui: Webui) -> None:
    large = (256, 128)
    scene = webui.generate(**REQUEST)
    ours = webui.generate_unchanged(plan=plan({}, subject(scale=2, upscaler="Lanczos")), **REQUEST)
    enlarged = picture_of(scene).resize(large, Image.Resampling.LANCZOS)
    host = inpainted(webui, enlarged, MASK.resize(large, Image.Resampling.LANCZOS), width=256, height=128)
    assert furthest(ours, host) == 0


def test_several_subjects_of_a_pass_are_several_requests(webui: Webui, two: Two) -> None:
    """Each in its turn, by the masks that are on record."""
    left, right = two.mask(which=0), two.mask(which=1)
    ours = two.render(subject(None, target="person", which="all", mask_blur=0, checkpoint="ink"))
    asked = {"width": two.size[0], "height": two.size[1], "mask_blur": 0}
    asked["override_settings"] = {"sd_model_checkpoint": "ink"}
    once = inpainted(webui, two.scene, left, **asked)
    twice = inpainted(webui, picture_of(once, two.size), right, **asked)
    assert furthest(ours, twice) == 0


# --- what is found in a photograph ---------------------------------------------------------------------------------


PLAIN: dict[str, Any] = {"denoising_strength": 0}


class Two:
    """Two persons in a picture, the right one mirrored, which the scene's pass leaves as it is, as far as its VAE can.

    Args:
        sides: of the square with each of them.
    """

    size = (512, 256)

    def __init__(self, webui: Webui, photograph: Image.Image, sides: tuple[int, int] = (256, 256)) -> None:
        self.webui = webui
        both = Image.new("RGB", self.size)
        mirrored = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for place, (person, side) in enumerate(zip((photograph, mirrored), sides, strict=True)):
            both.paste(person.resize((side, side)), (place * 256, 256 - side))
        width, height = self.size
        self.request = {**REQUEST, "init_images": [b64(both)], "width": width, "height": height, "steps": 2}
        self.scene = picture_of(self.render(), self.size)

    def render(self, *passes: dict[str, Any], **more: Any) -> Answer:
        return self.webui.generate_unchanged("img2img", plan=plan(PLAIN, *passes), **{**self.request, **more})

    def shown(self, *passes: dict[str, Any], **more: Any) -> Image.Image:
        return picture_of(self.render(*passes, **more), self.size)

    def mask(self, **own: Any) -> Image.Image:
        """What a pass repaints, from the record."""
        self.render(subject(None, target="person", mask_blur=0, steps=1, **own))
        return recorded_mask(self.webui)


def record(webui: Webui, place: int = -1, image: int = 0) -> dict[str, Any]:
    """What the last run tells of a pass."""
    return webui.get("/multipass/v1/runs/latest")["images"][image]["passes"][place]


def recorded_mask(webui: Webui, place: int = -1, image: int = 0) -> Image.Image:
    run = webui.get("/multipass/v1/runs/latest")["run"]
    (file,) = webui.data.glob(f"tmp/multipass/*/{run}/{record(webui, place, image)['mask']}")
    return Image.open(file).convert("L")


def recorded_picture(webui: Webui, place: int, image: int = 0) -> Image.Image:
    answer = requests.get(f"{webui.url}/multipass/v1/runs/latest/{place}/{image}", timeout=60)
    answer.raise_for_status()
    found = Image.open(io.BytesIO(answer.content)).convert("RGB")
    found.info = {}  # which pictures are compared by, too
    return found


def has_mediapipe(install: Install) -> bool:
    asked = [str(install.python), "-c", "import mediapipe"]
    return not subprocess.run(asked, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def photograph(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Image.Image:
    if not has_mediapipe(install):
        pytest.skip("this host's Python has no mediapipe, which finds the subjects here")
    file = tmp_path_factory.mktemp("photograph") / "person.png"
    subprocess.run([str(install.python), "-c", SHOW_PHOTO, str(file)], check=True)
    return Image.open(file).convert("RGB")


@pytest.fixture(scope="module")
def two(webui: Webui, photograph: Image.Image) -> Two:
    return Two(webui, photograph)


PERSON: dict[str, Any] = subject(None, target="person", mask_blur=0)
LEFT, RIGHT = (0, 0, 256, 256), (256, 0, 512, 256)


def test_persons_are_repainted_and_nothing_else(webui: Webui, two: Two) -> None:
    ours = two.shown({**PERSON, "checkpoint": "ink"})
    mask, told = recorded_mask(webui), record(webui)
    assert (told["kind"], told["subjects"], told["through"]) == ("subject", 2, "pixels")
    assert told["unet_evaluations"] + told["memo_hits"] == 2 * STEPS
    assert recorded_picture(webui, 1) == ours
    assert recorded_picture(webui, 0) == two.scene
    outside = Image.composite(Image.new("RGB", two.size), ours, mask)
    assert outside == Image.composite(Image.new("RGB", two.size), two.scene, mask)
    for half in (LEFT, RIGHT):
        assert changed(ours.crop(half), two.scene.crop(half))


def test_which_of_them_is_counted_from_the_left(webui: Webui, two: Two) -> None:
    whole = {which: two.shown({**PERSON, "which": which}) for which in (0, 1, "all")}
    assert within(changed(whole[0], two.scene), LEFT)
    assert within(changed(whole[1], two.scene), RIGHT)
    assert two.shown(PERSON) == whole["all"]
    assert whole["all"].crop(LEFT) == whole[0].crop(LEFT)
    assert changed(whole["all"].crop(RIGHT), two.scene.crop(RIGHT))


@pytest.mark.parametrize(("sides", "largest"), [((256, 192), 0), ((192, 256), 1)])
def test_the_largest_of_them(webui: Webui, photograph: Image.Image, sides: tuple[int, int], largest: int) -> None:
    two = Two(webui, photograph, sides)
    ours = two.shown({**PERSON, "which": "largest"})
    assert within(changed(ours, two.scene), (LEFT, RIGHT)[largest])
    assert ours == two.shown({**PERSON, "which": largest})
    assert ours != two.shown({**PERSON, "which": 1 - largest})


def test_a_subject_that_is_not_there_is_none(webui: Webui, two: Two) -> None:
    assert two.shown({**PERSON, "which": 2}) == two.scene
    assert record(webui)["subjects"] == 0
    assert record(webui)["mask"] is None
    assert any('nothing was found for "person"' in comment for comment in webui.state()["comments"])


def test_a_face(webui: Webui, photograph: Image.Image) -> None:
    face = photograph.crop((96, 0, 352, 256))
    request = {**REQUEST, "init_images": [b64(face)], "width": 256, "height": 256, "steps": 2}
    scene = webui.generate("img2img", plan=plan(PLAIN), **request)
    ours = webui.generate_unchanged("img2img", plan=plan(PLAIN, subject(None, target="face")), **request)
    found = recorded_mask(webui).getbbox()
    assert found is not None
    assert within(changed(picture_of(ours, (256, 256)), picture_of(scene, (256, 256))), found)
    assert (found[2] - found[0]) * (found[3] - found[1]) < 160 * 160


def test_what_is_not_a_subject(webui: Webui, two: Two) -> None:
    """Inverted: all in one, around all of them."""
    ours = two.shown({**PERSON, "invert": True})
    assert record(webui)["subjects"] == 1
    around, persons = recorded_mask(webui), two.mask()
    assert around == ImageChops.invert(persons)
    kept = Image.composite(ours, Image.new("RGB", two.size), persons)
    assert kept == Image.composite(two.scene, Image.new("RGB", two.size), persons)


def test_each_has_its_own_texts_and_networks(webui: Webui, two: Two) -> None:
    """A network of one subject's text acts on that one alone."""
    left = {**PERSON, "which": 0, "prompt": "a rocket <lora:one:0.8>"}
    right = {**PERSON, "which": 1, "prompt": "an owl"}
    ours = two.shown(left, right)
    first = recorded_picture(webui, 1)
    assert two.shown(left) == first
    other = two.shown(left, {**right, "prompt": "an owl <lora:two:1>"})
    assert recorded_picture(webui, 1) == first
    assert within(changed(ours, other), RIGHT)
    two.shown({**left, "prompt": "a rocket"}, right)
    assert within(changed(first, recorded_picture(webui, 1)), LEFT)


def test_the_same_picture_again_costs_nothing(webui: Webui, two: Two) -> None:
    first = two.shown(PERSON)
    assert two.shown(PERSON) == first
    assert (record(webui)["unet_evaluations"], record(webui)["memo_hits"]) == (0, 2 * STEPS)


# --- right ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("computed")
def test_a_switch_within_a_subjects_trajectory_is_a_switch(webui: Webui, two: Two) -> None:
    ink = {**PERSON, "checkpoint": "ink"}
    only = two.shown(ink)
    assert two.shown(ink, {"checkpoint": "noise1", "switch_at": 1}) == only
    assert two.shown({**PERSON, "checkpoint": "noise1"}, {"checkpoint": "ink", "switch_at": 0}) == only
    ours = two.render(ink, {"checkpoint": "noise1", "switch_at": 0.5})
    assert [name for name, _ in runs(ours)[1:]] == ["ink", "noise1"] * 2
    told = [record(webui, place) for place in (1, 2)]
    assert [(own["kind"], own["subjects"]) for own in told] == [("subject", 2), ("switch", 2)]
    assert [(own["first_step"], own["end_step"]) for own in told] == [(0, 2), (2, 4)]
    assert told[0]["mask"] == told[1]["mask"]
    assert recorded_picture(webui, 2) == picture_of(ours, two.size)
    half_done = recorded_picture(webui, 1)
    assert half_done.size == two.size
    assert changed(half_done, picture_of(ours, two.size))
    mask, nothing = recorded_mask(webui), Image.new("RGB", two.size)
    assert Image.composite(nothing, half_done, mask) == Image.composite(nothing, two.scene, mask)
    assert all(changed(half_done.crop(half), two.scene.crop(half)) for half in (LEFT, RIGHT))


def test_overlapping_subjects_are_repainted_in_order(webui: Webui) -> None:
    """What the later one does not cover stays of the earlier one."""
    one, other = box(20, 8, 72, 56), box(56, 8, 108, 56)
    sharp = {"mask_blur": 0}
    first = picture_of(webui.generate(plan=plan({}, subject(one, **sharp)), **REQUEST))
    both = picture_of(
        webui.generate_unchanged(plan=plan({}, subject(one, **sharp), subject(other, **sharp)), **REQUEST)
    )
    assert within(changed(first, both), (56, 8, 108, 56))


def test_refine_passes_go_on_from_it(webui: Webui) -> None:
    refine = {"kind": "refine", "denoising_strength": 0.4, "steps": 3}
    on_ink = subject(checkpoint="ink")
    before = webui.generate_unchanged(plan=plan({}, refine, on_ink), **REQUEST)
    assert [name for name, _ in runs(before)][-1] == "ink"
    after = webui.generate_unchanged(plan=plan({}, on_ink, {**refine, "checkpoint": "noise1"}), **REQUEST)
    told = webui.get("/multipass/v1/runs/latest")["images"][0]["passes"]
    assert [own["kind"] for own in told] == ["first", "subject", "refine"]
    assert [own["through"] for own in told] == [None, "pixels", "pixels"]
    assert [own["subjects"] for own in told] == [None, 1, None]
    without = webui.generate(plan=plan({}, on_ink), **REQUEST)
    assert furthest(after, without) > 0
    webui.generate(plan=plan({}, on_ink, refine), **REQUEST)
    assert recorded_picture(webui, 1) == picture_of(without)
    for upscaler in ("Latent", "Lanczos"):
        larger = {**refine, "scale": 2, "upscaler": upscaler}
        answer = webui.generate_unchanged(plan=plan({}, subject(), larger), **REQUEST)
        assert len(answer.pixels[0]) == 3 * 256 * 128


def test_after_the_hosts_hires_fix(webui: Webui) -> None:
    asked = {**REQUEST, **hires(webui)}
    scene = webui.generate(plan=plan({}), **asked)
    ours = webui.generate_unchanged(plan=plan({}, subject(mask_blur=0)), **asked)
    size = (256, 128)
    assert within(changed(picture_of(ours, size), picture_of(scene, size)), (72, 24, 152, 104)), (
        "the edges of a mask that is enlarged are softer"
    )


def test_c12_each_picture_is_its_seed_alone(webui: Webui) -> None:
    several = plan({}, subject(checkpoint="ink", prompt="a fox <lora:one:0.5>"), subject(box(8, 8, 30, 60)))
    three = webui.generate_unchanged(plan=several, n_iter=3, **REQUEST)
    singles = [webui.generate(plan=several, **{**REQUEST, "seed": seed}) for seed in range(3)]
    assert three.pixels == tuple(one.pixels[0] for one in singles)


def test_c12_a_batch_repaints_each_picture_by_itself(webui: Webui) -> None:
    """From the same two pictures as without a subject."""
    several = plan({}, subject(mask_blur=0, sampler_name="Euler a"))
    ours = webui.generate_unchanged(plan=several, batch_size=2, **REQUEST)
    scenes = webui.generate(batch_size=2, **REQUEST)
    for place in range(2):
        assert within(changed(picture_of(ours, place=place), picture_of(scenes, place=place)), (40, 16, 72, 48))
    host = inpainted(webui, picture_of(scenes), mask_blur=0, sampler_name="Euler a")
    assert picture_of(ours) == picture_of(host)


@pytest.mark.usefixtures("computed")
@pytest.mark.parametrize("at", [10, 11, 14, 17])
@pytest.mark.parametrize("kind", ["raise", "interrupt", "skip"])
def test_c15_whatever_stops_it_the_host_is_as_before(
    webui: Webui, unchanged: Callable[[], None], kind: str, at: int
) -> None:
    """The scene is ten evaluations, and each subject four."""
    webui.arm(kind=kind, at=at)
    several = plan({}, subject(checkpoint="ink"), subject(box(0, 0, 40, 40), checkpoint="noise1"))
    answer = webui.try_generate(plan=several, **REQUEST)
    unchanged()
    assert answer.status_code == (500 if kind == "raise" else 200)
    manifest = webui.get("/multipass/v1/runs/latest")
    assert manifest["status"] == ("failed" if kind == "raise" else "interrupted")


@pytest.mark.usefixtures("computed")
def test_what_is_done_stays_when_it_is_stopped(webui: Webui, two: Two) -> None:
    ink = {**PERSON, "checkpoint": "ink"}
    left = two.shown({**ink, "which": 0})
    webui.arm(kind="interrupt", at=7)
    ours = webui.read(webui.try_generate("img2img", plan(PLAIN, ink, subject()), **two.request))
    assert picture_of(ours, two.size).crop(LEFT) == left.crop(LEFT)
    manifest = webui.get("/multipass/v1/runs/latest")
    assert "interrupted" in manifest["error"]
    assert len(manifest["images"][0]["passes"]) == 2


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(webui: Webui, *passes: dict[str, Any], whole: dict[str, Any] | None = None, **request: Any) -> str:
    webui.arm()
    answer = webui.try_generate(plan=whole or plan(*passes), **{**REQUEST, **request})
    assert answer.status_code == 422, answer.text[:500]
    assert webui.state()["evaluations"] == []
    return answer.json()["detail"]


REFUSED = [
    ("mask", "%%%", "passes[1].mask: expected a picture in base64: "),
    ("mask", base64.b64encode(b"no picture").decode(), "passes[1].mask: expected a picture in base64: "),
    ("mask", b64(Image.new("L", SIZE)), "passes[1].mask: nothing would be repainted: it is entirely black"),
    ("mask", b64(box(0, 0, 20, 20, (64, 64))), "passes[1].mask: expected the shape of the picture, 128x64, got 64x64"),
    ("upscaler", "Latent", "passes[1].upscaler: a subject pass enlarges the picture, and this enlarges latents"),
    ("width", 100, "passes[1].width: expected a multiple of 8 from 64 to 16384, got 100"),
]


@pytest.mark.parametrize(("field", "value", "reason"), REFUSED, ids=[reason for *_, reason in REFUSED])
def test_what_cannot_be_repainted_is_refused(webui: Webui, field: str, value: Any, reason: str) -> None:
    own = {**subject(), field: value}
    assert refused(webui, {}, own).startswith(reason)
    asked = {"plan": plan({}, own), "width": 128, "height": 64}
    (problem,) = webui.post("/multipass/v1/validate", asked).json()["errors"]
    assert f"{problem['path']}: {problem['message']}".startswith(reason)


def test_a_mask_that_makes_the_picture_s_text_too_long_for_a_jpeg(webui: Webui) -> None:
    """Which has 64 KB for it."""
    noise = Image.effect_noise((256, 128), 64)
    with settings(webui, samples_format="jpg"):
        told = refused(webui, {}, subject(noise))
        assert told.startswith("passes[1].mask: the picture's text would take ")
        assert told.endswith("give it in black and white, which mask_blur softens, or have the webui save PNG or WebP")
        assert webui.try_generate(plan=plan({}, subject()), **REQUEST).ok
        without = {"override_settings": {"enable_pnginfo": False}}
        assert webui.try_generate(plan=plan({}, subject(noise)), **REQUEST, **without).ok
    with settings(webui, grid_format="jpg"):
        saved = {"n_iter": 2, "save_images": True}
        for fits in ({"save_images": True}, {"n_iter": 2}):  # without a grid, and with one that is not saved
            assert webui.try_generate(plan=plan({}, subject(noise)), **REQUEST, **fits).ok
        assert refused(webui, {}, subject(noise), **saved).startswith("passes[1].mask: the picture's text would take ")
        with settings(webui, grid_save=False):
            assert webui.try_generate(plan=plan({}, subject(noise)), **REQUEST, **saved).ok
    webui.generate(plan=plan({}, subject(noise)), **REQUEST)


def test_what_would_not_be_repainted_inverted_is_refused_too(webui: Webui) -> None:
    white = b64(Image.new("L", SIZE, 255))
    assert "entirely white, and inverted" in refused(webui, {}, subject(white, invert=True))


def test_of_img2img_s_picture_the_request_alone_knows_the_shape(webui: Webui) -> None:
    """With *Only masked* it is the init image's."""
    own = plan({}, {**subject(), "mask": b64(box(0, 0, 20, 20, (64, 64)))})
    asked = {"plan": own, "width": 128, "height": 64, "img2img": True}
    assert webui.post("/multipass/v1/validate", asked).json()["ok"]
    init = b64(Image.new("RGB", (128, 64), "green"))
    answer = webui.try_generate(plan=own, **{**REQUEST, "width": 128, "height": 64}, init_images=[init])
    assert answer.status_code == 422
    assert "passes[1].mask: expected the shape of the picture, 128x64, got 64x64" in answer.json()["detail"]


def test_a_mask_of_another_shape_than_the_hires_fixs_picture(webui: Webui) -> None:
    """Which is known when the host has prepared the request, and still nothing is rendered."""
    asked = {**hires(webui), "hr_resize_x": 128, "hr_resize_y": 128}
    told = refused(webui, {}, subject(), **asked)
    assert told.startswith("passes[1].mask: expected the shape of the picture, 128x128")


def test_a_target_that_nothing_finds(webui: Webui) -> None:
    told = refused(webui, {}, subject(None, target="parrot"))
    assert told.startswith('passes[1].target: there is no detector "parrot"')
    found = ["person", "face"] if has_mediapipe(webui.install) else []
    assert webui.get("/multipass/v1/choices")["detectors"] == found


def test_nothing_to_be_found_can_be_an_error(
    webui: Webui, unchanged: Callable[[], None], photograph: Image.Image
) -> None:
    assert photograph
    needed = subject(None, target="person", which=9, on_missing="error")
    answer = webui.try_generate(plan=plan({}, needed), **REQUEST)
    assert answer.status_code == 422
    assert answer.json()["detail"] == 'passes[1].target: nothing was found for "person"'
    unchanged()
    manifest = webui.get("/multipass/v1/runs/latest")
    assert (manifest["status"], len(manifest["images"][0]["passes"])) == ("failed", 1)


def test_nothing_found_leaves_the_picture_as_it_is(webui: Webui, photograph: Image.Image) -> None:
    assert photograph
    nobody = subject(None, target="person", which=9, checkpoint="ink")
    ours = webui.generate_unchanged(plan=plan({}, nobody), **REQUEST)
    assert ours.pixels == webui.generate(**REQUEST).pixels
    assert {name for name, _ in runs(ours)} <= {"soft"}


# --- what others ask for -------------------------------------------------------------------------------------------


def test_c13_a_picture_pastes_back(webui: Webui) -> None:
    """The mask as a small black and white one, whatever it came as."""
    colourful = MASK.resize((512, 256), Image.Resampling.NEAREST).convert("RGBA")
    given = subject(f"data:image/png;base64,{b64(colourful)}", checkpoint="ink", mask_blur=7)
    ours = webui.generate(plan=plan({}, given), **REQUEST)
    sent = webui.get("/multipass/v1/runs/latest")["plan"]
    assert len(sent["passes"][1]["mask"]) < 400
    assert webui.generate(plan=sent, **REQUEST).pixels == ours.pixels
    if not webui.install.is_forge:  # whose API fails on any infotext
        assert webui.generate(infotext=ours.infotexts[0]).pixels == ours.pixels


def test_the_prompt_s_parts_are_scene_common_and_subjects(webui: Webui) -> None:
    asked = {"prompt": "a red apple BREAK photorealistic BREAK a rocket <lora:one:0.8>", "negative_prompt": ""}
    whole = {"version": 1, "prompt_syntax": "scene-break", "passes": [{}, subject(checkpoint="ink")]}
    ours = webui.generate_unchanged(plan=whole, **{**REQUEST, **asked})
    told = plan(
        {"prompt": "a red apple, photorealistic"},
        subject(checkpoint="ink", prompt="a rocket <lora:one:0.8>, photorealistic"),
    )
    assert webui.generate(plan=told, **{**REQUEST, "negative_prompt": ""}).pixels == ours.pixels
    more = {**asked, "prompt": asked["prompt"] + " BREAK an owl"}
    person = {"version": 1, "prompt_syntax": "scene-break", "passes": [{}, subject(None, target="person")]}
    texts = webui.post("/multipass/v1/texts", {"plan": person, **more}).json()["passes"]
    assert [own["prompt"] for own in texts][2] == "an owl, photorealistic"
    validated = webui.post("/multipass/v1/validate", {"plan": whole, "width": 128, "height": 64, **asked}).json()
    assert [own["end_step"] for own in validated["passes"]] == [20, STEPS]
    webui.arm()
    answer = webui.try_generate(plan=whole, **REQUEST)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("prompt: expected scene BREAK common BREAK subject")


TWO_SUBJECTS = [subject(checkpoint="ink"), subject(box(8, 8, 30, 60))]


def test_a_subject_in_a_comment_is_none(webui: Webui) -> None:
    asked = {**REQUEST, "prompt": "a red apple BREAK photorealistic BREAK a rocket"}
    commented = asked["prompt"] + "\n# BREAK an owl"
    whole = {"version": 1, "prompt_syntax": "scene-break", "passes": [{}, subject(checkpoint="ink")]}
    ours = webui.generate_unchanged(plan=whole, **{**asked, "prompt": commented})
    assert ours.pixels == webui.generate(plan=whole, **asked).pixels
    told = webui.post("/multipass/v1/texts", {"plan": whole, "prompt": commented}).json()
    assert [own["prompt"] for own in told["passes"]] == ["a red apple, photorealistic", "a rocket, photorealistic"]
    validated = webui.post(
        "/multipass/v1/validate", {"plan": whole, "width": 128, "height": 64, "prompt": commented}
    ).json()
    assert validated["ok"], validated["errors"]
    alone = {**whole, "passes": [{}, *TWO_SUBJECTS]}
    assert refused(webui, whole=alone, **{**asked, "prompt": commented}) == (
        "prompt: it has 1 subject behind scene BREAK common, and the plan passes for 2"
    )


def test_a_subject_in_a_style_is_one(webui: Webui) -> None:
    asked = {**REQUEST, "prompt": "a red apple BREAK photorealistic BREAK a rocket"}
    whole = {"version": 1, "prompt_syntax": "scene-break", "passes": [{}, *TWO_SUBJECTS]}
    ours = webui.generate_unchanged(plan=whole, **asked, styles=["and an owl"])
    told = {**asked, "prompt": asked["prompt"] + " BREAK an owl"}
    assert webui.generate(plan=whole, **told).pixels == ours.pixels
    fewer = {**whole, "passes": whole["passes"][:2]}
    assert refused(webui, whole=fewer, **asked, styles=["and an owl"]).startswith(
        "prompt: it has more subjects than the plan has passes"
    )


@pytest.mark.usefixtures("computed")
def test_an_axis_reaches_its_fields(webui: Webui) -> None:
    values = (0, 4, 12)
    text = f"passes[1].mask_blur={','.join(map(str, values))}"
    grid = test_xyz.plot(webui, plan({}, subject()), (test_xyz.PATH, text), **REQUEST)
    each = [webui.generate(plan=plan({}, subject(mask_blur=value)), **REQUEST).pixels[0] for value in values]
    assert [*grid.cells] == each


def test_the_bar_names_it(webui: Webui, two: Two) -> None:
    two.render({**PERSON, "name": "astronaut"})
    told = [text for text in webui.state()["texts"] if "astronaut" in text]
    assert any(text.startswith("Pass 2 of 2: astronaut, looking for the subject") for text in told)
    assert all(text.startswith("Pass 2 of 2: astronaut, ") for text in told)
    assert any(f"step 1/{STEPS}" in text for text in told)


# --- what is the scene's -------------------------------------------------------------------------------------------

SCENES_MASK = box(64, 0, 128, 64)
SOFT = {"alwayson_scripts": {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}}


@pytest.mark.parametrize("more", [{}, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("full", [False, True], ids=["whole", "only masked"])
def test_the_requests_mask_is_the_scenes(webui: Webui, picture: str, full: bool, more: dict[str, Any]) -> None:
    """A subject may be repainted outside of it."""
    inpainting = {"mask": b64(SCENES_MASK), "inpainting_fill": 1, "inpaint_full_res": full}
    asked = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7, **inpainting, **more}
    before = webui.generate("img2img", **asked)
    left = box(8, 8, 40, 56)
    ours = webui.generate_unchanged("img2img", plan=plan({}, subject(left, checkpoint="ink")), **asked)
    host = inpainted(webui, picture_of(before), left, override_settings={"sd_model_checkpoint": "ink"})
    assert furthest(ours, host) == 0
    refine = {"kind": "refine", "steps": 3, "denoising_strength": 0.4}
    webui.generate_unchanged("img2img", plan=plan({}, subject(left), refine), **asked)


def test_the_original_is_overlaid_whatever_the_webui_does_with_finished_pictures(webui: Webui, picture: str) -> None:
    inpainting = {"mask": b64(SCENES_MASK), "inpainting_fill": 1, "inpaint_full_res": True}
    asked = {**REQUEST, "width": 64, "init_images": [picture], "denoising_strength": 0.7, **inpainting}
    passes = plan({}, subject(box(8, 8, 40, 56), checkpoint="ink"), {"kind": "refine", "steps": 3, "scale": 1.5})
    expected = webui.generate("img2img", plan=passes, **asked)
    with settings(webui, overlay_inpaint=False):
        assert webui.generate_unchanged("img2img", plan=passes, **asked).same_picture(expected)


def listed(webui: Webui) -> dict[str, str]:
    """How each of the newest runs ended."""
    return {own["run"]: own["status"] for own in webui.get("/multipass/v1/runs")["runs"]}


def test_in_a_batch_of_files_a_mask_may_be_black(page: Page, webui: Webui, picture: str, tmp_path: Path) -> None:
    """Nothing is pasted then, although the request still says where the file before was."""
    for folder, pictures in (("in", [image_of(picture)] * 2), ("masks", [SCENES_MASK, Image.new("L", SIZE)])):
        (tmp_path / folder).mkdir()
        for name, own in zip("ab", pictures, strict=True):
            own.save(tmp_path / folder / f"{name}.png")
    page.locator("#tabs button", has_text="img2img").first.click()
    Panel(page, webui, "img2img").open().put(plan({}, subject(checkpoint="ink", steps=2)))
    for name, value in (("width", SIZE[0]), ("height", SIZE[1]), ("steps", 4)):
        type_in(page, f"#img2img_{name}", value)
    page.locator("#mode_img2img").get_by_role("tab", name="Inpaint", exact=True).or_(
        page.locator("#mode_img2img").get_by_role("button", name="Inpaint", exact=True)
    ).first.click()
    page.locator("#img2img_inpaint_full_res").get_by_label("Only masked").check()
    page.locator("#mode_img2img").get_by_role("tab", name="Batch", exact=True).or_(
        page.locator("#mode_img2img").get_by_role("button", name="Batch", exact=True)
    ).first.click()
    page.get_by_role("button", name="from directory").or_(page.get_by_role("tab", name="from directory")).first.click()
    for field, name in (("input_dir", "in"), ("inpaint_mask_dir", "masks")):
        page.locator(f"#img2img_batch_{field} textarea").fill(str(tmp_path / name))
    before, circumstances = listed(webui), webui.circumstances()
    page.locator("#img2img_generate").click()
    expect(page.locator("#img2img_interrupt")).to_be_visible()
    expect(page.locator("#img2img_interrupt")).to_be_hidden(timeout=60_000)
    assert [status for run, status in listed(webui).items() if run not in before] == ["done", "done"]
    assert changes(circumstances, webui.circumstances()) == {}


def test_colours_are_corrected_in_the_scene_of_each_picture(webui: Webui, picture: str) -> None:
    asked = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7}
    with settings(webui, img2img_color_correction=True):
        two = webui.generate("img2img", plan=plan({}, subject()), n_iter=2, **asked)
        scenes = webui.generate("img2img", n_iter=2, **asked)
    for place in range(2):
        outside = ImageChops.lighter(MASK, box(28, 4, 84, 60))  # as far as the blur reaches
        difference = ImageChops.difference(picture_of(two, place=place), picture_of(scenes, place=place))
        assert ImageChops.multiply(difference.convert("L"), ImageChops.invert(outside)).getbbox() is None
        assert difference.getbbox() is not None


@pytest.mark.parametrize("only_masked", [True, False])
def test_a_mask_that_the_blur_leaves_nothing_of_repaints_nothing(webui: Webui, only_masked: bool) -> None:
    speck = subject(box(40, 16, 41, 17), mask_blur=64, checkpoint="ink", only_masked=only_masked)
    ours = webui.generate(plan=plan({}, speck), **REQUEST)
    assert any("leaves nothing to repaint" in comment for comment in webui.state()["comments"])
    assert webui.get("/multipass/v1/runs/latest")["status"] == "done"
    assert ours.pixels == webui.generate(**REQUEST).pixels


# --- other kinds of model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("soft", "xl"), ("xl", "soft")], ids=" then ".join)
def test_a_subject_by_a_model_of_another_latent_space(both: Webui, pair: tuple[str, str]) -> None:
    """Sized for that model, as far as nothing is asked for."""
    first, second = pair
    size = {"width": 64, "height": 64}
    ours = both.generate_unchanged(plan=plan({"checkpoint": first}, subject(checkpoint=second, **size)), **REQUEST)
    assert runs(ours) == [(first, 10), (second, STEPS)]
    scene = both.generate(plan=plan({"checkpoint": first}), **REQUEST)
    host = inpainted(both, picture_of(scene), **size, override_settings={"sd_model_checkpoint": second})
    assert furthest(ours, host) == 0
    suited = {"soft": {"width": 728, "height": 360}, "xl": {"width": 1448, "height": 728}}[second]
    by_default = both.generate(plan=plan({"checkpoint": first}, subject(checkpoint=second, steps=1)), **REQUEST)
    asked = subject(checkpoint=second, steps=1, **suited)
    assert both.generate(plan=plan({"checkpoint": first}, asked), **REQUEST).pixels == by_default.pixels
