"""The axes that Multipass adds to the host's X/Y/Z plot, from the API and from the page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from tests.webui.asking import REQUEST, a_then_b, clear_cache, image_of, plan, plan_in, settings, without_run
from tests.webui.browsing import Panel, keep, screenshot, set_request, type_in
from tests.webui.host import Answer, Webui

pytestmark = pytest.mark.usefixtures("computed")
RENDERED_MS = 300_000  # ten pictures, on a busy machine
NO_LEGEND = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
ASKED = {**REQUEST, "steps": 6}
REFINED = plan(
    {"name": "base", "checkpoint": "soft"},
    {"name": "style", "checkpoint": "ink", "switch_at": 0.5, "prompt": "a green apple"},
    {"name": "finish", "kind": "refine", "denoising_strength": 0.5, "steps": 3, "sampler_name": "Euler"},
)
SWITCH_AT, CHECKPOINT, STRENGTH, CFG, STEPS, SAMPLER, TEXT, PATH, PRESET = (
    f"[Multipass] {name}"
    for name in (
        "Switch at",
        "Checkpoint",
        "Denoising strength",
        "CFG scale",
        "Steps",
        "Sampler",
        "Prompt S/R",
        "Field by path",
        "Preset",
    )
)


class Grid(NamedTuple):
    """What a plot gave: the grid, and its cells in the order in which they are shown."""

    whole: Image.Image
    cells: tuple[bytes, ...]
    infotexts: tuple[str, ...]


def form(webui: Webui, kind: str = "txt2img") -> list[dict[str, Any]]:
    """The arguments of the host's script."""
    found = webui.get("/sdapi/v1/script-info")
    return next(
        own["args"] for own in found if own["name"] == "x/y/z plot" and own["is_img2img"] == (kind == "img2img")
    )


def types(webui: Webui, kind: str = "txt2img") -> list[str]:
    """Of axes, in the order of the menu."""
    return [choice[0] if isinstance(choice, list) else choice for choice in form(webui, kind)[0]["choices"]]


def asking_for_grid(
    webui: Webui, *axes: tuple[str, Any], kind: str = "txt2img", options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A request's script: pairs of a type and its values, a text or what is chosen in a list, for X, Y, Z."""
    known = types(webui, kind)
    chosen_options = {**NO_LEGEND, **(options or {})}
    args = [chosen_options.get(own["label"], own["value"]) for own in form(webui, kind)]
    for place in range(3):
        name, values = axes[place] if place < len(axes) else ("Nothing", "")
        typed, chosen = ("", values) if isinstance(values, list) else (values, [])
        args[3 * place : 3 * place + 3] = [known.index(name), typed, chosen]
    return {"script_name": "X/Y/Z plot", "script_args": args}


def plot(
    webui: Webui,
    plan: Any,
    *axes: tuple[str, Any],
    kind: str = "txt2img",
    options: dict[str, Any] | None = None,
    **request: Any,
) -> Grid:
    webui.arm()
    asked = {**ASKED, **asking_for_grid(webui, *axes, kind=kind, options=options), **request}
    answer = webui.try_generate(kind, plan, **asked)
    assert answer.status_code == 200, answer.text[:2000]
    return read(webui, answer)


def refused(webui: Webui, plan: Any, *axes: tuple[str, Any], **request: Any) -> requests.Response:
    webui.arm()
    return webui.try_generate("txt2img", plan, **{**ASKED, **asking_for_grid(webui, *axes), **request})


def read(webui: Webui, answer: requests.Response) -> Grid:
    body = answer.json()
    found = [image_of(image).convert("RGB") for image in body["images"]]
    return Grid(found[0], tuple(image.tobytes() for image in found[1:]), tuple(json.loads(body["info"])["infotexts"]))


def alone(webui: Webui, plan: Any, **request: Any) -> Answer:
    return webui.generate(plan=plan, **{**ASKED, **request})


def with_value(plan: dict[str, Any], place: int, **values: Any) -> dict[str, Any]:
    return {**plan, "passes": [{**own, **(values if k == place else {})} for k, own in enumerate(plan["passes"])]}


def labels(webui: Webui) -> list[str]:
    """What stands beside the last grid, for X, Y, Z; the host takes each apart by lines after that."""
    return [*dict.fromkeys(filter(None, webui.state()["labels"]))]


# --- every axis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "values", "place", "field", "tried"),
    [
        (SWITCH_AT, "0-1 (+0.5)", 1, "switch_at", [0, 0.5, 1]),
        (SWITCH_AT, "style: 0.25, 0.5", 1, "switch_at", [0.25, 0.5]),
        (CHECKPOINT, "ink, noise1", 1, "checkpoint", ["ink", "noise1"]),
        (CHECKPOINT, "pass 1: ink, noise1", 0, "checkpoint", ["ink", "noise1"]),
        (STRENGTH, "0.25-0.75 [3]", 2, "denoising_strength", [0.25, 0.5, 0.75]),
        (CFG, "3-5", 1, "cfg_scale", [3, 4, 5]),
        (CFG, "finish: 2, 7", 2, "cfg_scale", [2, 7]),
        (STEPS, "2, 4", 2, "steps", [2, 4]),
        (SAMPLER, "Euler, Euler a", 2, "sampler_name", ["Euler", "Euler a"]),
        (TEXT, "green, yellow", 1, "prompt", ["a green apple", "a yellow apple"]),
        (PATH, "passes[2].denoising_strength=0.3, 0.6", 2, "denoising_strength", [0.3, 0.6]),
    ],
)
def test_a_cell_is_the_plan_with_its_value(
    webui: Webui, axis: str, values: str, place: int, field: str, tried: list[Any]
) -> None:
    before = webui.circumstances()
    found = plot(webui, REFINED, (axis, values))
    assert webui.circumstances() == before
    assert len(found.cells) == len(tried)
    own = [alone(webui, with_value(REFINED, place, **{field: value})) for value in tried]
    assert found.cells == tuple(one.pixels[0] for one in own)
    assert len(set(found.cells)) == len(tried)
    assert without_run(found.infotexts[1:]) == without_run(tuple(one.infotexts[0] for one in own))


