"""Subject passes: what they repaint, what they leave, and what is kept of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from multipass import detection, masks
from multipass.detection import Found
from multipass.hosts.standalone import inpainting
from multipass.hosts.standalone.job import Size
from multipass.hosts.standalone.memory import Checkpoints
from multipass.manifest import Through
from multipass.plan import PlanError
from multipass.subjects import Box, Region
from tests.standalone.helpers import STEPS, draw, job, plan

A, B, XL = ({"checkpoint": name} for name in ("a", "b", "xl"))
LEFT, RIGHT = Box(0, 16, 24, 48), Box(40, 16, 64, 48)
CROP = {"mask_blur": 0, "mask_padding": 0}


def mask_of(*boxes: Box, size: tuple[int, int] = (64, 64)) -> Image.Image:
    mask = Image.new("L", size)
    for box in boxes:
        mask.paste(255, tuple(box))
    return mask


def given(*boxes: Box, **more: Any) -> dict[str, Any]:
    """A subject pass with a mask."""
    own = {"kind": "subject", "denoising_strength": 0.7, "steps": 3, "mask": masks.written(mask_of(*boxes))}
    return own | B | more


def looked_for(**more: Any) -> dict[str, Any]:
    return {"kind": "subject", "denoising_strength": 0.7, "steps": 3, "target": "person"} | B | more


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    """Where persons are found, in any picture."""
    boxes = [RIGHT, LEFT]
    monkeypatch.setattr(detection, "missing", lambda: None)
    found = lambda picture, _: [Found(box, mask_of(box, size=picture.size)) for box in boxes]  # noqa: E731
    monkeypatch.setattr(detection, "find", found)
    return boxes


def changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two pictures differ."""
    return (one != other).any(axis=-1)


def inside(*boxes: Box) -> np.ndarray:
    return np.asarray(mask_of(*boxes)) > 0


# --- what is repainted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DDIM"])
@pytest.mark.parametrize("only_masked", [True, False])
def test_what_is_masked_changes_and_no_other_bit(
    checkpoints: Path, store: Checkpoints, only_masked: bool, sampler: str
) -> None:
    scene = draw(plan(A, sampler_name=sampler), checkpoints, store).pixels
    region = CROP if only_masked else {"mask_blur": 0, "only_masked": False}
    found = draw(plan(A, given(LEFT, **region), sampler_name=sampler), checkpoints, store)
    different = changed(scene, found.pixels)
    assert different[inside(LEFT)].mean() > 0.9
    assert not different[~inside(LEFT)].any()
    again = draw(plan(A, given(LEFT, **region), sampler_name=sampler), checkpoints, Checkpoints(store.place))
    assert found.equals(again)


def test_a_blurred_mask_reaches_further_and_no_bit_beyond(checkpoints: Path, store: Checkpoints) -> None:
    scene = draw(plan(A), checkpoints, store).pixels
    found = draw(plan(A, given(LEFT, mask_blur=2)), checkpoints, store, keep=True)
    (kept,) = found.masks
    different = changed(scene, found.pixels)
    assert not different[np.asarray(kept) == 0].any()
    assert 24 < kept.getbbox()[2] <= 24 + 5
    assert different[~inside(LEFT)].any()


def test_an_inverted_mask_repaints_the_rest(checkpoints: Path, store: Checkpoints) -> None:
    scene = draw(plan(A), checkpoints, store).pixels
    different = changed(scene, draw(plan(A, given(LEFT, invert=True, mask_blur=0)), checkpoints, store).pixels)
    assert not different[inside(LEFT)].any()
    assert different[~inside(LEFT)].mean() > 0.9


def test_a_mask_of_another_size_is_resized(checkpoints: Path, store: Checkpoints) -> None:
    large = masks.written(mask_of(LEFT).resize((128, 128), Image.Resampling.NEAREST))
    scene, found = (draw(plan(A, *more), checkpoints, store).pixels for more in ((), (given(**CROP, mask=large),)))
    different = changed(scene, found)
    assert different[inside(LEFT)].mean() > 0.9
    assert not different[~inside(Box(0, 12, 28, 52))].any()


