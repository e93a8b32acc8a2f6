"""The texts of a pass: what it inherits, what it says itself, what all have in common. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from multipass.plan import MAX_PASSES, MAX_PLACE, Pass, PassKind, Plan, PromptMode, PromptSyntax
from multipass.problems import PlanError, Problem
from multipass.subjects import PERSON

SEPARATOR = ", "
ADDED = Pass(kind=PassKind.SUBJECT, name=PERSON, target=PERSON, denoising_strength=0.6)
"""The subject pass of a plan that has none, where the prompt has subjects: another person's likeness, and still the
pose and the light of the one that is there."""
_BREAK = re.compile(r"\s*\bBREAK\b\s*")  # modules/prompt_parser.py
_ENDS = re.compile(r"^[\s,]+|[\s,]+$")
_SHARED = 2  # the parts before the subjects': scene and common
_NAME = 76  # of a pass, so that a number fits behind it


class Texts(msgspec.Struct, frozen=True):
    """The prompt and the negative prompt of one pass for one picture, LoRA tags included."""

    prompt: str
    negative_prompt: str


def pass_texts(plan: Plan, inherited: Texts) -> dict[int, Texts]:
    """The texts of every enabled pass, by its index in ``plan.passes``.

    Args:
        inherited: the request's texts for this picture, the host's styles applied: they reach the passes that inherit
            and no other. A switch pass inherits from its head, a head from the head before it. A LoRA tag is part of
            the text it stands in, so it holds for exactly the passes that have this text.

            With the syntax ``scene-break`` they are ``scene BREAK common BREAK subject [BREAK subject ...]``: a subject
            pass inherits its own part, every other head the scene's texts, and the common part ends all texts, before
            the plan's. The plan is one that ``expanded`` gave.

    Raises:
        PlanError: with the place ``prompt`` or ``negative_prompt``, where the texts have not as many parts as the plan
            has passes for them.
    """
    split = _split(plan, inherited)
    subjects = iter(split.subjects)
    result: dict[int, Texts] = {}
    head = scene = split.scene
    for index, own in plan.running:
        if own.is_head and plan.prompt_syntax is PromptSyntax.SCENE_BREAK:
            head = next(subjects) if own.kind is PassKind.SUBJECT else scene
        texts = Texts(
            _apply(own.prompt_mode, head.prompt, own.prompt),
            _apply(own.prompt_mode, head.negative_prompt, own.negative_prompt),
        )
        if not result or own.is_head:
            head = texts
            scene = scene if own.kind is PassKind.SUBJECT else texts
        result[index] = Texts(
            _join(texts.prompt, split.common.prompt, plan.common.prompt),
            _join(texts.negative_prompt, split.common.negative_prompt, plan.common.negative_prompt),
        )
    return result


def ignores_request(plan: Plan) -> bool:
    """Whether no enabled pass has any of the request's prompt in its own."""
    if plan.prompt_syntax is PromptSyntax.SCENE_BREAK:
        return False  # its common part is in all of them
    return pass_texts(plan, Texts("a", "")) == pass_texts(plan, Texts("b", ""))


def expanded(plan: Plan, prompt: str, negative_prompt: str) -> Plan:
    """The plan with a subject pass for each subject of a ``scene-break`` prompt; any other plan as it is.

    The subject passes that the plan has take the parts in order. For parts that remain, the last one is copied, with
    its switch passes, behind itself; it and its copies repaint one subject each, from left to right, on from the place
    that it says, or else from behind the passes before it that look for the same. A plan without a subject pass gets
    ``ADDED`` at its end. A plan that has enough of them stays as it is, so that one that was expanded stays, too.

    Raises:
        PlanError: with the place ``prompt`` or ``negative_prompt``, where there are too few parts, or too many; with a
            pass's, where that cannot be copied.
    """
    if plan.prompt_syntax is PromptSyntax.HOST:
        return plan
    parts = _parts(prompt)
    if len(parts) <= _SHARED:
        written = "one part" if len(parts) == 1 else f"{len(parts)} parts"
        raise PlanError(Problem("prompt", f"expected scene BREAK common BREAK subject, got {written}"))
    whole = _with_subjects(plan, len(parts) - _SHARED)
    _split(whole, Texts(prompt, negative_prompt))
    return whole


def added(plan: Plan, whole: Plan) -> range:
    """The places of the passes that ``expanded`` added to a plan to make ``whole`` of it: they are in one row."""
    there = _subjects(plan)
    begin = _end(plan, there[-1]) if there else len(plan.passes)
    return range(begin, begin + len(whole.passes) - len(plan.passes))


class _Split(NamedTuple):
    """The request's texts by whom they are for."""

    scene: Texts
    common: Texts
    subjects: tuple[Texts, ...]