def test_in_img2img_a_field_of_how_it_is_sampled_is_the_first_pass_s(webui: Webui, picture: str) -> None:
    request = {"init_images": [picture], "denoising_strength": 0.6}
    found = plot(webui, a_then_b(0.5), (STRENGTH, "0.4, 0.8"), (STEPS, "4, 6"), kind="img2img", **request)
    for cell, (strength, steps) in zip(found.cells, ((0.4, 4), (0.8, 4), (0.4, 6), (0.8, 6)), strict=True):
        own = with_value(a_then_b(0.5), 0, denoising_strength=strength, steps=steps)
        alone = webui.generate("img2img", plan=own, **{**ASKED, **request})
        assert cell == alone.pixels[0]


def test_c13_a_cell_s_text_gives_the_cell_again(webui: Webui) -> None:
    found = plot(webui, REFINED, (SWITCH_AT, "0.2-0.8 (+0.3)"))
    for cell, infotext in zip(found.cells, found.infotexts[1:], strict=True):
        assert alone(webui, plan_in(infotext)).pixels == (cell,)
    assert [plan_in(text)["passes"][1]["switch_at"] for text in found.infotexts] == [0.2, 0.2, 0.5, 0.8]
    assert "X Type: [Multipass] Switch at" in found.infotexts[0]
    assert "X Values: 0.2-0.8 (+0.3)" in found.infotexts[0]


def test_every_cell_is_a_run(webui: Webui) -> None:
    runs = webui.data / "tmp/multipass"
    before = {manifest.parent.name for manifest in runs.rglob("passes.json")}
    plot(webui, REFINED, (SWITCH_AT, "0.25, 0.75"))
    told = [json.loads(manifest.read_text()) for manifest in runs.rglob("passes.json")]
    new = [run for run in told if run["run"] not in before]
    assert sorted(run["plan"]["passes"][1]["switch_at"] for run in new) == [0.25, 0.75]
    assert [run["status"] for run in new] == ["done", "done"]


# --- more than one axis ---------------------------------------------------------------------------------------------


def test_a_grid_is_rendered_in_the_cheapest_order_and_shown_in_the_one_asked_for(webui: Webui) -> None:
    plan = a_then_b(0.5)
    found = plot(webui, plan, (CHECKPOINT, "ink, noise1"), (SWITCH_AT, "0, 0.5"))
    asked = [(name, at) for at in (0, 0.5) for name in ("ink", "noise1")]
    own = [alone(webui, with_value(plan, 1, checkpoint=name, switch_at=at)) for name, at in asked]
    assert found.cells == tuple(one.pixels[0] for one in own)
    plot(webui, plan, (CHECKPOINT, "ink, noise1"), (SWITCH_AT, "0, 0.5"))
    later = [name for name in webui.state()["evaluations"] if name != "soft"]
    assert [name for name, _ in groupby(later)] == ["ink", "noise1"]


