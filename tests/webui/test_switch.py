"""What a switch carries along: networks, VAE, patches of other extensions; and what it costs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.webui.asking import REQUEST, a_then_b, alone, clear_cache, plan, refined, runs
from tests.webui.host import Webui, changes


def needs_in_place(webui: Webui) -> None:
    if webui.install.is_forge_family:
        pytest.skip("this host's weights are not switched in place: a pass's checkpoint is loaded when it begins")


# --- in place ------------------------------------------------------------------------------------------------------


def test_c19_each_checkpoint_is_read_once_for_a_batch_and_no_text_is_encoded_in_the_loop(webui: Webui) -> None:
    needs_in_place(webui)
    three = {"checkpoint": "noise1", "switch_at": 0.8, "prompt": "an owl"}
    plan_of_three = plan({}, {"checkpoint": "ink", "switch_at": 0.4}, three)
    webui.generate(**REQUEST)  # soft is in place
    clear_cache(webui)
    answer = webui.generate_unchanged(plan=plan_of_three, n_iter=3, **REQUEST)
    assert runs(answer) == [("soft", 4), ("ink", 4), ("noise1", 2)] * 3
    assert answer.loads == ("ink", "noise1")
    assert webui.generate(plan=plan_of_three, **REQUEST).loads == (), "and not again for the next request"
    assert set(answer.encodings) <= {0, 10, 20}, "before the first evaluation of a picture"
    assert answer.modules == 1


def test_a_model_chosen_by_someone_else_in_the_middle_is_not_written_over(webui: Webui) -> None:
    """The copy's own checkpoint is loaded while ours is in place: into tensors of its own."""
    plain = webui.generate(plan=a_then_b(0.5), n_iter=2, **REQUEST)
    own = {"sd_model_checkpoint": "noise1"} | (
        {} if webui.install.is_forge_family else {"sd_vae": "other.vae.safetensors"}
    )
    alone_with_it = webui.generate(**REQUEST, override_settings=own)
    before = webui.circumstances()
    inside = webui.generate_with(
        {"kind": "copy", "at": "scripts", "overrides": own}, a_then_b(0.5), n_iter=2, **REQUEST
    )
    assert runs(inside) == [("soft", 5), ("ink", 5), ("noise1", 10), ("soft", 5), ("ink", 5)]
    assert inside.pixels == plain.pixels
    if not webui.install.is_forge_family:
        assert webui.state()["copies"] == [hashlib.sha256(alone_with_it.pixels[0]).hexdigest()]
    assert changes(before, webui.circumstances()) == {}


def test_c15_the_vae_of_a_request_that_could_not_be_decoded_is_gone(webui: Webui) -> None:
    webui.generate(**REQUEST)
    before = webui.circumstances()
    webui.arm(kind="decode")
    settings = {"sd_vae": "other.vae.safetensors"} if not webui.install.is_forge_family else {}
    assert webui.try_generate(plan=a_then_b(0.5), **REQUEST, override_settings=settings).status_code == 500
    assert changes(before, webui.circumstances()) == {}


@pytest.mark.parametrize(("first", "second"), [(2, None), (None, 2), (2, 1)])
def test_c13_the_text_tells_the_request_s_clip_skip(webui: Webui, first: int | None, second: int | None) -> None:
    several = plan({"clip_skip": first}, {"switch_at": 0.5, "clip_skip": second})
    assert "Clip skip:" not in webui.generate(plan=several, **REQUEST).infotexts[0]
    skipping = webui.generate(plan=several, **REQUEST, override_settings={"CLIP_stop_at_last_layers": 2})
    assert "Clip skip: 2," in skipping.infotexts[0]


def test_c10_a_pass_that_inherits_does_not_have_the_clip_skip_of_the_pass_before(webui: Webui) -> None:
    skipped = plan({}, {"switch_at": 0, "clip_skip": 2}, {"switch_at": 0.5})
    request = {**REQUEST, "prompt": "a fox with a hat"}
    half = plan({"clip_skip": 2}, {"switch_at": 0.5, "clip_skip": 1})
    assert webui.generate(plan=skipped, **request).same_picture(webui.generate(plan=half, **request))


# --- networks ------------------------------------------------------------------------------------------------------


def with_lora(**more: Any) -> dict[str, Any]:
    return {**REQUEST, "prompt": f"{REQUEST['prompt']} <lora:one:0.8>", **more}