def _split(plan: Plan, inherited: Texts) -> _Split:
    if plan.prompt_syntax is PromptSyntax.HOST:
        return _Split(inherited, Texts("", ""), ())
    count = len(_subjects(plan))
    prompts, negatives = _parts(inherited.prompt), _parts(inherited.negative_prompt)
    if len(negatives) == 1:  # without a BREAK it is for all
        negatives.insert(0, "")
    found = len(prompts) - _SHARED
    if found != count:
        reason = f"it has {_counted(max(found, 0))} behind scene BREAK common, and the plan passes for {count}"
        raise PlanError(Problem("prompt", reason))
    if len(negatives) > len(prompts):
        reason = f"it has {len(negatives)} parts and the prompt {len(prompts)}: each is for the part in its place"
        raise PlanError(Problem("negative_prompt", reason))
    negatives += [""] * (len(prompts) - len(negatives))
    scene, common, *subjects = map(Texts, prompts, negatives)
    return _Split(scene, common, tuple(subjects))


def _parts(text: str) -> list[str]:
    """At least one, without the commas at their ends: what they are joined with."""
    return [_ENDS.sub("", part) for part in _BREAK.split(text)]


def _subjects(plan: Plan) -> tuple[int, ...]:
    """The indices of the subject passes that are on."""
    return tuple(index for index, own in plan.running if own.kind is PassKind.SUBJECT)


def _with_subjects(plan: Plan, count: int) -> Plan:
    """With further subject passes, if it has less than that many."""
    if not _subjects(plan):
        plan = msgspec.structs.replace(plan, passes=(*plan.passes, ADDED))
    there = _subjects(plan)
    wanted = count - len(there) + 1  # passes in place of the last one
    if wanted > 1:
        plan = _repeated(plan, there[-1], wanted)
    if len(plan.passes) > MAX_PASSES:
        reason = f"with {_counted(count)} the plan has {len(plan.passes)} passes, and it can have at most {MAX_PASSES}"
        raise PlanError(Problem("prompt", reason))
    return plan


def _repeated(plan: Plan, index: int, wanted: int) -> Plan:
    """With so many of the subject pass there, a subject for each; the copies come behind its own trajectory."""
    own, following = plan.passes[index], [one for one in plan.running if one[0] > index]
    if own.mask is not None:
        reason = f"it has more subjects than the plan has passes, and passes[{index}] is not copied: it has a mask"
        raise PlanError(Problem("prompt", reason))
    end = _end(plan, index)
    switches = [plan.passes[k] for k, _ in following if k < end]
    checkpoint = own.checkpoint
    if any(one.checkpoint is not None for one in switches):  # which a copy's would be, if it named none
        checkpoint = dict(plan.running)[index].checkpoint
        if checkpoint is None:
            reason = "it has to name one, to be copied for further subjects"
            raise PlanError(Problem(f"passes[{index}].checkpoint", reason))
    before = (one for k, one in plan.running if k < index)
    taken = sum(one.kind is PassKind.SUBJECT and one.target == own.target for one in before)
    place = own.which if isinstance(own.which, int) else taken
    last = place + wanted - 1
    if last > MAX_PLACE:
        reason = f"the prompt's last subject would be at place {last}, and at most {MAX_PLACE} is possible"
        raise PlanError(Problem(f"passes[{index}].which", reason))
    first = msgspec.structs.replace(own, which=place)
    copies: list[Pass] = []
    for number in range(1, wanted):
        name = own.name and f"{own.name[:_NAME]} {number + 1}"
        changed = {"name": name, "which": place + number, "checkpoint": checkpoint}
        # the picture is enlarged once
        copies += [msgspec.structs.replace(own, **changed, scale=None, upscaler=None), *switches]
    followed = plan.adetailer.index
    if followed is not None and followed >= end:
        followed += len(copies)
    return msgspec.structs.replace(
        plan,
        passes=(*plan.passes[:index], first, *plan.passes[index + 1 : end], *copies, *plan.passes[end:]),
        adetailer=msgspec.structs.replace(plan.adetailer, index=followed),
    )


def _end(plan: Plan, index: int) -> int:
    """Where the trajectory of the pass there ends: the next one's head, or the end of the plan."""
    return next((k for k, one in plan.running if k > index and one.is_head), len(plan.passes))


def _counted(subjects: int) -> str:
    return f"{subjects} subject{'' if subjects == 1 else 's'}"


def _apply(mode: PromptMode, inherited: str, own: str | None) -> str:
    if own is None:
        return inherited
    match mode:
        case PromptMode.REPLACE:
            return own
        case PromptMode.APPEND:
            return _join(inherited, own)
        case PromptMode.PREPEND:
            return _join(own, inherited)


def _join(*texts: str) -> str:
    return SEPARATOR.join(text for text in texts if text)
