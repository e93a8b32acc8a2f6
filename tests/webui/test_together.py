"""Together with the host: a plan beside what else a request may ask for, and beside what else a host may be doing.

Where a test says `= the Refiner` it means bit-identical latents and pixels.
"""

from __future__ import annotations

import base64
import functools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import torch
import webuiapi
from PIL import Image
from safetensors.torch import save_file
from sd_parsers import ParserManager

from tests.webui.asking import REQUEST, a_then_b, alone, b64, image_of, plan, refined, runs
from tests.webui.host import Answer, Webui

HALF = a_then_b(0.5)
# the same, but for the first pass's checkpoint, which is the webui's
UNNAMED = plan({}, {"checkpoint": "ink", "switch_at": 0.5})
WORDS = " ".join(["a small red apple"] * 25)  # more than the 75 tokens that one encoding takes
EMBEDDED = "zorb"  # the embedding's name


def and_the_refiner(
    webui: Webui, kind: str = "txt2img", plan: Any = HALF, refiner: dict[str, Any] | None = None, **request: Any
) -> tuple[Answer, Answer]:
    """The request by the plan, and with the host's own Refiner; ``refiner`` replaces fields there."""
    ours = webui.generate_unchanged(kind, plan=plan, **{**REQUEST, **request})
    theirs = {**REQUEST, **request, **(refiner or {})}
    settings = theirs.pop("override_settings", {})
    return ours, webui.generate(kind, **theirs, **refined(webui, 0.5, **settings))


def shapes(*corners: tuple[int, int, int, int]) -> str:
    """A mask, as the API takes it."""
    mask = Image.new("L", (128, 64))
    for corner in corners:
        mask.paste(255, corner)
    return b64(mask)


@pytest.fixture(scope="module")
def bare(webui: Webui) -> Callable[[str], Answer]:
    """The plan's picture without anything beside it, by sampler: what a test's request must not come out as."""
    return functools.cache(lambda sampler: webui.generate(plan=HALF, **{**REQUEST, "sampler_name": sampler}))


@pytest.fixture(scope="module")
def embedding(webui: Webui) -> str:
    """A textual inversion of two vectors, in the host's folder of them."""
    folder = webui.data / "embeddings"
    folder.mkdir(exist_ok=True)
    vectors = torch.randn((2, 64), generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, folder / f"{EMBEDDED}.safetensors")
    # Forge finds it with the next model that it loads
    alone(webui, "noise1")
    return EMBEDDED


# --- what a request may ask for besides ------------------------------------------------------------------------------

BESIDES: dict[str, dict[str, Any]] = {
    "batch size 2": {"batch_size": 2},
    "batch size 4": {"batch_size": 4},
    "batch count 2 and size 2": {"n_iter": 2, "batch_size": 2},
    "variation": {"subseed": 3, "subseed_strength": 0.4},
    "variations": {"subseed": 3, "subseed_strength": 0.4, "n_iter": 2, "batch_size": 2},
    "seed of another size": {"seed_resize_from_w": 64, "seed_resize_from_h": 64},
    "styles": {"styles": ["starry"]},
    # reForge reads the option, the others the field
    "negative guidance minimum sigma": {"s_min_uncond": 15, "override_settings": {"s_min_uncond": 15}},
    "negative guidance minimum sigma, all steps": {
        "s_min_uncond": 3,
        "override_settings": {"s_min_uncond_all": True, "s_min_uncond": 3},
    },
    "padded texts": {"prompt": WORDS, "override_settings": {"pad_cond_uncond": True}},
    "token merging": {"override_settings": {"token_merging_ratio": 0.5}},
    "eta": {"sampler_name": "Euler a", "eta": 0.6},
    "eta noise seed delta": {"sampler_name": "Euler a", "override_settings": {"eta_noise_seed_delta": 31337}},
    "churn": {"s_churn": 4, "s_tmin": 0.5, "s_tmax": 9, "s_noise": 1.1},
    "clip skip": {"override_settings": {"CLIP_stop_at_last_layers": 2}},
}