def test_all_that_is_found_is_as_a_pass_for_each_from_left_to_right(
    checkpoints: Path, store: Checkpoints, people: list[Box]
) -> None:
    every = draw(plan(A, looked_for()), checkpoints, store)
    each = draw(plan(A, looked_for(which=0), looked_for(which=1)), checkpoints, store)
    one_by_one = draw(plan(A, given(LEFT), given(RIGHT)), checkpoints, store)
    assert every.image.tobytes() == each.image.tobytes() == one_by_one.image.tobytes()
    assert every.passes[2:] == [(1, STEPS), (1, STEPS + 3)]
    scene = draw(plan(A), checkpoints, store).pixels
    assert not changed(scene, draw(plan(A, looked_for(which=1, **CROP)), checkpoints, store).pixels)[inside(LEFT)].any()


def test_subjects_keep_their_places_until_the_picture_is_redrawn(
    checkpoints: Path, store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def find(picture: Image.Image, _: str) -> list[Found]:
        looked.append(picture.width)
        box = LEFT if len(looked) == 1 else RIGHT
        return [Found(box, mask_of(box, size=picture.size))]

    monkeypatch.setattr(detection, "missing", lambda: None)
    monkeypatch.setattr(detection, "find", find)
    refine = {"kind": "refine", "denoising_strength": 0.4, "steps": 2}
    passes = (looked_for(**CROP), looked_for(**CROP), refine, looked_for(**CROP), looked_for(scale=2, **CROP))
    found = draw(plan(A, *passes), checkpoints, store, keep=True)
    assert looked == [64, 64, 128]
    first, second = (np.asarray(found.kept[number]) for number in (0, 2))
    assert not changed(first, second)[~inside(LEFT)].any()


def test_the_largest_is_one(checkpoints: Path, store: Checkpoints, people: list[Box]) -> None:
    people[:] = [LEFT, Box(30, 0, 64, 64)]
    largest = draw(plan(A, looked_for(which="largest")), checkpoints, store)
    assert largest.image.tobytes() == draw(plan(A, given(people[1])), checkpoints, store).image.tobytes()


def test_overlapping_subjects_are_repainted_in_order(checkpoints: Path, store: Checkpoints, people: list[Box]) -> None:
    people[:] = [Box(16, 0, 64, 64), Box(0, 0, 40, 64)]
    found = draw(plan(A, looked_for()), checkpoints, store)
    assert (
        found.image.tobytes() == draw(plan(A, given(people[1]), given(people[0])), checkpoints, store).image.tobytes()
    )


def test_what_is_found_and_inverted_is_repainted_around_all_of_it(
    checkpoints: Path, store: Checkpoints, people: list[Box]
) -> None:
    found = draw(plan(A, looked_for(invert=True)), checkpoints, store)
    assert found.image.tobytes() == draw(plan(A, given(LEFT, RIGHT, invert=True)), checkpoints, store).image.tobytes()


def test_a_region_is_seen_in_its_working_size(checkpoints: Path, store: Checkpoints) -> None:
    found = draw(plan(A, given(LEFT, width=96, height=128, checkpoint="b")), checkpoints, store)
    assert [tuple(latent.shape[-2:]) for latent in found.latents] == [(8, 8)] * STEPS + [(16, 12)] * 3
    assert found.image.size == (64, 64)


@pytest.mark.parametrize(("scene", "subject", "size"), [(A, XL, (128, 128)), (XL, A, (64, 64))])
def test_a_model_of_another_family_works_in_a_size_that_suits_it(
    checkpoints: Path, people: list[Box], scene: dict[str, Any], subject: dict[str, Any], size: tuple[int, int]
) -> None:
    found = job(plan(scene, looked_for(**subject), width=1536, height=768), checkpoints)
    assert found.sizes[0] == Size(1536, 768)
    area = found.sizes[1].width * found.sizes[1].height
    assert area == pytest.approx((size[0] * 8) ** 2, rel=0.02)
    assert found.sizes[1].width == pytest.approx(2 * found.sizes[1].height, rel=0.02)


def test_an_sdxl_subject_on_an_sd1_scene(checkpoints: Path, store: Checkpoints) -> None:
    scene = draw(plan(A), checkpoints, store).pixels
    found = draw(plan(A, given(LEFT, **CROP, **XL, width=64, height=64)), checkpoints, store)
    different = changed(scene, found.pixels)
    assert different[inside(LEFT)].mean() > 0.9
    assert not different[~inside(LEFT)].any()


# --- among other passes -----------------------------------------------------------------------------------------------


def test_a_switch_pass_holds_inside_of_a_repaint(checkpoints: Path, store: Checkpoints, people: list[Box]) -> None:
    switch = {"switch_at": 0.5, "checkpoint": "c"}
    found = draw(plan(A, looked_for(steps=4), switch), checkpoints, store)
    assert found.passes == [(0, 0), (1, 6), (1, 6), (2, 8), (1, 10), (2, 12)]
    assert [(record.name, record.unet_evaluations, record.subjects) for record in found.records] == [
        ("Pass 1", 6, None),
        ("Pass 2", 4, 2),
        ("Pass 3", 4, 2),
    ]
    assert [(record.first_step, record.end_step) for record in found.records[1:]] == [(0, 2), (2, 4)]
    assert found.image.tobytes() != draw(plan(A, looked_for(steps=4)), checkpoints, store).image.tobytes()


def test_a_refine_pass_before_and_behind(checkpoints: Path, store: Checkpoints) -> None:
    refine = {"kind": "refine", "denoising_strength": 0.4, "steps": 2, "scale": 1.5, "upscaler": "Latent"}
    square = {"kind": "refine", "denoising_strength": 0.4, "steps": 2}
    found = draw(plan(A, refine, given(LEFT), square), checkpoints, store, keep=True)
    assert found.image.size == (96, 96)
    assert [record.through for record in found.records] == [None, Through.LATENT, Through.PIXELS, Through.PIXELS]
    before = draw(plan(A, refine), checkpoints, store)
    assert found.kept[1].tobytes() == before.image.tobytes()
    assert found.kept[2].tobytes() == draw(plan(A, refine, given(LEFT)), checkpoints, store).image.tobytes()


def test_a_scale_enlarges_the_picture_first(checkpoints: Path, store: Checkpoints) -> None:
    scene = draw(plan(A), checkpoints, store).image
    found = draw(plan(A, given(LEFT, **CROP, scale=2)), checkpoints, store)
    different = changed(np.asarray(scene.resize((128, 128), Image.Resampling.LANCZOS)), found.pixels)
    assert not different[~np.asarray(mask_of(LEFT).resize((128, 128), Image.Resampling.BOX)).astype(bool)].all()
    assert not different[:, 64:].any()
    assert different[40:90, :40].mean() > 0.9


# --- what is there and what is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["all", "largest", 0])
def test_nothing_found_leaves_the_picture_and_says_so(
    checkpoints: Path, store: Checkpoints, people: list[Box], which: object
) -> None:
    people.clear()
    scene = draw(plan(A), checkpoints, store)
    found = draw(plan(A, looked_for(which=which), {"switch_at": 0.5}), checkpoints, store)
    assert found.image.tobytes() == scene.image.tobytes()
    assert [(record.subjects, record.mask, record.end_step, record.unet_evaluations) for record in found.records] == [
        (None, None, 6, 6),
        (0, None, 0, 0),
        (0, None, 0, 0),
    ]
    (told,) = (text for text in found.done if "goes on unchanged" in text)
    assert told.startswith("pass 2 of 3: Pass 2: no person was found in ")


def test_a_subject_that_has_to_be_there_ends_the_run(checkpoints: Path, store: Checkpoints, people: list[Box]) -> None:
    with pytest.raises(PlanError, match=r"passes\[1\]\.target: no person was found in place 2 of the picture"):
        draw(plan(A, looked_for(which=2, on_missing="error")), checkpoints, store)


def test_without_strength_nothing_is_looked_for(checkpoints: Path, store: Checkpoints, people: list[Box]) -> None:
    found = draw(plan(A, looked_for(denoising_strength=0)), checkpoints, store)
    assert found.image.tobytes() == draw(plan(A), checkpoints, store).image.tobytes()
    assert (found.records[1].subjects, found.records[1].mask) == (0, None)
    assert not any("looking" in text for text in found.done)


def test_the_mask_on_record_is_of_all_that_was_repainted(
    checkpoints: Path, store: Checkpoints, people: list[Box]
) -> None:
    found = draw(plan(A, looked_for(mask_blur=0)), checkpoints, store, keep=True)
    (kept,) = found.masks
    assert kept.tobytes() == mask_of(LEFT, RIGHT).tobytes()
    assert found.records[1].mask == "mask 1"


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"mask": "?"}, "passes[1].mask: expected a picture in base64"),
        ({"mask": base64.b64encode(b"no picture").decode()}, "passes[1].mask: expected a picture in base64"),
        ({"mask": masks.written(mask_of())}, "passes[1].mask: nothing would be repainted: it is entirely black"),
        (
            {"mask": masks.written(ImageOps.invert(mask_of())), "invert": True},
            "passes[1].mask: nothing would be repainted: it is entirely white, and inverted",
        ),
        (
            {"mask": masks.written(mask_of(LEFT, size=(64, 96)))},
            "passes[1].mask: expected the shape of the picture, 64x64, got 64x96",
        ),
        ({"width": 100}, "passes[1].width: expected a multiple of 8, got 100"),
        ({"upscaler": "Latent"}, "passes[1].upscaler: a subject pass enlarges the picture, and this enlarges latents"),
        ({"denoising_strength": None}, "passes[1].denoising_strength: a subject pass needs it: a number from 0 to 1"),
        ({"mask": None, "target": "hand"}, 'passes[1].target: the command finds person and face, got "hand"'),
    ],
)
def test_what_cannot_be_repainted_is_refused(checkpoints: Path, own: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError) as found:
        job(plan(A, given(LEFT, **own)), checkpoints)
    assert told in str(found.value)


