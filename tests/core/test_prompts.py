"""Which text a pass ends up with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from multipass.plan import MAX_PASSES, MAX_PLACE, PassKind, Plan, PlanError, PromptSyntax, decode, encode
from multipass.prompts import ADDED, Texts, added, expanded, ignores_request, pass_texts
from tests.core.strategies import plans, subject_plans, texts

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


@pytest.mark.parametrize(
    ("passes", "ignores"),
    [
        ([{}], False),
        ([{"prompt": ""}], True),
        ([{"prompt": "a"}, {}], True),  # which inherits from its head
        ([{}, {"prompt": "a"}], False),
        ([{"prompt": "a", "prompt_mode": "append"}], False),
        ([{"enabled": False}, {"prompt": "a", "switch_at": 0.5}], True),
        ([{"prompt": "a"}, {"kind": "refine", "denoising_strength": 0.5, "prompt_mode": "append"}], True),
        ([{"negative_prompt": "a"}], False),
    ],
)
def test_the_request_s_prompt_is_ignored_where_no_pass_has_it(passes: list[dict[str, object]], ignores: bool) -> None:
    passes = [passes[0], *({"switch_at": 0.5, **own} if "kind" not in own else own for own in passes[1:])]
    for common in ({}, {"prompt": "sunset"}):
        assert ignores_request(decode({"version": 1, "passes": passes, "common": common})) == ignores


@given(plans(), texts, texts)
def test_every_running_pass_has_texts_and_a_lora_tag_stays_where_it_was_written(
    plan: Plan, prompt: str, negative: str
) -> None:
    found = pass_texts(plan, Texts(prompt, negative))
    assert list(found) == [index for index, _ in plan.running]
    for index, own in plan.running:
        if own.prompt:
            assert own.prompt in found[index].prompt


# --- scene BREAK common BREAK subject ---------------------------------------------------------------------------------

PERSON = {"kind": "subject", "target": "person", "denoising_strength": 0.5}
PROMPT = "a beach BREAK photorealistic BREAK an astronaut <lora:suit:1>"


def broken(*later: dict[str, object], **plan: object) -> Plan:
    return decode({"version": 1, "prompt_syntax": "scene-break", "passes": [{}, *later], **plan})


def refused(plan: Plan, prompt: str, negative: str = "") -> str:
    with pytest.raises(PlanError) as found:
        expanded(plan, prompt, negative)
    return str(found.value)


def test_every_part_of_the_prompt_reaches_its_pass_and_the_common_part_all() -> None:
    plan = broken(PERSON, common={"prompt": "sunset"})
    assert expanded(plan, PROMPT, "") == plan
    assert pass_texts(plan, Texts(PROMPT, "clouds BREAK lowres BREAK helmet")) == {
        0: Texts("a beach, photorealistic, sunset", "clouds, lowres"),
        1: Texts("an astronaut <lora:suit:1>, photorealistic, sunset", "helmet, lowres"),
    }


@pytest.mark.parametrize(
    ("negative", "scene", "subject"),
    [
        ("", "", ""),
        ("lowres", "lowres", "lowres"),
        ("clouds BREAK lowres", "clouds, lowres", "lowres"),
        ("clouds BREAK", "clouds", ""),
        ("BREAK BREAK helmet", "", "helmet"),
    ],
)
def test_a_negative_without_break_is_for_all_and_missing_parts_are_empty(
    negative: str, scene: str, subject: str
) -> None:
    found = pass_texts(broken(PERSON), Texts(PROMPT, negative))
    assert [found[0].negative_prompt, found[1].negative_prompt] == [scene, subject]


def test_break_is_found_as_the_host_finds_it() -> None:
    found = pass_texts(broken(PERSON), Texts("a beach,\nBREAK\n\n photo, BREAKfast break ,BREAK\tan astronaut,", ""))
    assert [text.prompt for text in found.values()] == [
        "a beach, photo, BREAKfast break",
        "an astronaut, photo, BREAKfast break",
    ]


def test_a_pass_s_own_text_meets_its_part() -> None:
    own = {"prompt": "<lora:face:1>", "prompt_mode": "append"}
    switch = {"switch_at": 0.5, "prompt": "gold", "prompt_mode": "prepend"}
    found = pass_texts(broken({**PERSON, **own}, switch, {**PERSON, "prompt": "a dog"}), Texts(f"{PROMPT} BREAK x", ""))
    assert [text.prompt for text in found.values()] == [
        "a beach, photorealistic",
        "an astronaut <lora:suit:1>, <lora:face:1>, photorealistic",
        "gold, an astronaut <lora:suit:1>, <lora:face:1>, photorealistic",
        "a dog, photorealistic",
    ]


def test_a_refine_pass_has_the_scene_s_texts_wherever_it_stands() -> None:
    refine = {"kind": "refine", "denoising_strength": 0.3}
    plan = broken({**refine, "prompt": "oil", "prompt_mode": "append"}, PERSON, refine)
    found = pass_texts(plan, Texts(PROMPT, ""))
    assert [found[index].prompt for index in (1, 3)] == ["a beach, oil, photorealistic"] * 2


def test_without_the_syntax_break_is_the_host_s() -> None:
    plan = decode({"version": 1, "passes": [{}, PERSON]})
    assert expanded(plan, "a", "") is plan
    assert pass_texts(plan, Texts(PROMPT, "a BREAK b")) == dict.fromkeys((0, 1), Texts(PROMPT, "a BREAK b"))


def test_a_plan_without_a_subject_pass_gets_one_for_each_subject() -> None:
    assert expanded(broken(), PROMPT, "").passes[1:] == (ADDED,)
    found = expanded(broken({"kind": "refine", "denoising_strength": 0.3}), f"{PROMPT} BREAK a dog BREAK a cat", "")
    assert [own.kind for own in found.passes] == [None, PassKind.REFINE, *[PassKind.SUBJECT] * 3]
    assert [(own.name, own.which) for own in found.passes[2:]] == [("person", 0), ("person 2", 1), ("person 3", 2)]


def test_the_last_subject_pass_is_copied_with_its_switches_behind_them() -> None:
    plan = broken(
        {**PERSON, "name": "one", "checkpoint": "a", "scale": 2, "steps": 7},
        {"switch_at": 0.2, "enabled": False},
        {"switch_at": 0.5, "checkpoint": "b"},
        {"kind": "refine", "denoising_strength": 0.1},
        adetailer={"pass": 4},
    )
    found = expanded(plan, f"{PROMPT} BREAK a dog", "")
    assert found.passes[:4] == (plan.passes[0], replace(plan.passes[1], which=0), *plan.passes[2:4])
    copy, switch, refine = found.passes[4:]
    assert (copy.name, copy.which, copy.checkpoint, copy.steps, copy.scale) == ("one 2", 1, "a", 7, None)
    assert (switch, refine) == (plan.passes[3], plan.passes[4])
    assert found.adetailer.index == 6


@pytest.mark.parametrize(
    ("which", "places"),
    [([None], [0, 1, 2]), (["largest"], [0, 1, 2]), ([4], [4, 5, 6]), ([0, None], [0, 1, 2]), ([1, 0], [1, 0, 1])],
)
def test_the_copies_count_on_from_left_to_right(which: list[object], places: list[int]) -> None:
    own = [{**PERSON, **({} if place is None else {"which": place})} for place in which]
    found = expanded(broken(*own), f"{PROMPT} BREAK a dog BREAK a cat", "")
    assert [one.which for one in found.passes[1:]] == places


def test_texts_that_do_not_fit_the_plan_are_refused() -> None:
    assert refused(broken(PERSON), "a beach") == "prompt: expected scene BREAK common BREAK subject, got one part"
    assert refused(broken(PERSON), "a BREAK b") == "prompt: expected scene BREAK common BREAK subject, got 2 parts"
    told = refused(broken(PERSON, PERSON), PROMPT)
    assert told == "prompt: it has 1 subject behind scene BREAK common, and the plan passes for 2"
    told = refused(broken(PERSON), PROMPT, "a BREAK b BREAK c BREAK d")
    assert told == "negative_prompt: it has 4 parts and the prompt 3: each is for the part in its place"
    told = refused(broken(PERSON), PROMPT + " BREAK x" * 15)
    assert told == "prompt: with 16 subjects the plan has 17 passes, and it can have at most 16"
    others = [{"switch_at": 0.5}] * (MAX_PASSES - 1)
    told = refused(broken(*others), PROMPT)
    assert told == "prompt: with 1 subject the plan has 17 passes, and it can have at most 16"
    told = refused(broken({**PERSON, "which": MAX_PLACE}), f"{PROMPT} BREAK x")
    assert told == "passes[1].which: the prompt's last subject would be at place 100, and at most 99 is possible"
    told = refused(broken({"kind": "subject", "mask": "..."}), f"{PROMPT} BREAK x")
    assert told == "prompt: it has more subjects than the plan has passes, and passes[1] is not copied: it has a mask"
    told = refused(broken(PERSON, {"switch_at": 0.5, "checkpoint": "b"}), f"{PROMPT} BREAK x")
    assert told == "passes[1].checkpoint: it has to name one, to be copied for further subjects"


def test_a_picture_s_texts_that_split_otherwise_than_the_plan_are_refused() -> None:
    with pytest.raises(
        PlanError, match="prompt: it has 2 subjects behind scene BREAK common, and the plan passes for 1"
    ):
        pass_texts(broken(PERSON), Texts(f"{PROMPT} BREAK x", ""))


def test_a_scene_s_request_is_never_ignored() -> None:
    assert not ignores_request(broken({**PERSON, "prompt": "own"}))


plain = texts.filter(lambda text: "BREAK" not in text)


@given(subject_plans(), st.lists(plain, min_size=3, max_size=9), st.lists(plain, max_size=9))
def test_an_expanded_plan_has_a_pass_for_every_part_and_stays(
    plan: Plan, parts: list[str], negatives: list[str]
) -> None:
    prompt, negative = " BREAK ".join(parts), " BREAK ".join(negatives)
    try:
        found = expanded(plan, prompt, negative)
    except PlanError as error:
        assert all(problem.path for problem in error.problems)
        return
    assert expanded(found, prompt, negative) == found == decode(encode(found))
    assert len(found.passes) <= MAX_PASSES
    new = added(plan, found)
    left = [replace(own, which=None, checkpoint=None) for place, own in enumerate(found.passes) if place not in new]
    assert left == [replace(own, which=None, checkpoint=None) for own in plan.passes]
    split = pass_texts(found, Texts(prompt, negative))
    assert list(split) == [index for index, _ in found.running]
    if plan.prompt_syntax is PromptSyntax.HOST:
        assert found == plan
        return
    subjects = [index for index, own in found.running if own.kind is PassKind.SUBJECT]
    for index, part in zip(subjects, parts[2:], strict=True):
        if found.passes[index].prompt is None:
            assert split[index].prompt.startswith(re.sub(r"^[\s,]+|[\s,]+$", "", part))


@given(subject_plans(), st.lists(plain, min_size=3, max_size=6), st.integers(2, 5))
def test_a_subject_s_part_reaches_only_its_own_trajectory(plan: Plan, parts: list[str], changed: int) -> None:
    changed = min(changed, len(parts) - 1)
    other = [*parts]
    other[changed] += "!"
    prompt, another = " BREAK ".join(parts), " BREAK ".join(other)
    try:
        found = expanded(plan, prompt, "")
    except PlanError:
        return
    if found.prompt_syntax is PromptSyntax.HOST:
        return
    before, after = (pass_texts(found, Texts(text, "")) for text in (prompt, another))
    subjects = [one for one in found.trajectories if one.head.kind is PassKind.SUBJECT]
    own = {index for index, _ in subjects[changed - 2].passes}
    assert {index for index in before if before[index] != after[index]} <= own
