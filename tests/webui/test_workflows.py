"""Whole ways of working, from the API: Toon to photo, and Progressive detail in txt2img and img2img."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.webui.asking import REQUEST, clear_cache, hires, plan, runs
from tests.webui.host import Answer, Webui
from tests.webui.samplers import HOSTS
from tests.webui.test_refine import furthest, recorded, size

pytestmark = pytest.mark.usefixtures("computed")


class Workflow(NamedTuple):
    """A plan for a kind of request.

    Attributes:
        runs: which checkpoint answers how many evaluations, for each pass.
        sizes: the places in each pass's picture.
        through: as what the picture before comes to each pass.
    """

    kind: str
    plan: dict[str, Any]
    runs: list[tuple[str, int]]
    sizes: list[int]
    through: list[str | None]

    def request(self, picture: str) -> dict[str, Any]:
        return REQUEST if self.kind == "txt2img" else {**REQUEST, "init_images": [picture], "denoising_strength": 0.6}

    def asked(self, request: dict[str, Any]) -> dict[str, Any]:
        """What ``validate`` is asked of it."""
        fields = ("steps", "sampler_name", "width", "height", "denoising_strength")
        of_request = {name: request[name] for name in fields if name in request}
        return {"plan": self.plan, **of_request, "img2img": self.kind == "img2img"}

    @property
    def names(self) -> list[str]:
        return [own["name"] for own in self.plan["passes"]]


PHOTO = {
    "name": "photo", "kind": "refine", "checkpoint": "ink",
    "prompt": "a photo of an apple", "negative_prompt": "an owl",
    "sampler_name": "DPM++ 2M", "scheduler": "karras", "steps": 6, "denoising_strength": 0.5, "scale": 1.5,
    "upscaler": "enlarger",
}  # fmt: skip
DETAIL = [
    {"name": "coarse", "kind": "refine", "checkpoint": "ink", "denoising_strength": 0.8, "steps": 4, "scale": 1.25},
    {"name": "finer", "kind": "refine", "checkpoint": "soft", "denoising_strength": 0.4, "scale": 1.25,
     "upscaler": "enlarger"},
    {"name": "finest", "kind": "refine", "denoising_strength": 0.2, "scale": 1.25, "prompt": "a red apple, fine lines"},
]  # fmt: skip
WORKFLOWS = {
    "toon to photo": Workflow(
        "txt2img",
        plan({"name": "toon", "checkpoint": "soft"}, PHOTO),
        runs=[("soft", 10), ("ink", 6)],
        sizes=[128 * 64, 192 * 96],
        through=[None, "pixels"],
    ),
    "progressive detail in txt2img": Workflow(
        "txt2img",
        plan({"name": "base", "checkpoint": "soft"}, *DETAIL),
        runs=[("soft", 10), ("ink", 4), ("soft", 4), ("soft", 4)],
        sizes=[128 * 64, 160 * 80, 200 * 96, 248 * 120],  # cut to whole places of the latent
        through=[None, "latent", "pixels", "latent"],
    ),
    "progressive detail in img2img": Workflow(
        "img2img",
        plan({"name": "base", "checkpoint": "soft", "denoising_strength": 0.8, "steps": 5}, *DETAIL[1:]),
        runs=[("soft", 5), ("soft", 5), ("soft", 5)],
        sizes=[128 * 64, 160 * 80, 200 * 96],
        through=[None, "pixels", "latent"],
    ),
}


@pytest.fixture(params=WORKFLOWS, ids=lambda name: name.replace(" ", "_"))
def workflow(request: pytest.FixtureRequest) -> Workflow:
    return WORKFLOWS[request.param]


def by_hires(webui: Webui, own: dict[str, Any], **more: Any) -> Answer:
    """The host's hires fix with what a refine pass has of its own."""
    named = {"hr_sampler_name": own["sampler_name"]} if "sampler_name" in own else {}
    if "scheduler" in own:
        has_types = HOSTS[webui.install.host].schedules
        named |= {"hr_scheduler": "Karras"} if has_types else {"hr_sampler_name": f"{own['sampler_name']} Karras"}
    texts = {f"hr_{name}": own[name] for name in ("prompt", "negative_prompt") if name in own}
    asked = {
        "hr_checkpoint_name": own["checkpoint"], "hr_second_pass_steps": own["steps"], "hr_scale": own["scale"],
        "hr_upscaler": own.get("upscaler", "Latent"), "denoising_strength": own["denoising_strength"],
    }  # fmt: skip
    return webui.generate(**{**REQUEST, **hires(webui), **asked, **named, **texts, **more})


# --- the pictures --------------------------------------------------------------------------------------------------


def test_c6_toon_to_photo_is_the_hires_fix(webui: Webui) -> None:
    own = WORKFLOWS["toon to photo"]
    ours = webui.generate_unchanged(plan=own.plan, n_iter=2, **REQUEST)
    host = by_hires(webui, PHOTO, n_iter=2)
    assert runs(ours) == runs(host) == own.runs * 2
    assert ours.pixels[-2:] == host.pixels[-2:]
    assert furthest(*ours.pixels[-2:]) > 20


def test_c6_progressive_detail_begins_as_the_hires_fix(webui: Webui) -> None:
    webui.generate_unchanged(plan=WORKFLOWS["progressive detail in txt2img"].plan, **REQUEST)
    _, pictures = recorded(webui)
    assert pictures[0] == webui.generate(**REQUEST).pixels[0]
    assert pictures[1] == by_hires(webui, DETAIL[0]).pixels[0]