def test_without_a_detector_a_target_is_refused(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "missing", lambda: "there is no mediapipe")
    with pytest.raises(PlanError) as found:
        job(plan(A, looked_for()), checkpoints)
    assert str(found.value) == "passes[1].target: there is no mediapipe"
    assert job(plan(A, given(LEFT)), checkpoints).plan.passes[1].mask is not None


# --- scene BREAK common BREAK subject ---------------------------------------------------------------------------------


def test_the_prompt_s_parts_are_those_of_the_passes(checkpoints: Path, people: list[Box]) -> None:
    raw = plan(A, looked_for(), prompt="a beach BREAK photo BREAK an astronaut BREAK a dog", negative_prompt="blur")
    found = job(raw | {"prompt_syntax": "scene-break"}, checkpoints)
    assert [text.prompt for text in found.texts.values()] == ["a beach, photo", "an astronaut, photo", "a dog, photo"]
    assert {text.negative_prompt for text in found.texts.values()} == {"blur"}
    assert [own.which for own in found.plan.passes[1:]] == [0, 1]
    again = job(raw | {"prompt_syntax": "scene-break", "passes": job_passes(found)}, checkpoints)
    assert again.plan == found.plan
    with pytest.raises(PlanError, match=r"request\.prompt: expected scene BREAK common BREAK subject, got one part"):
        job(plan(A, looked_for()) | {"prompt_syntax": "scene-break"}, checkpoints)


