"""A safetensors file's header is read as the library reads it, and hostile bytes are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from multipass.cache import header
from multipass.cache.header import HeaderError

WHOLE = save({"a.weight": np.zeros((2, 3), np.float16), "b": np.ones(4, np.float32), "c": np.zeros((0, 5))})
any_number_of_times = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "x.safetensors"


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in header.read(path).items()}


def by_the_library(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def agrees_with_the_library(path: Path) -> None:
    """What the library opens, we read as it does; what it does not open, we refuse or find nothing wrong with."""
    try:
        ours = shapes(path)
    except HeaderError as error:
        assert str(error)
        with pytest.raises((SafetensorError, OSError)):
            by_the_library(path)
        return
    try:
        expected = by_the_library(path)
    except SafetensorError:
        return
    assert ours == expected


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 3), max_size=4),
        max_size=5,
    ),
    st.none() | st.dictionaries(st.text(), st.text(), min_size=1, max_size=2),
)
@any_number_of_times
def test_names_and_shapes_are_the_librarys(path: Path, tensors: dict[str, list[int]], metadata: Any) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in tensors.items()}, path, metadata)
    assert shapes(path) == {name: tuple(shape) for name, shape in tensors.items()}


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_file_cut_off_anywhere_is_refused(path: Path, length: int) -> None:
    path.write_bytes(WHOLE[:length])
    with pytest.raises(HeaderError):
        header.read(path)


def test_bytes_behind_the_last_tensor_are_refused(path: Path) -> None:
    path.write_bytes(WHOLE + b"\0")
    with pytest.raises(HeaderError, match="its tensors take 28 bytes, 29 are there"):
        header.read(path)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
@any_number_of_times
def test_a_wrong_byte(path: Path, at: int, byte: int) -> None:
    path.write_bytes(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :])
    agrees_with_the_library(path)


@given(st.binary(max_size=200))
@any_number_of_times
def test_any_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    agrees_with_the_library(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=10,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F99"]) | json_values,
        "shape": st.lists(st.integers(-1, 3) | st.just(2**64), max_size=2) | json_values,
        "data_offsets": st.lists(st.integers(-1, 9) | st.just(2**64), max_size=3) | json_values,
    }
)


@given(st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries | json_values, max_size=3) | json_values)
@any_number_of_times
def test_any_json(path: Path, content: Any) -> None:
    text = json.dumps(content).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    agrees_with_the_library(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": {"dtype": "F32", "shape": [' + "9" * 5000 + '], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e400]}}',
        '{"\\ud800": 1}',
        "\0",
    ],
    ids=lambda text: text[:20],
)
def test_a_header_that_wants_too_much(text: str) -> None:
    with pytest.raises(HeaderError):
        header.parse(text.encode(), 0)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(HeaderError):
            header.read(wrong)
