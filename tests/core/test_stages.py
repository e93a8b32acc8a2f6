"""What there is to compare of a picture, from its run's manifest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.manifest import ImageRecord, Load, Manifest, PassRecord, Source, Status
from multipass.plan import Pass, Plan
from multipass.stages import ORIGINAL, stages

LOAD = Load(Source.RESIDENT, 0.0)


def record(name: str, picture: str | None = None, first: int = 0, end: int = 4) -> PassRecord:
    return PassRecord(name, "a [123]", "", "first", first, end, 14.6, 0.0, 1.0, LOAD, end - first, picture=picture)


def manifest(*images: ImageRecord) -> Manifest:
    return Manifest("r", Status.DONE, Plan(version=1, passes=(Pass(),)), images)


def test_each_pass_has_a_label_and_what_made_it() -> None:
    passes = (record("Pass 1", "a.png"), record("style", "b.png", 4, 5), record("", "c.png", 0, 0))
    found = stages(manifest(ImageRecord(7, passes, original="o.png")), 0, str.upper)
    assert [own.label for own in found] == [ORIGINAL, "Pass 1", "Pass 2: style", "Pass 3"]
    assert [own.src for own in found] == ["O.PNG", "A.PNG", "B.PNG", "C.PNG"]
    assert [own.told for own in found[1:]] == ["a [123], steps 1-4", "a [123], step 5", "a [123], no step"]


def test_what_is_not_there_is_said() -> None:
    there = manifest(ImageRecord(7, (record("one"), record("two", "gone.png"))))
    one, two = stages(there, 0, lambda _: None)
    assert (one.src, two.src) == (None, None)
    assert one.told.endswith(": no picture of it was kept")
    assert two.told.endswith(": its picture was moved or deleted")


@given(st.integers(-3, 5))
def test_a_picture_that_a_run_does_not_have_is_refused(image: int) -> None:
    two = manifest(*[msgspec.structs.replace(ImageRecord(7, (record("one"),)), seed=seed) for seed in (1, 2)])
    if image in (0, 1):
        assert len(stages(two, image, str)) == 1
    else:
        with pytest.raises(IndexError):
            stages(two, image, str)