def job_passes(found: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(found.plan)["passes"]


# --- masks ------------------------------------------------------------------------------------------------------------


def test_a_mask_is_read_by_what_it_says() -> None:
    drawn = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    drawn.paste((9, 9, 9, 255), (4, 4, 8, 8))
    found = masks.read(as_png(drawn))
    assert found.getbbox() == (4, 4, 8, 8)
    assert masks.read("data:image/png;base64," + as_png(drawn)).tobytes() == found.tobytes()
    opaque = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    opaque.paste((255, 255, 255, 255), (1, 2, 3, 4))
    assert masks.read(as_png(opaque)).getbbox() == (1, 2, 3, 4)


def test_a_mask_of_16_bits_is_as_grey_as_it_is_drawn() -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = np.asarray(masks.read(as_png(Image.fromarray(grey))))
    assert np.abs(found - grey / 257).max() <= 1
    dark = Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16))  # of 32 bits, with values as in 8
    assert masks.read(as_tiff(dark)).tobytes() == bytes(range(256))


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO"])
def test_a_mask_is_a_picture_as_browsers_have_them(kind: str) -> None:
    """And EPS, which starts a program, is none."""
    with pytest.raises(ValueError, match="expected a picture in base64"):
        masks.read(encoded(Image.new("RGB", (8, 8), "white"), kind))


