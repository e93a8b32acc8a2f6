"""What a pass did to several subjects is one record."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from multipass.manifest import Load, PassRecord, Source

COUNTS, SECONDS = st.integers(0, 1000), st.integers(0, 1000).map(float)  # whole ones, which add up exactly
RECORDS = st.builds(
    PassRecord,
    name=st.just("face"),
    checkpoint=st.just("a [123]"),
    sha256=st.just(""),
    kind=st.just("subject"),
    first_step=COUNTS,
    end_step=COUNTS,
    sigma_in=SECONDS,
    sigma_out=SECONDS,
    seconds=SECONDS,
    load=st.builds(Load, st.sampled_from(Source), SECONDS),
    unet_evaluations=COUNTS,
    memo_hits=COUNTS,
)


@given(RECORDS, RECORDS, RECORDS)
def test_what_takes_time_adds_up_and_the_rest_is_the_first_subjects(
    one: PassRecord, two: PassRecord, three: PassRecord
) -> None:
    several = one.and_another(two).and_another(three)
    each = one, two, three
    assert several.seconds == sum(own.seconds for own in each)
    assert several.load.seconds == sum(own.load.seconds for own in each)
    assert several.unet_evaluations == sum(own.unet_evaluations for own in each)
    assert several.memo_hits == sum(own.memo_hits for own in each)
    counted = "seconds", "load", "unet_evaluations", "memo_hits"
    assert msgspec.structs.replace(several, **{name: getattr(one, name) for name in counted}) == one
    assert several.load.source is one.load.source
