"""Hypothesis strategies for plans and for what samplers run."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from multipass.plan import (
    MAX_PLACE,
    ADetailer,
    Common,
    OnMissing,
    Pass,
    PassKind,
    Plan,
    PromptMode,
    PromptSyntax,
    SwitchUnit,
    Which,
)
from multipass.schedule import SamplingSteps

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
optional_texts = st.none() | texts
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
unit_values: dict[SwitchUnit, st.SearchStrategy[float]] = {
    SwitchUnit.STEPS: st.floats(0, 1),
    SwitchUnit.TIMESTEP: st.floats(0, 1),
    SwitchUnit.SIGMA: st.floats(0, 200),
    SwitchUnit.STEP: st.integers(0, 200).map(float),
}


@st.composite
def passes(draw: st.DrawFn, *, first: bool, plan_unit: SwitchUnit) -> Pass:
    shared = {
        "name": draw(texts),
        "checkpoint": draw(st.none() | names),
        "prompt": draw(optional_texts),
        "negative_prompt": draw(optional_texts),
        "prompt_mode": draw(st.sampled_from(PromptMode)),
        "cfg_scale": draw(st.none() | st.floats(1, 30)),
        "clip_skip": draw(st.none() | st.integers(1, 12)),
    }
    if first:
        return Pass(**shared)
    unit = draw(st.none() | st.sampled_from(SwitchUnit))
    return Pass(
        **shared,
        kind=draw(st.sampled_from([None, PassKind.SWITCH])),
        enabled=draw(st.booleans()),
        switch_unit=unit,
        switch_at=draw(unit_values[unit or plan_unit]),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of switch passes that the rules accept; their boundaries may decrease once laid over steps."""
    unit = draw(st.sampled_from(SwitchUnit))
    count = draw(st.integers(0, 5))
    own = (
        draw(passes(first=True, plan_unit=unit)),
        *(draw(passes(first=False, plan_unit=unit)) for _ in range(count)),
    )
    enabled = [index for index, one in enumerate(own) if one.enabled]
    return Plan(
        version=1,
        switch_unit=unit,
        common=Common(prompt=draw(texts), negative_prompt=draw(texts)),
        passes=own,
        save_passes=draw(st.booleans()),
        triptych=draw(st.booleans()),
        adetailer=ADetailer(index=draw(st.none() | st.sampled_from(enabled)), prompts=draw(st.booleans())),
    )


@st.composite
def refined_plans(draw: st.DrawFn) -> Plan:
    """The same, some of their later passes refining."""
    plan = draw(plans())
    refine = st.builds(
        Pass,
        kind=st.just(PassKind.REFINE),
        enabled=st.booleans(),
        checkpoint=st.none() | names,
        steps=st.none() | st.integers(1, 60),
        sampler_name=st.none() | names,
        scheduler=st.none() | names,
        denoising_strength=st.none() | st.floats(0, 1),
        cfg_scale=st.none() | st.floats(1, 30),
        scale=st.none() | st.floats(0.25, 8),
    )
    first, *others = plan.passes
    return msgspec.structs.replace(
        plan,
        passes=(first, *(draw(refine) if draw(st.booleans()) else own for own in others)),
        adetailer=ADetailer(),  # the pass that it follows may be off now
    )


@st.composite
def subject_passes(draw: st.DrawFn) -> Pass:
    """Subject passes that the rules accept, with a target or with a mask (whose text no rule looks into)."""
    only_masked = draw(st.none() | st.booleans())
    fields: dict[str, Any] = {
        "mask_blur": draw(st.none() | st.integers(0, 64)),
        "invert": draw(st.none() | st.booleans()),
        "only_masked": only_masked,
        "denoising_strength": draw(st.none() | st.floats(0, 1)),
        "prompt": draw(optional_texts),
        "enabled": draw(st.booleans()),
    }
    if only_masked is not False:
        fields["mask_padding"] = draw(st.none() | st.integers(0, 256))
        fields["width"] = draw(st.none() | st.integers(8, 16384))
    if draw(st.booleans()):
        fields |= {
            "target": draw(names),
            "which": draw(st.none() | st.sampled_from(Which) | st.integers(0, MAX_PLACE)),
            "on_missing": draw(st.none() | st.sampled_from(OnMissing)),
        }
    else:
        fields["mask"] = draw(names)
    return Pass(kind=PassKind.SUBJECT, **fields)


@st.composite
def subject_plans(draw: st.DrawFn) -> Plan:
    """Refined plans, some of their later passes repainting subjects."""
    plan = draw(refined_plans())
    first, *others = plan.passes
    return msgspec.structs.replace(
        plan,
        prompt_syntax=draw(st.sampled_from(PromptSyntax)),
        passes=(first, *(draw(subject_passes()) if draw(st.booleans()) else own for own in others)),
    )


@st.composite
def ordered_plans(draw: st.DrawFn) -> Plan:
    """Plans whose boundaries, in one unit, are in the order in which a sampler reaches them."""
    plan = draw(plans())
    unit = plan.switch_unit
    values = sorted((draw(unit_values[unit]) for _ in plan.passes[1:]), reverse=unit is SwitchUnit.SIGMA)
    first, *others = plan.passes
    placed = [
        msgspec.structs.replace(own, switch_unit=None, switch_at=value)
        for own, value in zip(others, values, strict=True)
    ]
    return msgspec.structs.replace(plan, passes=(first, *placed))


@st.composite
def sampling_steps(draw: st.DrawFn) -> SamplingSteps:
    """One step or more, sigmas strictly decreasing to 0, timesteps with them."""
    count = draw(st.integers(1, 60))
    sigmas = sorted(draw(st.lists(st.floats(0.01, 160), min_size=count, max_size=count, unique=True)), reverse=True)
    timesteps = sorted(draw(st.lists(st.integers(0, 999), min_size=count, max_size=count)), reverse=True)
    return SamplingSteps(sigmas=(*sigmas, 0.0), timesteps=tuple(map(float, timesteps)))


@st.composite
def uneven_steps(draw: st.DrawFn) -> SamplingSteps:
    """Steps of samplers that ask several times in a step, go back to more noise, or run what they were not asked to."""
    count = draw(st.integers(1, 20))
    asking = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    return SamplingSteps(
        sigmas=(*draw(st.lists(st.floats(0.01, 160), min_size=count, max_size=count)), 0.0),
        timesteps=tuple(map(float, draw(st.lists(st.integers(0, 999), min_size=count, max_size=count)))),
        evaluations=tuple(sum(asking[:i]) for i in range(count)),
        asked=draw(st.none() | st.integers(1, 60)),
    )


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[Plan, SamplingSteps]:
    """An ordered plan and steps that it fits: no step number is beyond them."""
    plan, steps = draw(ordered_plans()), draw(sampling_steps())
    if plan.switch_unit is not SwitchUnit.STEP:
        return plan, steps
    first, *others = plan.passes
    fitted = [msgspec.structs.replace(own, switch_at=min(own.switch_at or 0, steps.count)) for own in others]
    return msgspec.structs.replace(plan, passes=(first, *fitted)), steps