@pytest.mark.parametrize("beside", BESIDES)
def test_what_else_is_asked_for_is_as_with_the_refiner(
    webui: Webui, bare: Callable[[str], Answer], beside: str
) -> None:
    known = webui.get("/sdapi/v1/options")
    for option in BESIDES[beside].get("override_settings", {}):
        if option not in known:
            pytest.skip(f"this host has no option {option}")
    if beside == "token merging" and webui.install.host in ("classic", "reforge"):
        pytest.skip("this host merges tokens at the latent's full size, where the demo pair has no attention")
    ours, refiner = and_the_refiner(webui, **BESIDES[beside])
    assert ours.same_picture(refiner)
    assert ours.evaluations == refiner.evaluations
    assert not ours.same_picture(bare(BESIDES[beside].get("sampler_name", "Euler")))


@pytest.mark.parametrize("beside", ["batch count 2 and size 2", "variation", "token merging", "churn"])
def test_the_same_checkpoint_in_every_pass_is_that_checkpoint_with_what_else_is_asked_for(
    webui: Webui, beside: str
) -> None:
    same = plan({}, {"switch_at": 0.3}, {"switch_at": 0.6, "checkpoint": "soft"})
    request = {**REQUEST, **BESIDES[beside]}
    assert webui.generate_unchanged(plan=same, **request).same_picture(webui.generate(**request))


def test_tiling_holds_in_every_pass(webui: Webui) -> None:
    """The Refiner loses it when it switches: the reference is told it again before every evaluation."""
    if webui.install.is_forge_family:
        pytest.skip('"Tiling is currently under maintenance and unavailable", says this host')
    whole = webui.generate(tiling=True, **REQUEST)
    assert not whole.same_picture(webui.generate(**REQUEST))
    same = webui.generate_unchanged(plan=plan({}, {"switch_at": 0.5}), tiling=True, **REQUEST)
    assert same.same_picture(whole)
    ours = webui.generate_unchanged(plan=HALF, tiling=True, **REQUEST)
    reminded = webui.generate_with({"kind": "tile"}, None, tiling=True, **refined(webui, 0.5), **REQUEST)
    assert ours.same_picture(reminded)
    assert not ours.same_picture(webui.generate(tiling=True, **refined(webui, 0.5), **REQUEST))


# --- texts -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "editing in the first pass": "a [red:blue:0.3] apple",
    "editing at the switch": "a [red:blue:0.5] apple",
    "editing in the second pass": "a [red:blue:7] apple",
    "editing at several steps": "[a:the:2] [red:blue:0.5] [apple::8]",
    "alternating words": "a [red|blue|green] apple",
    "AND": "a red apple AND a rocket :0.6 AND an owl",
    "attention": "a (red:1.4) [apple], ((round))",
    "BREAK": "a red apple BREAK a rocket",
    "long": WORDS,
    "everything": "a [(red:1.3):blue:0.6] apple BREAK round AND [a rocket|an owl] :0.7",
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_syntax_of_prompts_works_in_a_pass_counted_over_all_steps(
    webui: Webui, bare: Callable[[str], Answer], text: str
) -> None:
    own = {"prompt": TEXTS[text], "negative_prompt": TEXTS[text].replace(" AND ", ", ").replace("apple", "bus")}
    in_passes = plan({"checkpoint": "soft", **own}, {"checkpoint": "ink", "switch_at": 0.5, **own})
    ours, refiner = and_the_refiner(webui, plan=in_passes, refiner=own)
    assert ours.same_picture(refiner)
    assert not ours.same_picture(bare("Euler"))


@pytest.mark.parametrize(
    ("own", "prompt"),
    [
        ({}, "a red apple, a star"),
        ({"prompt": "a cat"}, "a cat"),
        ({"prompt": "a cat", "prompt_mode": "append"}, "a red apple, a star, a cat"),
        ({"prompt": "a cat", "prompt_mode": "prepend"}, "a cat, a red apple, a star"),
    ],
    ids=["inherited", "replaced", "appended", "prepended"],
)
def test_styles_are_for_the_inherited_text(webui: Webui, own: dict[str, str], prompt: str) -> None:
    styled = webui.generate_unchanged(plan=plan(own), styles=["starry"], **REQUEST)
    assert styled.same_picture(webui.generate(**{**REQUEST, "prompt": prompt, "negative_prompt": "a bus, an owl"}))


def named_embedding(webui: Webui) -> str:
    """What the picture tells of it."""
    return f"TI: {EMBEDDED}" if webui.install.is_forge else f'TI hashes: "{EMBEDDED}: '