def test_what_people_read_beside_the_pictures(webui: Webui) -> None:
    axes = [(SWITCH_AT, "0.2-0.4 (+0.2)"), (TEXT, "green, yellow"), (PATH, "passes[0].cfg_scale=3")]
    plot(webui, REFINED, *axes, options={"Draw legend": True})
    wanted = ["Switch at: 0.2", "Switch at: 0.4", "green", "yellow", "passes[0].cfg_scale=3"]
    assert labels(webui) == wanted
    plot(webui, REFINED, (CFG, "finish: 2"), (CHECKPOINT, "ink"), options={"Draw legend": True})
    assert labels(webui) == ["CFG scale (finish): 2", "Checkpoint: ink"]


def test_three_axes(webui: Webui) -> None:
    axes = [(TEXT, "green, yellow"), (CFG, "style: 2, 6"), (SWITCH_AT, "0.3, 0.7")]
    found = plot(webui, REFINED, *axes, options={"Include Sub Grids": False})
    asked = [(text, cfg, at) for at in (0.3, 0.7) for cfg in (2, 6) for text in ("a green apple", "a yellow apple")]
    own = [alone(webui, with_value(REFINED, 1, prompt=text, cfg_scale=cfg, switch_at=at)) for text, cfg, at in asked]
    assert found.cells[-8:] == tuple(one.pixels[0] for one in own)


@pytest.mark.parametrize(
    ("axis", "values", "requests"),
    [
        ("Seed", "7, 8", [{"seed": 7}, {"seed": 8}]),
        ("Prompt S/R", "red, blue", [{"prompt": "a red apple"}, {"prompt": "a blue apple"}]),
        ("Steps", "4, 6", [{"steps": 4}, {"steps": 6}]),
        ("CFG Scale", "3, 6", [{"cfg_scale": 3}, {"cfg_scale": 6}]),
        ("Sampler", "Euler, Euler a", [{"sampler_name": "Euler"}, {"sampler_name": "Euler a"}]),
    ],
)
def test_the_host_s_own_axes_try_the_request(
    webui: Webui, axis: str, values: str, requests: list[dict[str, Any]]
) -> None:
    plan = a_then_b(0.5, prompt="stars", prompt_mode="append")
    before = webui.circumstances()
    found = plot(webui, plan, (axis, values), (SWITCH_AT, "0.25, 0.75"))
    assert webui.circumstances() == before
    asked = [(at, request) for at in (0.25, 0.75) for request in requests]
    own = [alone(webui, with_value(plan, 1, switch_at=at), **request) for at, request in asked]
    assert found.cells == tuple(one.pixels[0] for one in own)
    assert len(set(found.cells)) == 4
    alone_on_it = plot(webui, plan, (axis, values))
    assert alone_on_it.cells == tuple(alone(webui, plan, **request).pixels[0] for request in requests)


def test_the_host_s_checkpoint_axis_is_the_first_pass_s_where_it_names_none(webui: Webui) -> None:
    follows = plan({}, {"checkpoint": "soft", "switch_at": 0.5})
    before = webui.circumstances()
    found = plot(webui, follows, ("Checkpoint name", "ink, noise1"), ("Seed", "7, 8"))
    assert webui.circumstances() == before
    asked = [(name, seed) for seed in (7, 8) for name in ("ink", "noise1")]
    own = [alone(webui, with_value(follows, 0, checkpoint=name), seed=seed) for name, seed in asked]
    assert found.cells == tuple(one.pixels[0] for one in own)
    named = plot(webui, a_then_b(0.5), ("Checkpoint name", "ink, noise1"))
    assert set(named.cells) == set(alone(webui, a_then_b(0.5)).pixels)


def test_c21_a_sweep_computes_each_state_of_each_checkpoint_once(webui: Webui) -> None:
    boundaries, request = (2, 4, 6), {"steps": 8}
    own = [alone(webui, a_then_b(at, unit="step"), **request) for at in boundaries]
    runs = webui.data / "tmp/multipass"
    before = {manifest.parent.name for manifest in runs.rglob("passes.json")}
    with settings(webui, multipass_memo_mb=512):
        found = plot(webui, a_then_b(2, unit="step"), (SWITCH_AT, "2, 4, 6"), **request)
        told = [json.loads(manifest.read_text()) for manifest in runs.rglob("passes.json")]
        clear_cache(webui)
    assert found.cells == tuple(one.pixels[0] for one in own)
    passes = [own for run in told if run["run"] not in before for own in run["images"][0]["passes"]]
    assert sum(own["unet_evaluations"] for own in passes) == max(boundaries) + sum(8 - at for at in boundaries)
    assert sum(own["unet_evaluations"] + own["memo_hits"] for own in passes) == 8 * len(boundaries)