def test_a_mask_is_written_small_and_read_back() -> None:
    binary = mask_of(LEFT, size=(1024, 1024))
    assert len(masks.written(binary)) < 700
    grey = Image.linear_gradient("L")
    for mask in (binary, grey):
        assert masks.read(masks.written(mask)).tobytes() == mask.tobytes()


def as_png(picture: Image.Image) -> str:
    return encoded(picture, "PNG")


def as_tiff(picture: Image.Image) -> str:
    return encoded(picture, "TIFF")


def encoded(picture: Image.Image, kind: str) -> str:
    data = io.BytesIO()
    picture.save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.parametrize("sigma", [1, 4, 11])
def test_a_mask_is_blurred_as_the_webui_blurs_it(sigma: int) -> None:
    cv2 = pytest.importorskip("cv2")
    mask = Image.new("L", (96, 64))
    ImageDraw.Draw(mask).ellipse((10, -8, 60, 50), fill=255)
    levels, kernel = np.asarray(mask), 2 * int(2.5 * sigma + 0.5) + 1
    for shape in ((kernel, 1), (1, kernel)):
        levels = cv2.GaussianBlur(levels, shape, sigma)
    ours = np.asarray(inpainting.prepared(mask.convert("RGB"), mask, Region(mask_blur=sigma), Size(96, 64)).mask)
    assert np.abs(levels.astype(int) - ours).max() <= 1


def test_what_is_held_is_what_is_black(checkpoints: Path) -> None:
    picture = Image.new("RGB", (64, 64))
    found = inpainting.prepared(picture, mask_of(LEFT), Region(mask_blur=0, only_masked=False), Size(64, 64))
    expected = torch.ones(8, 8)
    expected[2:6, :3] = 0
    assert torch.equal(found.held[0, 0], expected)


@pytest.mark.skipif(detection.missing() is not None, reason="no mediapipe that runs here")
def test_a_real_face_is_what_is_repainted() -> None:
    data = pytest.importorskip("skimage").data
    astronaut = Image.fromarray(data.astronaut())
    (mask,) = masks.of_picture(astronaut, Region(target="face"), detection.find)
    repaint = inpainting.prepared(astronaut, mask, Region(target="face"), Size(256, 256))
    assert repaint.part.size == (256, 256)
    assert repaint.box.left < 168
    assert repaint.box.right > 284
    pasted = repaint.pasted(ImageOps.invert(repaint.part))
    assert changed(np.asarray(astronaut), np.asarray(pasted))[100:140, 200:260].all()
    assert not changed(np.asarray(astronaut), np.asarray(pasted))[np.asarray(repaint.mask) == 0].any()
