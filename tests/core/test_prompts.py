"""Which text a pass ends up with."""

from __future__ import annotations

from hypothesis import given

from multipass.plan import Plan, decode
from multipass.prompts import Texts, pass_texts
from tests.core.strategies import plans, texts

REQUEST = Texts("a fox, best quality", "lowres")


def resolved(*passes: dict[str, object], **plan: object) -> dict[int, Texts]:
    later = [{"switch_at": 0.5, **own} for own in passes[1:]]
    return pass_texts(decode({"version": 1, "passes": [passes[0], *later], **plan}), REQUEST)


def test_what_is_left_out_is_inherited() -> None:
    assert resolved({}, {}) == {0: REQUEST, 1: REQUEST}


def test_a_text_replaces_and_an_empty_text_is_a_text() -> None:
    assert resolved({}, {"prompt": "a photo", "negative_prompt": ""})[1] == Texts("a photo", "")


def test_append_and_prepend_hold_for_both_texts() -> None:
    own = {"prompt": "<lora:ink:1>", "negative_prompt": "blur"}
    assert resolved({}, {**own, "prompt_mode": "append"})[1] == Texts(
        "a fox, best quality, <lora:ink:1>", "lowres, blur"
    )
    assert resolved({}, {**own, "prompt_mode": "prepend"})[1] == Texts(
        "<lora:ink:1>, a fox, best quality", "blur, lowres"
    )


def test_a_switch_pass_inherits_from_its_head_not_from_the_switch_before_it() -> None:
    found = resolved({"prompt": "head"}, {"prompt": "second"}, {})
    assert [texts.prompt for texts in found.values()] == ["head", "second", "head"]


def test_the_common_text_ends_every_text_once() -> None:
    found = resolved({}, {"prompt": "b"}, common={"prompt": "sunset", "negative_prompt": "text"})
    assert found == {0: Texts("a fox, best quality, sunset", "lowres, text"), 1: Texts("b, sunset", "lowres, text")}


def test_a_pass_left_out_has_no_texts() -> None:
    assert list(resolved({"enabled": False}, {"prompt": "b"})) == [1]


@given(plans(), texts, texts)
def test_every_running_pass_has_texts_and_a_lora_tag_stays_where_it_was_written(
    plan: Plan, prompt: str, negative: str
) -> None:
    found = pass_texts(plan, Texts(prompt, negative))
    assert list(found) == [index for index, _ in plan.running]
    for index, own in plan.running:
        if own.prompt:
            assert own.prompt in found[index].prompt