# --- on and off -----------------------------------------------------------------------------------------------------


def test_an_axis_turns_multipass_on(webui: Webui) -> None:
    found = plot(webui, [False, a_then_b(0.5)], (SWITCH_AT, "0.25, 0.75"))
    assert found.cells == tuple(alone(webui, a_then_b(at)).pixels[0] for at in (0.25, 0.75))


def test_without_an_axis_of_ours_it_stays_off(webui: Webui) -> None:
    found = plot(webui, [False, a_then_b(0.5)], ("Seed", "7, 8"))
    assert found.cells == tuple(webui.generate(**{**ASKED, "seed": seed}).pixels[0] for seed in (7, 8))


def test_the_checkpoints_and_samplers_are_chosen_from_lists(webui: Webui) -> None:
    options = {"Use text inputs instead of dropdowns": False}
    found = plot(webui, REFINED, (CHECKPOINT, ["noise1", "ink"]), (SAMPLER, ["Euler a"]), options=options)
    named = with_value(REFINED, 2, sampler_name="Euler a")
    own = [alone(webui, with_value(named, 1, checkpoint=name)) for name in ("noise1", "ink")]
    assert found.cells == tuple(one.pixels[0] for one in own)


@pytest.fixture
def preset(webui: Webui) -> Iterator[str]:
    """One that a person has saved."""
    name = "mine, too"
    path = f"{webui.url}/multipass/v1/presets/{name}"
    requests.put(path, json=REFINED, timeout=60).raise_for_status()
    yield name
    requests.delete(path, timeout=60).raise_for_status()


@pytest.mark.parametrize("plan", [None, [False, ""], a_then_b(0.5)])
def test_a_preset_is_a_plan_and_the_other_axes_values_go_into_it(webui: Webui, preset: str, plan: Any) -> None:
    found = plot(webui, plan, (SWITCH_AT, "0.25, 0.75"), (PRESET, f'"{preset}"'))
    assert found.cells == tuple(alone(webui, with_value(REFINED, 1, switch_at=at)).pixels[0] for at in (0.25, 0.75))


def test_presets_are_chosen_from_a_list(webui: Webui, preset: str) -> None:
    shipped = webui.get("/multipass/v1/presets/Pony to Animagine")
    options = {"Use text inputs instead of dropdowns": False, "Draw legend": True}
    found = plot(webui, None, (PRESET, [preset, "Pony to Animagine"]), options=options)
    assert labels(webui) == [f"Preset: {preset}", "Preset: Pony to Animagine"]
    assert found.cells == tuple(alone(webui, plan).pixels[0] for plan in (REFINED, shipped))


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        (
            [(SWITCH_AT, "0.5, 1.5, 2")],
            "passes[1].switch_at: expected a number from 0 to 1, got 1.5 "
            "(with Switch at: 1.5, and 1 more of the cells)",
        ),
        ([(SWITCH_AT, " , ")], "[Multipass] Switch at: expected a value"),
        ([(TEXT, "")], "[Multipass] Prompt S/R: expected a value"),
        ([(SWITCH_AT, "0.2-0.8")], "[Multipass] Switch at: 0.2-0.8 needs a step, as in 0.2-0.8 (+0.1)"),
        ([(SWITCH_AT, "styl: 0.5")], '[Multipass] Switch at: there is no pass "styl"; did you mean "style"?'),
        ([(CHECKPOINT, "ink, nosuch")], 'passes[1].checkpoint: the webui lists no checkpoint "nosuch"'),
        (
            [("Seed", "7, 8"), (CHECKPOINT, "ink, nosuch")],
            'passes[1].checkpoint: the webui lists no checkpoint "nosuch"',
        ),
        ([("Seed", "7, 8"), (SAMPLER, "Euler, Oiler")], 'passes[2].sampler_name: the webui has no sampler "Oiler"'),
        ([(SAMPLER, "Euler, Oiler")], 'passes[2].sampler_name: the webui has no sampler "Oiler"'),
        ([(TEXT, "violet, green")], '[Multipass] Prompt S/R: "violet" is not in the passes\' own texts'),
        ([(PATH, "passes[7].steps=3")], "passes[7].steps: there is no such place in the plan (3 passes)"),
        ([(PATH, "steps 3")], "steps 3: expected PATH=VALUES"),
        ([(PRESET, "Pony to Animagine, nosuch")], 'name: there is no preset "nosuch" (with Preset: nosuch)'),
        ([(PRESET, "../nosuch")], "name: a preset's name does not begin with a dot"),
        ([(CFG, "3, 4"), (STEPS, "4, 0")], "passes[2].steps: expected a whole number from 1 to 1000, got 0 (with CFG"),
    ],
)
def test_a_value_that_is_none_is_refused_before_anything_is_rendered(
    webui: Webui, axes: list[tuple[str, str]], reason: str
) -> None:
    before = webui.circumstances()
    answer = refused(webui, REFINED, *axes)
    assert (answer.status_code, answer.json()["detail"][: len(reason)]) == (422, reason)
    assert webui.state()["evaluations"] == webui.state()["loads"] == []
    assert webui.circumstances() == before