@pytest.mark.parametrize("where", ["the request's text", "the passes' texts"])
def test_an_embedding_is_resolved_in_every_pass(webui: Webui, embedding: str, where: str) -> None:
    text = {"prompt": f"a {embedding} apple", "negative_prompt": embedding}
    own = text if where == "the passes' texts" else {}
    in_passes = plan({"checkpoint": "soft", **own}, {"checkpoint": "ink", "switch_at": 0.5, **own})
    ours, refiner = and_the_refiner(webui, plan=in_passes, refiner=text, **({} if own else text))
    assert ours.same_picture(refiner)
    if webui.install.host != "classic":  # which does not tell
        assert named_embedding(webui) in ours.infotexts[0]


@pytest.mark.parametrize("text", [EMBEDDED, "a (cat:1.2)"])
def test_what_encoding_a_later_pass_tells_is_in_the_picture(webui: Webui, embedding: str, text: str) -> None:
    if webui.install.host == "classic":
        pytest.skip("this host tells nothing of it")
    settings = {"emphasis": "No norm"}
    ours = webui.generate(plan=a_then_b(0.5, prompt=text), override_settings=settings, **REQUEST)
    told = named_embedding(webui) if text == embedding else "Emphasis: No norm"
    assert told in ours.infotexts[0].partition("Multipass: ")[0]


