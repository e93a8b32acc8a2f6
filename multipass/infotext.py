"""What a picture says about its passes: the two infotext values, for machines and for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from multipass.plan import Plan, encode
from multipass.schedule import Segment, span

PASSES_KEY = "Multipass passes"
PLAN_KEY = "Multipass"


def as_run(plan: Plan, checkpoint_titles: Mapping[int, str]) -> Plan:
    """The plan with the checkpoints that really ran, so that it renders the same picture elsewhere.

    A checkpoint that a pass names becomes its title, and the first running pass, whose checkpoint may come from the
    request, gets one. What a later pass leaves out stays left out: it still means the pass before's.

    Args:
        checkpoint_titles: ``name [hash]`` by index in ``plan.passes``; a pass without one is kept as written.
    """
    first = plan.running[0][0]
    return msgspec.structs.replace(
        plan,
        passes=tuple(
            msgspec.structs.replace(own, checkpoint=checkpoint_titles[index])
            if index in checkpoint_titles and (own.checkpoint is not None or index == first)
            else own
            for index, own in enumerate(plan.passes)
        ),
    )


def infotext_values(plan: Plan, parts: Sequence[Segment], checkpoint_titles: Mapping[int, str]) -> dict[str, str]:
    """The values of both keys, in the order to write them, not yet quoted.

    ``Multipass passes`` is for people (``composition ponyXL [abc123] 1-12; style animagine [def456] 13-30``, steps
    counted from 1), ``Multipass`` is the plan as run in compact JSON. The plan comes last, because some readers split
    quoted values at commas: so what they lose is nothing but the plan.

    Args:
        parts: the segments that were sampled; a pass without one is not told.
        checkpoint_titles: as in ``as_run``; for every pass in ``parts`` that should be told with its checkpoint.
    """
    told = (
        " ".join(text for text in (plan.label(i), checkpoint_titles.get(i, ""), span(part)) if text)
        for part in parts
        for i in (part.pass_index,)
    )
    return {PASSES_KEY: "; ".join(told), PLAN_KEY: encode(as_run(plan, checkpoint_titles))}