def test_an_axis_without_a_plan_says_so(webui: Webui) -> None:
    answer = refused(webui, None, (SWITCH_AT, "0.5"))
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (422, "an axis of Multipass needs a plan")
    assert webui.state()["evaluations"] == []


def test_a_plan_that_is_none_ends_a_grid_of_the_host_s_axes_with_the_reason(webui: Webui) -> None:
    before = webui.circumstances()
    answer = refused(webui, a_then_b(1.5), ("Seed", "7, 8"))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("passes[1].switch_at: expected a number from 0 to 1, got 1.5")
    assert webui.circumstances() == before


@pytest.mark.parametrize(("steps", "rendered"), [("8, 4", 3), ("8, 4, 6", 4)])
def test_a_cell_that_only_its_request_refuses_ends_the_grid(webui: Webui, steps: str, rendered: int) -> None:
    """By the number of steps, which another axis tries: the last cell of the first row, and then of the second."""
    before = webui.circumstances()
    axes = [(SWITCH_AT, "3, 5"), ("Steps", steps)]
    answer = refused(webui, a_then_b(3, unit="step"), *axes)
    assert answer.status_code == 422, answer.text[:500]
    assert answer.json()["detail"] == (
        "passes[1].switch_at: expected a whole number from 0 to 4, the steps, got 5 (with Switch at: 5)"
    )
    assert len(webui.state()["latents"]) == 3
    assert webui.circumstances() == before
    plain = webui.generate(**ASKED)
    assert plain.evaluations == ("soft",) * 6


# --- stopped and failing --------------------------------------------------------------------------------------------


def test_c15_a_grid_that_is_interrupted_leaves_the_host_as_it_was(webui: Webui) -> None:
    before = webui.circumstances()
    webui.arm(kind="interrupt", at=10)
    answer = webui.try_generate(
        plan=a_then_b(0.5), **{**ASKED, **asking_for_grid(webui, (SWITCH_AT, "0.25, 0.5, 0.75"))}
    )
    assert answer.status_code == 200
    assert webui.circumstances() == before
    assert len(webui.state()["evaluations"]) in (9, 10)
    run = webui.get("/multipass/v1/runs/latest")
    assert (run["status"], run["plan"]["passes"][1]["switch_at"]) == ("interrupted", 0.5)


@pytest.mark.parametrize("fault", [{"kind": "raise", "at": 16}, {"kind": "decode"}, {"kind": "load", "at": "noise1"}])
def test_c15_an_error_in_a_cell_leaves_the_host_as_it_was(webui: Webui, fault: dict[str, Any]) -> None:
    """In the last one too, which nobody closes. Without the passes' pictures, so that only the last decoding fails."""
    failing = {**a_then_b(0.5), "save_passes": False}
    plain = webui.generate(**ASKED)
    clear_cache(webui)
    axes = [(CHECKPOINT, "ink, ink, noise1")]
    with settings(webui, sd_checkpoints_limit=1):  # else reForge has what is to be loaded
        before = webui.circumstances()
        webui.arm(**fault)
        answer = webui.try_generate(plan=failing, **{**ASKED, **asking_for_grid(webui, *axes)})
        assert webui.circumstances() == before, answer.text[:500]
    run = webui.get("/multipass/v1/runs/latest")
    assert (run["status"], run["plan"]["passes"][1]["checkpoint"].partition(" ")[0]) == ("failed", "noise1")
    assert webui.generate(**ASKED).same_picture(plain)