def test_progressive_detail_begins_as_img2img(webui: Webui, picture: str) -> None:
    own = WORKFLOWS["progressive detail in img2img"]
    webui.generate_unchanged("img2img", plan=own.plan, **own.request(picture))
    _, pictures = recorded(webui)
    asked = {**own.request(picture), "denoising_strength": 0.8, "steps": 5}
    assert pictures[0] == webui.generate("img2img", **asked).pixels[0]


def test_c12_each_picture_is_its_seed_alone(webui: Webui, workflow: Workflow, picture: str) -> None:
    request = workflow.request(picture)
    both = webui.generate_unchanged(workflow.kind, plan=workflow.plan, n_iter=2, **request)
    pictures = [recorded(webui, image)[1] for image in (0, 1)]
    for image in (0, 1):
        alone = webui.generate(workflow.kind, plan=workflow.plan, **{**request, "seed": 7 + image})
        assert alone.pixels[0] == both.pixels[image - 2]
        assert recorded(webui)[1] == pictures[image], "every pass's too"


def test_c13_the_plan_that_is_told_renders_the_picture_again(webui: Webui, workflow: Workflow, picture: str) -> None:
    request = workflow.request(picture)
    ours = webui.generate(workflow.kind, plan=workflow.plan, n_iter=2, **request)
    told = webui.get("/multipass/v1/runs/latest")["plan"]
    again = webui.generate(workflow.kind, plan=told, **{**request, **told["request"]})
    assert again.pixels[0] == ours.pixels[-2]
    for place in (-2, -1):
        quoted = re.search(r'Multipass: ("(?:\\.|[^\\"])+")', ours.infotexts[place])
        assert quoted is not None
        seed = 9 + place
        again = webui.generate(workflow.kind, plan=json.loads(quoted[1]), **{**request, "seed": seed})
        assert again.pixels[0] == ours.pixels[place]
        # the API of Forge fails on any infotext, and in img2img A1111's takes little of it
        if workflow.kind == "txt2img" and not webui.install.is_forge:
            assert webui.generate(infotext=ours.infotexts[place]).pixels[0] == ours.pixels[place]


# --- the record ----------------------------------------------------------------------------------------------------


def test_c8_the_manifest_tells_what_every_pass_did(webui: Webui, workflow: Workflow, picture: str) -> None:
    request = workflow.request(picture)
    webui.generate(**REQUEST)
    clear_cache(webui)
    options = {"override_settings": {"multipass_read_ahead": False}}
    ours = webui.generate(workflow.kind, plan=workflow.plan, n_iter=2, **request, **options)
    answer = webui.post("/multipass/v1/validate", workflow.asked(request)).json()
    told = ("name", "first_step", "end_step")
    announced = [{name: own[name] for name in told} for own in answer["passes"]]
    run = webui.get("/multipass/v1/runs/latest")
    assert (run["status"], run["error"], [image["seed"] for image in run["images"]]) == ("done", None, [7, 8])
    for image in (0, 1):
        passes, pictures = recorded(webui, image)
        assert [{name: own[name] for name in told} for own in passes] == announced
        assert [own["name"] for own in passes] == workflow.names
        assert [own["kind"] for own in passes] == ["first"] + ["refine"] * (len(passes) - 1)
        ran = [(own["checkpoint"].split(" [")[0], own["unet_evaluations"]) for own in passes]
        assert ran == workflow.runs
        assert [own["through"] for own in passes] == workflow.through
        assert all(f"[{own['sha256'][:10]}]" in own["checkpoint"] for own in passes)
        levels = [own["sigma_in"] for own in passes]
        assert levels == sorted(levels, reverse=True)
        assert min(levels) > 0 == max(own["sigma_out"] for own in passes)
        assert min(own["seconds"] for own in passes) > 0
        assert [size(pixels) for pixels in pictures] == workflow.sizes
        assert len(set(pictures)) == len(pictures)
        assert pictures[-1] == ours.pixels[image - 2]
        sources = [own["load"]["source"] for own in passes]
        checkpoints = [name for name, _ in workflow.runs]
        if webui.install.is_forge_family:  # which has one model in place
            before = ["soft" if image == 0 else checkpoints[-1], *checkpoints]
            assert all(
                (source == "resident") == (name == there)
                for source, name, there in zip(sources, checkpoints, before, strict=False)
            )
        else:
            read = {"ink"} if image == 0 else set[str]()
            assert sources == ["disk" if name in read else "resident" for name in checkpoints]


def test_c15_stopped_in_a_later_pass_what_came_before_is_kept(
    webui: Webui, unchanged: Callable[[], None], workflow: Workflow, picture: str
) -> None:
    request = workflow.request(picture)
    webui.generate(workflow.kind, plan=workflow.plan, n_iter=2, **request)
    _, whole = recorded(webui)
    last = min(2, len(workflow.runs) - 1)  # the second refine pass, where there are two
    before = sum(evaluations for _, evaluations in workflow.runs[:last])
    webui.arm(kind="interrupt", at=before + 2)
    answer = webui.try_generate(workflow.kind, workflow.plan, n_iter=2, **request)
    assert answer.status_code == 200
    told = webui.read(answer)
    unchanged()
    run = webui.get("/multipass/v1/runs/latest")
    stopped = f"interrupted in {workflow.names[last]} after step 2; 1 of 2 pictures"
    assert (run["status"], run["error"]) == ("interrupted", stopped)
    assert len(run["images"]) == 1
    passes, pictures = recorded(webui)
    assert [own["unet_evaluations"] for own in passes] == [count for _, count in workflow.runs[:last]] + [2]
    assert passes[-1]["end_step"] == 2
    assert pictures[:last] == whole[:last]
    assert pictures[last] == told.pixels[-1] != whole[last]
    assert webui.generate(workflow.kind, plan=workflow.plan, **request).pixels[0] == whole[-1]
