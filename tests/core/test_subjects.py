"""What a subject pass repaints, and in which size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.kinds import Family
from multipass.subjects import Region, working_size

families = st.sampled_from([None, *Family])
pictures = st.tuples(st.integers(64, 4096), st.integers(64, 4096))


@given(pictures, families, families, st.booleans())
def test_a_working_size_has_the_shape_of_the_picture_and_suits_the_model(
    picture: tuple[int, int], scene: Family | None, family: Family | None, only_masked: bool
) -> None:
    width, height = working_size(Region(only_masked=only_masked), picture, scene, family)
    assert width % 8 == height % 8 == 0
    assert min(width, height) >= 64
    sides = [own and own.side for own in (scene, family)]
    if not only_masked or scene is family or None in sides:
        assert (width, height) == tuple(side // 8 * 8 for side in picture)
        return
    assert sides[1] is not None
    scale = sides[1] / (picture[0] * picture[1]) ** 0.5
    assert all(abs(own - max(side * scale, 64)) <= 4 for own, side in zip((width, height), picture, strict=True))


@given(pictures, families, families, st.integers(1, 512), st.integers(1, 512))
def test_what_the_region_says_is_the_working_size(
    picture: tuple[int, int], scene: Family | None, family: Family | None, columns: int, rows: int
) -> None:
    asked, default = (8 * columns, 8 * rows), working_size(Region(), picture, scene, family)
    assert working_size(Region(width=asked[0], height=asked[1]), picture, scene, family) == asked
    assert working_size(Region(width=asked[0]), picture, scene, family) == (asked[0], default[1])


@pytest.mark.parametrize(
    ("picture", "scene", "family", "size"),
    [
        ((128, 64), Family.SD1, Family.SDXL, (1448, 728)),
        ((128, 64), Family.SDXL, Family.SD1, (728, 360)),
        ((1000, 700), Family.SDXL, Family.SDXL, (1000, 696)),
        ((512, 512), Family.SD1, Family.FLUX, (512, 512)),
    ],
)
def test_some_working_sizes(picture: tuple[int, int], scene: Family, family: Family, size: tuple[int, int]) -> None:
    assert working_size(Region(), picture, scene, family) == size