def test_the_axes_are_there_once_also_when_the_page_is_loaded_again(webui: Webui) -> None:
    before = types(webui)
    assert len(set(before)) == len(before)
    webui.reload_ui()
    assert types(webui) == before
    found = plot(webui, a_then_b(0.5), (SWITCH_AT, "0.25, 0.75"))
    assert found.cells == tuple(alone(webui, a_then_b(at)).pixels[0] for at in (0.25, 0.75))


# --- in the page ----------------------------------------------------------------------------------------------------


def pick(page: Page, field: str, name: str) -> None:
    """In one of gradio's lists."""
    box = page.locator(f"#txt2img_script_container {field} input").first
    box.click()
    box.fill(name)
    page.locator(f'li[aria-label="{name}" i]:visible').click()  # Forge Classic writes Plot
    expect(box).to_have_value(re.compile(re.escape(name), re.IGNORECASE))


def type_values(page: Page, axis: str, values: str) -> None:
    """The host writes there too, when its answer to the choice of the type comes."""
    field = page.locator(f"#script_txt2img_xyz_plot_{axis}_values textarea")
    for _ in range(20):
        field.fill(values)
        page.wait_for_timeout(2000)
        if field.input_value() == values:
            return
    raise AssertionError(f"{axis} does not keep its values")


def shown_grid(page: Page) -> Image.Image:
    source = page.locator("#txt2img_gallery img").first.get_attribute("src")
    assert source is not None
    return Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")


def test_a_sweep_from_the_page(page: Page, webui: Webui) -> None:
    """As a person does it: the panel's plan, the script, the axes, Generate."""
    set_request(page)
    panel = Panel(page, webui).open()
    panel.choose(0).pick("soft")
    panel.choose(1).pick("ink")
    page.locator("#txt2img_script_container").scroll_into_view_if_needed()
    pick(page, "#script_list", "X/Y/Z plot")
    pick(page, "#script_txt2img_xyz_plot_x_type", SWITCH_AT)
    type_values(page, "x", "0-1 (+0.25)")
    pick(page, "#script_txt2img_xyz_plot_y_type", CFG)
    type_values(page, "y", "2, 6")
    webui.arm()
    page.locator("#txt2img_generate").click()
    expect(page.locator("#txt2img_gallery img").first).to_be_visible(timeout=RENDERED_MS)
    expect(page.locator("#txt2img_interrupt")).to_be_hidden(timeout=RENDERED_MS)
    assert labels(webui) == [
        *(f"Switch at: {at}" for at in ("0", "0.25", "0.5", "0.75", "1")),
        *(f"CFG scale: {scale}" for scale in (2, 6)),
    ]
    screenshot(page, webui, "xyz-page")
    grid = shown_grid(page)
    keep(grid, webui, "xyz")
    request = {"prompt": "a fox", "negative_prompt": "", "seed": 20, "steps": 20, "width": 128, "height": 128}
    request["sampler_name"] = page.locator("#txt2img_sampling input").first.input_value()
    axes = [(SWITCH_AT, "0-1 (+0.25)"), (CFG, "2, 6")]
    same = plot(webui, panel.plan, *axes, options={"Draw legend": True}, **request)
    assert grid.tobytes() == same.whole.tobytes()


def test_an_axis_that_turns_multipass_on_has_the_passes_bars_too(page: Page, webui: Webui) -> None:
    set_request(page)
    Panel(page, webui).put(a_then_b(0.5))
    page.locator("#txt2img_script_container").scroll_into_view_if_needed()
    pick(page, "#script_list", "X/Y/Z plot")
    pick(page, "#script_txt2img_xyz_plot_x_type", SWITCH_AT)
    type_values(page, "x", "0.25, 0.5, 0.75")
    type_in(page, "#txt2img_steps", 60)
    webui.arm()
    page.locator("#txt2img_generate").click()
    expect(page.locator(".multipass-bars progress")).to_have_count(2, timeout=RENDERED_MS)
    expect(page.locator("#txt2img_interrupt")).to_be_hidden(timeout=RENDERED_MS)
    assert labels(webui) == [f"Switch at: {at}" for at in (0.25, 0.5, 0.75)]
    expect(page.locator("#multipass_txt2img_form")).to_be_hidden()
