"""Other scripts that render something in the middle of a plan: as in a plain request on the last pass's checkpoint."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.webui.asking import REQUEST, a_then_b, clear_cache, hires, plan, runs
from tests.webui.host import Answer, Webui, changes

OWN = {"prompt": "an owl", "steps": 4, "width": 64, "height": 64, "seed": 3, "sampler_name": "Euler"}
VAE = "other.vae.safetensors"
AT = ("postprocess_image", "postprocess")


def rendered_inside(webui: Webui, several: Any, at: str, overrides: Any = None, **request: Any) -> Answer:
    fault = {"inside": at, "request": OWN, "overrides": overrides or {}}
    before = webui.circumstances()
    answer = webui.generate_with(fault, several, **{**REQUEST, **request})
    assert changes(before, webui.circumstances()) == {}
    return answer


def on(webui: Webui, checkpoint: str, **options: Any) -> str:
    """What its own request gives alone."""
    answer = webui.generate(**OWN, override_settings={"sd_model_checkpoint": checkpoint, **options})
    return hashlib.sha256(answer.pixels[0]).hexdigest()


@pytest.mark.parametrize("at", AT)
def test_it_gets_the_last_pass_s_checkpoint(webui: Webui, at: str) -> None:
    has_vae = not webui.install.is_forge_family
    several = a_then_b(0.5, clip_skip=2, **({"vae": VAE} if has_vae else {}))
    plain = webui.generate(plan=several, n_iter=2, **REQUEST)
    ours = rendered_inside(webui, several, at, n_iter=2)
    told = webui.state()["inside"]
    between = 4 if at == "postprocess_image" else 0
    assert runs(ours) == [("soft", 5), ("ink", 5 + between), ("soft", 5), ("ink", 9)]
    assert ours.pixels == plain.pixels
    assert ours.loads == ()
    assert len(told) == (2 if at == "postprocess_image" else 1)
    for one in told:
        assert one["sd_model_checkpoint"].startswith("ink")
        assert "Multipass" not in one["infotext"]
    vae = {"sd_vae": VAE} if has_vae else {}
    assert {one["picture"] for one in told} == {on(webui, "ink", CLIP_stop_at_last_layers=2, **vae)}
    assert webui.generate(plan=several, n_iter=2, **REQUEST).pixels == plain.pixels


@pytest.mark.parametrize(
    "several",
    [
        plan({}, {"switch_at": 0.5, "checkpoint": "ink"}),
        plan({"checkpoint": "soft"}, {"kind": "refine", "checkpoint": "ink", "denoising_strength": 0.4, "scale": 1.5}),
        plan({"checkpoint": "noise1"}, {"switch_at": 0, "checkpoint": "ink"}),
    ],
    ids=["the first is the webui's", "refined", "the last alone"],
)
def test_whatever_the_plan_is(webui: Webui, several: dict[str, Any]) -> None:
    plain = webui.generate(plan=several, n_iter=2, **REQUEST)
    ours = rendered_inside(webui, several, "postprocess_image", n_iter=2)
    assert ours.pixels == plain.pixels
    assert {one["picture"] for one in webui.state()["inside"]} == {on(webui, "ink")}


@pytest.mark.parametrize(
    ("several", "last"),
    [
        (a_then_b(0.5, clip_skip=2), "noise1"),
        (plan({"checkpoint": "soft"}), "noise1"),
        (plan({"checkpoint": "soft"}, {"kind": "refine", "checkpoint": "ink", "denoising_strength": 0.5}), "ink"),
        (plan({"checkpoint": "soft"}, {"kind": "refine", "checkpoint": "ink", "denoising_strength": 0}), "noise1"),
    ],
    ids=["switched", "one pass", "refined", "enlarged"],
)
def test_a_hires_checkpoint_that_finishes_the_picture(webui: Webui, several: dict[str, Any], last: str) -> None:
    asked = {**hires(webui), "hr_checkpoint_name": "noise1"}
    plain = webui.generate(plan=several, n_iter=2, **{**REQUEST, **asked})
    ours = rendered_inside(webui, several, "postprocess_image", n_iter=2, **asked)
    assert ours.pixels == plain.pixels
    assert {one["picture"] for one in webui.state()["inside"]} == {on(webui, last)}


@pytest.mark.parametrize("at", AT)
def test_its_own_checkpoint_wins_and_the_next_picture_begins_with_the_first_s(webui: Webui, at: str) -> None:
    plain = webui.generate(plan=a_then_b(0.5), n_iter=2, **REQUEST)
    ours = rendered_inside(webui, a_then_b(0.5), at, {"sd_model_checkpoint": "noise1"}, n_iter=2)
    assert ours.pixels == plain.pixels
    assert {one["picture"] for one in webui.state()["inside"]} == {on(webui, "noise1")}


def test_nothing_is_loaded_for_nobody(webui: Webui) -> None:
    webui.generate(**REQUEST)
    clear_cache(webui)
    assert webui.generate(plan=a_then_b(0.5), n_iter=2, **REQUEST).loads == ("ink",)
    clear_cache(webui)
    assert rendered_inside(webui, a_then_b(0.5), "postprocess_image", n_iter=2).loads == ("ink",)


@pytest.mark.parametrize("at", [7, 12, 16, 21])
@pytest.mark.parametrize("kind", ["interrupt", "raise"])
def test_c15_whatever_stops_it(webui: Webui, kind: str, at: int) -> None:
    """In the plan's first picture, in the other script's, in the plan's second, in the other script's again."""
    plain, before = webui.generate(**REQUEST), webui.circumstances()
    webui.arm(kind=kind, at=at, inside="postprocess_image", request=OWN)
    webui.try_generate(plan=a_then_b(0.5), n_iter=2, **REQUEST)
    names = (["soft"] * 5 + ["ink"] * 9) * 2
    assert webui.state()["evaluations"][:at] == names[:at]
    assert changes(before, webui.circumstances()) == {}
    assert webui.generate(**REQUEST).same_picture(plain)


def test_without_adetailer_nothing_is_imported_for_it(webui: Webui) -> None:
    """Nor for subjects by a plan that has none."""

    def imported() -> set[str]:
        packages = webui.get("/probe/imported")
        return {name for name in packages if name.startswith(("adetailer", "ultralytics", "mediapipe"))}

    before = imported()
    assert before <= {"mediapipe"}  # in which another test may have looked for a person
    told = {"pass": 1, "prompts": True}
    ours = webui.generate_unchanged(plan={**a_then_b(0.5), "adetailer": told}, **REQUEST)
    assert ours.same_picture(webui.generate(plan=a_then_b(0.5), **REQUEST))
    assert webui.get("/multipass/v1/choices")["detectors"] in ([], ["person", "face"])
    assert imported() == before