# --- img2img ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exactly", [False, True], ids=["fewer steps", "exactly the steps"])
@pytest.mark.parametrize(
    ("sampler", "strength"),
    [
        *(("Euler", strength) for strength in (0.05, 0.2, 0.75, 1)),
        *((name, 0.7) for name in ("Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "UniPC")),
    ],
)
def test_img2img_is_as_with_the_refiner(
    webui: Webui, picture: str, sampler: str, strength: float, exactly: bool
) -> None:
    way = {"sampler_name": sampler, "denoising_strength": strength, "init_images": [picture]}
    ours, refiner = and_the_refiner(webui, "img2img", **way, override_settings={"img2img_fix_steps": exactly})
    assert ours.evaluations == refiner.evaluations
    assert ours.same_picture(refiner)
    assert (len(runs(ours)) == 2) == (exactly or strength > 0.1)


@pytest.mark.parametrize("whole", [True, False], ids=["only masked", "whole picture"])
@pytest.mark.parametrize("fill", [0, 1, 2, 3], ids=["fill", "original", "latent noise", "latent nothing"])
def test_inpainting_is_as_with_the_refiner(webui: Webui, picture: str, fill: int, whole: bool) -> None:
    masked = {"mask": shapes((40, 8, 88, 40)), "inpainting_fill": fill, "inpaint_full_res": whole}
    way = {"init_images": [picture], "denoising_strength": 0.8, "mask_blur": 4, "inpaint_full_res_padding": 8}
    ours, refiner = and_the_refiner(webui, "img2img", **way, **masked)
    assert ours.same_picture(refiner)
    assert len(runs(ours)) == 2


@pytest.mark.parametrize("more", [{"batch_size": 2}, {"n_iter": 2}, {"inpainting_mask_invert": 1}], ids=str)
def test_soft_inpainting_is_as_with_the_refiner(webui: Webui, picture: str, more: dict[str, Any]) -> None:
    """An extension that the host brings, which changes the latents in every step."""
    soft = {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    way = {"init_images": [picture], "denoising_strength": 0.8, "mask": shapes((0, 0, 64, 64)), **more}
    ours, refiner = and_the_refiner(webui, "img2img", **way, alwayson_scripts=soft)
    assert ours.same_picture(refiner)
    assert "Soft inpainting enabled: True" in ours.infotexts[0]


# --- stopped within several pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [12, 17])
@pytest.mark.parametrize("kind", ["interrupt", "skip"])
def test_of_three_pictures_the_second_is_stopped(webui: Webui, kind: str, at: int) -> None:
    fault = {"kind": kind, "at": at}
    before = webui.circumstances()
    ours = webui.generate_with(fault, HALF, n_iter=3, **REQUEST)
    assert webui.circumstances() == before
    refiner = webui.generate_with(fault, None, n_iter=3, **REQUEST, **refined(webui, 0.5))
    assert ours.evaluations == refiner.evaluations
    assert len(ours.evaluations) == at + (10 if kind == "skip" else 0)
    assert ours.same_picture(refiner)
    assert all("Multipass: " in infotext for infotext in ours.infotexts)


# --- others at the same time -----------------------------------------------------------------------------------------


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Meanwhile:
    """A picture that waits in the middle, until the block is left, for what is done in the block."""

    def __init__(self, webui: Webui, at: int, **request: Any) -> None:
        self.webui, self.at, self.request = webui, at, request
        self.threads = ThreadPoolExecutor()

    def start(self, **request: Any) -> Future[requests.Response]:
        return self.threads.submit(self.webui.try_generate, **request)

    def __enter__(self) -> Meanwhile:
        self.webui.arm(kind="wait", at=self.at)
        self.picture = self.start(**self.request)
        until(lambda: len(self.webui.state()["evaluations"]) == self.at)
        return self

    def __exit__(self, *_: object) -> None:
        self.webui.post("/probe/go", {}).raise_for_status()
        self.threads.shutdown()


def test_clients_at_the_same_time_get_what_they_get_alone(webui: Webui) -> None:
    other = {**REQUEST, "seed": 8, "sampler_name": "Euler a"}
    singles = webui.generate(plan=HALF, **REQUEST), webui.generate(**other), webui.generate(plan=UNNAMED, **other)
    before = webui.circumstances()
    with Meanwhile(webui, 7, plan=HALF, **REQUEST) as meanwhile:
        plain = meanwhile.start(**other)
        refused = meanwhile.start(plan=a_then_b(2), **REQUEST)
        planned = meanwhile.start(plan=UNNAMED, **other)
        time.sleep(0.5)
        assert not any(waits.done() for waits in (plain, refused, planned))
    answers = meanwhile.picture.result(), plain.result(), planned.result()
    assert [webui.read(answer).pixels for answer in answers] == [one.pixels for one in singles]
    assert refused.result().status_code == 422
    assert webui.circumstances() == before


@pytest.fixture
def chosen_meanwhile(webui: Webui) -> Iterator[Callable[..., Answer]]:
    """Renders, while a person chooses another model in the header: it is in the options at once."""

    def render(**request: Any) -> Answer:
        with Meanwhile(webui, 3, **REQUEST, **request) as meanwhile:
            chosen = meanwhile.threads.submit(webui.set_options, sd_model_checkpoint="noise1")
            until(lambda: webui.get("/sdapi/v1/options")["sd_model_checkpoint"].startswith("noise1"))
        chosen.result()
        return webui.read(meanwhile.picture.result())

    yield render
    webui.set_options(sd_model_checkpoint="soft")
    webui.generate(steps=1, width=64, height=64)


@pytest.mark.parametrize("given", [HALF, UNNAMED], ids=["named", "the webui's"])
def test_every_picture_is_by_the_plan_whatever_is_chosen_meanwhile(
    webui: Webui, chosen_meanwhile: Callable[..., Answer], given: Any
) -> None:
    undisturbed = webui.generate(plan=given, n_iter=2, **REQUEST)
    rendered = chosen_meanwhile(plan=given, n_iter=2)
    assert runs(rendered) == [("soft", 5), ("ink", 5)] * 2
    assert rendered.pixels == undisturbed.pixels


@pytest.mark.parametrize("given", [HALF, UNNAMED], ids=["named", "the webui's"])
def test_a_model_chosen_meanwhile_is_there_for_the_next_picture(
    webui: Webui, chosen_meanwhile: Callable[..., Answer], given: Any
) -> None:
    assert runs(chosen_meanwhile(plan=given)) == [("soft", 5), ("ink", 5)]
    assert runs(webui.generate(**REQUEST)) == [("noise1", 10)]
    told = webui.get("/sdapi/v1/options"), json.loads((webui.data / "config.json").read_text())
    assert all(options["sd_model_checkpoint"].startswith("noise1") for options in told)


# --- other scripts ---------------------------------------------------------------------------------------------------


def test_other_scripts_get_their_own_arguments(webui: Webui) -> None:
    webui.generate(**REQUEST)
    plain = webui.state()["script_args"]
    webui.generate(plan=[True, HALF], **REQUEST)
    planned = webui.state()["script_args"]
    assert len(planned) == len(plain)
    assert [ours for ours, theirs in zip(planned, plain, strict=True) if ours != theirs] == ["True", repr(HALF)]
    assert webui.state()["args"] == ["first", 2]
    webui.generate(plan=HALF, alwayson_scripts={"Probe": {"args": ["told", 3]}}, **REQUEST)
    assert webui.state()["args"] == ["told", 3]


# --- what others make of it ------------------------------------------------------------------------------------------


def png(answer: requests.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text[:2000]
    return image_of(answer.json()["images"][0])


def test_another_reader_of_infotexts_reads_the_rest_as_ever(webui: Webui) -> None:
    told = a_then_b(0.5, name="ink, then: more", prompt='a (red:1.2) apple, "quoted": text', cfg_scale=6)
    ours, plain = (
        ParserManager().parse(png(webui.try_generate(plan=own, **REQUEST))) for own in (told, plan({"name": "one"}))
    )
    assert ours is not None
    assert plain is not None
    (sampler,) = ours.samplers
    assert sampler == plain.samplers[0]
    assert (sampler.name, sampler.parameters["steps"], sampler.parameters["seed"]) == ("Euler", "10", "7")
    assert float(sampler.parameters["cfg_scale"]) == 4
    assert sampler.model is not None
    assert sampler.model.name == "soft"
    assert [prompt.value for prompt in (*sampler.prompts, *sampler.negative_prompts)] == ["a red apple", "a bus"]
    assert ours.metadata["Size"] == "128x64"


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
def test_the_python_client_renders_and_is_told_why_not(webui: Webui, picture: str, kind: str) -> None:
    address = urlsplit(webui.url)
    client = webuiapi.WebUIApi(host=address.hostname, port=address.port)
    start = {"denoising_strength": 0.8}
    images = {"images": [image_of(picture)]}
    render = functools.partial(getattr(client, kind), **REQUEST, **({**start, **images} if kind == "img2img" else {}))
    ours = render(alwayson_scripts={"Multipass": {"args": [HALF]}})
    raw = webui.generate(kind, plan=HALF, **REQUEST, **({**start, "init_images": [picture]} if images else {}))
    assert [image.convert("RGB").tobytes() for image in ours.images] == list(raw.pixels)
    with pytest.raises(RuntimeError, match=r"passes\[1\]\.switch_at: expected a number from 0 to 1, got 2"):
        render(alwayson_scripts={"Multipass": {"args": [a_then_b(2)]}})


def test_the_picture_on_disk_tells_the_plan(webui: Webui) -> None:
    before = set(webui.data.rglob("*.png"))
    saving = {"save_images": True, "override_settings": {"samples_save": True}}
    answer = webui.generate_unchanged(plan=HALF, n_iter=2, **REQUEST, **saving)
    saved = sorted(set(webui.data.rglob("*.png")) - before)
    samples = [path for path in saved if "grid" not in path.name and not path.parent.name.startswith("pass_")]
    assert [Image.open(path).text["parameters"] for path in samples] == list(answer.infotexts[-2:])  # type: ignore[attr-defined]
    told = webui.post("/sdapi/v1/png-info", {"image": base64.b64encode(samples[1].read_bytes()).decode()}).json()
    again = webui.generate(plan=told["parameters"]["Multipass"], **{**REQUEST, "seed": 8})
    assert again.pixels[0] == answer.pixels[-1]
    assert json.loads(told["parameters"]["Multipass"])["passes"][1]["switch_at"] == 0.5


# --- the page is loaded anew; last, for all tests share this host -----------------------------------------------------


def test_after_reload_ui_everything_is_as_before(webui: Webui) -> None:
    ours = webui.generate_unchanged(plan=HALF, **REQUEST)
    plain = webui.generate(**REQUEST)
    before = webui.circumstances()
    webui.reload_ui()
    assert webui.circumstances() == before
    assert webui.generate_unchanged(plan=HALF, **REQUEST).same_picture(ours)
    again = webui.generate(**REQUEST)
    assert again.same_picture(plain)
    assert again.evaluations == plain.evaluations
    assert webui.try_generate(plan=a_then_b(2), **REQUEST).status_code == 422
    assert "passes" in webui.get("/multipass/v1/schema")["$defs"]["Plan"]["properties"]
    assert [script["name"] for script in webui.get("/sdapi/v1/script-info")].count("multipass") == 2