def test_c10_an_inherited_network_acts_in_every_pass(webui: Webui) -> None:
    """The Refiner keeps the first checkpoint's networks."""
    ours = webui.generate_unchanged(plan=a_then_b(0.5), **with_lora())
    assert ours.same_picture(webui.generate(**refined(webui, 0.5), **with_lora()))
    assert not ours.same_picture(webui.generate(plan=a_then_b(0.5), **REQUEST))


def test_c10_the_network_of_a_pass_is_in_that_pass_and_no_other(webui: Webui) -> None:
    """As if that pass's checkpoint had it in its weights."""
    text = {"prompt": "a red apple <lora:unet:0.5>"}
    without = {"checkpoint": "ink", "prompt": "a red apple"}
    first = plan({"checkpoint": "soft", **text}, {"switch_at": 0.5, **without})
    in_weights = plan({"checkpoint": "softmerged"}, {"switch_at": 0.5, "checkpoint": "ink"})
    assert webui.generate_unchanged(plan=first, **REQUEST).same_picture(webui.generate(plan=in_weights, **REQUEST))
    second = plan(without, {"switch_at": 0.5, "checkpoint": "soft", **text})
    in_weights = plan({"checkpoint": "ink"}, {"switch_at": 0.5, "checkpoint": "softmerged"})
    assert webui.generate_unchanged(plan=second, **REQUEST).same_picture(webui.generate(plan=in_weights, **REQUEST))
    only = webui.generate_unchanged(plan=a_then_b(0, prompt=with_lora()["prompt"]), **REQUEST)
    assert only.same_picture(alone(webui, "ink", **with_lora()))


def test_c9_networks_there_and_back_repeat_and_leave_nothing_behind(webui: Webui) -> None:
    plain = webui.generate(**REQUEST)
    texts = ("<lora:one:0.8> a fox", "a fox", "<lora:two:1> <lora:one:0.3> a fox", "a fox <lora:one:0.5>")
    names = ("soft", "ink", "soft", "noise1")
    passes: list[dict[str, Any]] = [
        {"checkpoint": name, "prompt": text} for name, text in zip(names, texts, strict=True)
    ]
    for at, own in zip((2, 5, 7), passes[1:], strict=True):
        own["switch_at"] = at
    there_and_back = plan(*passes, switch_unit="step")
    first = webui.generate_unchanged(plan=there_and_back, **REQUEST)
    assert runs(first) == [("soft", 2), ("ink", 3), ("soft", 2), ("noise1", 3)]
    assert webui.generate(plan=there_and_back, n_iter=2, **REQUEST).latents[0] == first.latents[0]
    assert webui.generate(**REQUEST).same_picture(plain)
    assert all(name in first.infotexts[0] for name in ("one: ", "two: ")), "the hashes of all passes' networks"


# --- VAE -----------------------------------------------------------------------------------------------------------


def test_c10_a_pass_has_its_own_vae_and_the_last_decodes(webui: Webui) -> None:
    needs_in_place(webui)
    other = {"sd_vae": "other.vae.safetensors"}
    plain = webui.generate(plan=a_then_b(0.5), **REQUEST)
    chosen = webui.generate(**REQUEST, plan=a_then_b(0.5), override_settings=other)
    last = webui.generate_unchanged(plan=a_then_b(0.5, vae="other.vae"), **REQUEST)
    assert last.latents == plain.latents
    assert last.pixels == chosen.pixels != plain.pixels
    only_first = plan({"vae": "other.vae"}, {"switch_at": 0.5, "checkpoint": "ink"})
    assert webui.generate_unchanged(plan=only_first, **REQUEST).same_picture(plain)
    own = webui.generate(**REQUEST, plan=a_then_b(0.5, vae="None"), override_settings=other)
    assert own.same_picture(plain)


def test_c10_in_img2img_the_first_pass_encodes_the_picture_with_its_vae(webui: Webui, picture: str) -> None:
    needs_in_place(webui)
    request = {**REQUEST, "init_images": [picture], "denoising_strength": 0.7}
    first = webui.generate_unchanged("img2img", plan=plan({"vae": "other.vae.safetensors"}), **request)
    other = {"override_settings": {"sd_vae": "other.vae.safetensors"}}
    assert first.same_picture(webui.generate("img2img", **request, **other))
