"""Models are recognised by names and shapes; two that are known to differ do not share a trajectory."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.kinds import Family, Kind, by_text_encoder, clashes, recognise
from multipass.plan import decode
from tests import ldm_layout as layout
from tests.core.strategies import plans

UNET = "model.diffusion_model."
INPUT = "input_blocks.0.0.weight"
CONTEXT = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
LATENTS = [{Family.SD1, Family.SD2}, {Family.SDXL, Family.REFINER}, {Family.SD3}, {Family.FLUX}]


def unet(channels: int = 4, context: int = 96, prefix: str = UNET) -> dict[str, tuple[int, ...]]:
    return {prefix + INPUT: (64, channels, 3, 3), prefix + CONTEXT: (64, context)}


TEXT_ENCODERS = [
    (Family.SD1, {"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 96)}),
    (Family.SD1, {"cond_stage_model.transformer.embeddings.position_embedding.weight": (77, 96)}),
    (Family.SD2, {"cond_stage_model.model.ln_final.weight": (1024,)}),
    (Family.SD2, {"conditioner.embedders.0.model.ln_final.weight": (1024,)}),  # Turbo
    (Family.SDXL, {"conditioner.embedders.0.transformer.x": (), "conditioner.embedders.1.model.x": (9,)}),
    (Family.REFINER, {"conditioner.embedders.0.model.ln_final.weight": (1280,)}),
]


@pytest.mark.parametrize(("family", "text_encoder"), TEXT_ENCODERS)
@pytest.mark.parametrize("context", [96, 768, 2048])
def test_text_encoders_of_any_size_decide(family: Family, text_encoder: Any, context: int) -> None:
    assert recognise({**unet(context=context), **text_encoder}) == Kind(family, 4)


@pytest.mark.parametrize("prefix", [UNET, ""])
@pytest.mark.parametrize(
    ("context", "family"),
    [(768, Family.SD1), (1024, Family.SD2), (2048, Family.SDXL), (1280, Family.REFINER), (96, None)],
)
def test_a_unet_alone_is_known_by_its_context(prefix: str, context: int, family: Family | None) -> None:
    shapes = unet(9, context, prefix)
    assert by_text_encoder(shapes) is None
    assert recognise(shapes) == Kind(family, 9)


@pytest.mark.parametrize("prefix", [UNET, ""])
def test_transformers(prefix: str) -> None:
    assert recognise({f"{prefix}x_embedder.proj.weight": (1536, 16, 2, 2)}) == Kind(Family.SD3)
    assert recognise({f"{prefix}double_blocks.0.img_attn.norm.key_norm.scale": (128,)}) == Kind(Family.FLUX)
    hunyuan_dit = {f"{prefix}x_embedder.proj.weight": (1408, 4, 2, 2)}  # SDXL's latents, but nobody asked us
    assert recognise(hunyuan_dit) == Kind()


def test_whole_checkpoints_of_unusual_sizes() -> None:
    clip = layout.TINY_CLIP
    assert recognise(dict(layout.sd1_shapes(layout.TINY_SD1, clip, 514))) == Kind(Family.SD1, 4)
    assert recognise(dict(layout.sdxl_shapes(layout.tiny_sdxl(), clip, clip, 514))) == Kind(Family.SDXL, 4)
    inpaint = copy.deepcopy(layout.TINY_SD1)
    inpaint["model"]["params"]["unet_config"]["params"]["in_channels"] = 9
    assert recognise(dict(layout.sd1_shapes(inpaint, clip, 514))) == Kind(Family.SD1, 9)


names = (
    st.sampled_from([UNET + INPUT, INPUT, CONTEXT, *(name for _, keys in TEXT_ENCODERS for name in keys)]) | st.text()
)


@given(st.dictionaries(names, st.lists(st.integers(0, 2048), max_size=5).map(tuple), max_size=6))
def test_any_names_and_shapes_are_some_kind(shapes: dict[str, tuple[int, ...]]) -> None:
    assert str(recognise(shapes))


# --- together ---------------------------------------------------------------------------------------------------------

kinds = st.builds(Kind, st.none() | st.sampled_from(Family), st.none() | st.sampled_from([4, 5, 8, 9]))


def chain(*of: Kind) -> list[Any]:
    """What clashes in a plan of these, named a, b, c ..."""
    first, *others = ({"checkpoint": name} for name in "abcdefghijklmnop"[: len(of)])
    plan = {"version": 1, "passes": [first, *({"switch_at": 0.5, **other} for other in others)]}
    return list(clashes(decode(plan), {i: ("abcdefghijklmnop"[i], kind) for i, kind in enumerate(of)}))


@pytest.mark.parametrize(("one", "other"), list(product(Family, Family)))
def test_families_share_a_trajectory_where_they_share_the_latent_space(one: Family, other: Family) -> None:
    together = any({one, other} <= space for space in LATENTS)
    found = chain(Kind(one, 4), Kind(other, 4))
    assert bool(found) is not together
    for problem in found:
        assert problem.path == "passes[1].checkpoint"
        assert problem.message == (
            f"b ({other.value}, 4 UNet channels) cannot continue what a ({one.value}, 4 UNet channels) began: "
            "the checkpoints of a trajectory share one latent space"
        )


@pytest.mark.parametrize(
    ("channels", "told"),
    [
        (9, "9 channels are an inpainting model's"),
        (8, "8 channels are an InstructPix2Pix model's"),
        (5, "5 channels are a depth model's"),
    ],
)
def test_other_unet_inputs(channels: int, told: str) -> None:
    normal, special = Kind(Family.SD1, 4), Kind(Family.SD2, channels)
    for pair in ((normal, special), (special, normal), (Kind(None, 4), special)):
        (problem,) = chain(*pair)
        assert problem.message.endswith(f"began: the UNets of a trajectory take the same input, {told}")
    assert not chain(special, special)


@given(st.lists(kinds, min_size=1, max_size=16))
def test_only_what_is_known_to_differ_clashes(of: list[Kind]) -> None:
    spaces = {kind.family.latents for kind in of if kind.family}
    channels = {kind.unet_channels for kind in of if kind.unet_channels}
    assert bool(chain(*of)) == (len(spaces) > 1 or len(channels) > 1)


@given(plans(), st.lists(kinds, min_size=16, max_size=16))
def test_a_clash_is_of_a_switch_pass_and_told_once_for_a_checkpoint(plan: Any, of: list[Kind]) -> None:
    checkpoints = {
        index: (own.checkpoint, kind) for (index, own), kind in zip(plan.running, of, strict=False) if own.checkpoint
    }
    running = dict(plan.running)
    told = list(clashes(plan, checkpoints))
    assert len({problem.path for problem in told}) == len(told)
    for problem in told:
        index = int(problem.path.removeprefix("passes[").partition("]")[0])
        assert not running[index].is_head


def test_a_head_begins_a_trajectory_of_its_own() -> None:
    plan = decode(
        {
            "version": 1,
            "passes": [
                {"checkpoint": "a"},
                {"checkpoint": "b", "kind": "refine"},
                {"checkpoint": "a", "switch_at": 0.5},
            ],
        }
    )
    a, b = ("a", Kind(Family.SD1, 4)), ("b", Kind(Family.SDXL, 4))
    (problem,) = clashes(plan, {0: a, 1: b, 2: a})
    assert problem.path == "passes[2].checkpoint"
    assert not list(clashes(plan, {0: a, 1: b}))
