"""A checkpoint is read to the bit as the library reads it, into memory of its own, or refused with a reason."""

from __future__ import annotations

import io
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from multipass.cache import reader
from multipass.cache.reader import Cancelled, ReadError

any_number_of_times = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def random(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Any bits, NaN among them; a BOOL is 0 or 1."""
    size = torch.empty(0, dtype=reader.DTYPES[dtype]).element_size()
    numbers = torch.randint(
        2 if dtype == "BOOL" else 256,
        (*shape, size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )
    return numbers.view(reader.DTYPES[dtype]).reshape(shape)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape), name
        assert tensor.is_contiguous(), name
        assert bits(tensor) == bits(expected[name]), name
        assert tensor.data_ptr() % tensor.element_size() == 0, name


def write(path: Path, tensors: list[tuple[str, str, Tensor]], *, gap: int = 0) -> None:
    """A file as the library would not write it: in this order, so that wide numbers may lie anywhere.

    Args:
        gap: blanks behind the header's JSON, as the format allows.
    """
    entries: dict[str, Any] = {}
    data = b""
    for name, dtype, tensor in tensors:
        after = len(data) + tensor.nbytes
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), after]}
        data += bits(tensor)
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8 + gap)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def use_files(monkeypatch: pytest.MonkeyPatch, readinto: Callable[[io.FileIO, Any], int]) -> None:
    """The reader's files read as ``readinto`` says; the header is read as ever."""

    class File(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            return readinto(super(), buffer) if len(buffer) == reader.PIECE else super().readinto(buffer)

    monkeypatch.setattr(reader, "open", lambda path, _: io.BufferedReader(File(path), 16), raising=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and runs of a few bytes, so that small files have many."""
    monkeypatch.setattr(reader, "PIECE", 64)
    monkeypatch.setattr(reader, "RUN", 256)


@pytest.fixture
def four(path: Path, small: None) -> dict[str, Tensor]:
    """A file of 1040 bytes: three tensors of one run each, and one of 16 bytes."""
    tensors = {
        name: random("F16", (size,), seed)
        for seed, (name, size) in enumerate({"a": 128, "b": 128, "c": 256, "d": 8}.items())
    }
    save_file(tensors, path)
    return tensors


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
described = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(reader.DTYPES)), shapes),
    max_size=12,
)


@given(described, st.data())
@any_number_of_times
def test_what_is_read_is_what_the_library_reads(
    path: Path, small: None, described: dict[str, tuple[str, tuple[int, ...]]], data: st.DataObject
) -> None:
    save_file({name: random(*what, seed) for seed, (name, what) in enumerate(described.items())}, path)
    whole = load_file(path)
    assert_same(reader.read(path), whole)
    some = data.draw(st.sets(st.sampled_from(sorted(described)))) if described else set[str]()
    assert_same(reader.read(path, some), {name: whole[name] for name in some})
    assert_same(reader.read(path, some, apart=len), {name: whole[name] for name in some})


@given(described, st.randoms(use_true_random=False), st.integers(0, 8))
@any_number_of_times
def test_numbers_that_begin_anywhere(
    path: Path, small: None, described: dict[str, tuple[str, tuple[int, ...]]], shuffle: Any, gap: int
) -> None:
    tensors = [(name, what[0], random(*what, seed)) for seed, (name, what) in enumerate(described.items())]
    shuffle.shuffle(tensors)
    write(path, tensors, gap=gap)
    assert_same(reader.read(path), {name: tensor for name, _, tensor in tensors})
    assert_same(
        reader.read(path, [name for name, *_ in tensors[1:]]), {name: tensor for name, _, tensor in tensors[1:]}
    )


def test_every_type(path: Path) -> None:
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    types += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    save_file({str(dtype): torch.ones(2).to(dtype) for dtype in types}, path)
    ours = reader.read(path)
    assert {name: str(tensor.dtype) for name, tensor in ours.items()} == {str(dtype): str(dtype) for dtype in types}
    assert_same(ours, load_file(path))


def test_only_what_is_crooked_in_the_file_is_copied(path: Path) -> None:
    write(
        path, [("a", "F16", random("F16", (1,))), ("b", "F16", random("F16", (3,))), ("c", "F64", random("F64", (2,)))]
    )
    ours = reader.read(path, ["b", "c"])
    assert ours["c"].data_ptr() - ours["b"].data_ptr() == 6
    assert ours["c"].data_ptr() % 8 == 0
    write(path, [("b", "F16", random("F16", (3,))), ("c", "F64", random("F64", (2,)))])
    ours = reader.read(path)
    assert ours["c"].data_ptr() % 8 == 0
    assert_same(ours, load_file(path))


def test_tensors_are_writable_and_the_files_bytes_stay(path: Path, four: dict[str, Tensor]) -> None:
    before = path.read_bytes()
    ours, others = reader.read(path), reader.read(path)
    for tensor in ours.values():
        tensor.fill_(7)
    assert path.read_bytes() == before
    assert_same(others, four)
    path.unlink()
    assert_same(others, four)


def buffers(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Weak references to all memory that is read into from now on."""
    made: list[Callable[[], Any]] = []
    fresh = np.empty

    def remembered(*arguments: Any) -> Any:
        made.append(weakref.ref(buffer := fresh(*arguments)))
        return buffer

    monkeypatch.setattr(np, "empty", remembered)
    return made


def test_a_runs_memory_is_freed_with_the_last_of_its_tensors(
    path: Path, four: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = buffers(monkeypatch)
    ours = reader.read(path)
    assert [made().nbytes for made in made] == [256, 256, 512, 16], "cut where a tensor ends"
    for index, name in enumerate("abcd"):
        assert made[index]() is not None
        del ours[name]
        assert made[index]() is None


def test_parts_share_no_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["unet.a", "unet.b", "vae.a", "vae.b"]
    save_file({name: random("F16", (5,)) for name in names}, path)
    made = buffers(monkeypatch)
    ours = reader.read(path, apart=lambda name: name.split(".")[0])
    unet, vae = made
    del ours["vae.a"], ours["vae.b"]
    assert vae() is None
    assert unet() is not None
    del ours["unet.a"]
    assert unet() is not None
    assert_same(ours, {"unet.b": random("F16", (5,))})
    del ours["unet.b"]
    assert unet() is None


def test_a_tensors_storage_has_its_own_bytes_alone(path: Path) -> None:
    """Else saving one, or sending it to another process, takes its neighbours along."""
    save_file({name: random("F16", (100,)) for name in "ab"}, path)
    assert [tensor.untyped_storage().nbytes() for tensor in reader.read(path).values()] == [200, 200]


def test_what_was_read_is_told(path: Path, four: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    reader.read(path, advanced=told.append)
    assert told == [64] * 16 + [16]
    told.clear()
    monkeypatch.setattr(reader, "RUN", 10_000)
    reader.read(path, ["b", "d"], advanced=told.append)
    assert told == [64] * 4 + [16], "nothing of what lies between"


def test_nothing_is_read_of_what_was_not_asked_for(path: Path, four: dict[str, Tensor]) -> None:
    assert reader.read(path, []) == {}


@pytest.mark.parametrize("pieces", [0, 1, 5, 16])
def test_a_cancelled_reading_ends_before_the_next_piece(path: Path, four: dict[str, Tensor], pieces: int) -> None:
    cancelled, told = threading.Event(), list[int]()

    def advanced(size: int) -> None:
        told.append(size)
        if len(told) == pieces:
            cancelled.set()

    if not pieces:
        cancelled.set()
    with pytest.raises(Cancelled):
        reader.read(path, cancelled=cancelled, advanced=advanced)
    assert len(told) == pieces


def test_a_reading_that_nobody_cancels(path: Path, four: dict[str, Tensor]) -> None:
    assert_same(reader.read(path, cancelled=threading.Event()), four)


def test_an_error_of_the_disk_in_the_middle(
    path: Path, four: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = iter(range(5))

    def readinto(file: io.FileIO, buffer: Any) -> int:
        if next(pieces) == 4:
            raise OSError(5, "Input/output error")
        return file.readinto(buffer)

    use_files(monkeypatch, readinto)
    with pytest.raises(ReadError, match=r"^Input/output error$"):
        reader.read(path)
    assert not list(pieces)


def test_a_disk_that_gives_less_than_asked_for(
    path: Path, four: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_files(monkeypatch, lambda file, buffer: file.readinto(memoryview(buffer)[:7]))
    assert_same(reader.read(path), four)


def test_a_file_cut_off_while_it_is_read(path: Path, four: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.stat().st_size
    use_files(monkeypatch, lambda file, buffer: file.readinto(buffer))  # else the little file is in Python's buffer
    with pytest.raises(ReadError, match=r"^it ended 212 bytes too early while it was read$"):
        reader.read(path, advanced=lambda _: os.truncate(path, whole - 1040 + 300))


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_file_cut_off_before(path: Path, four: dict[str, Tensor], length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ReadError):
        reader.read(path)


def touched(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))


def lengthened(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(path: Path) -> None:
    stat = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (touched, "it was changed while it was read"),
        (lengthened, "it was changed while it was read"),
        (replaced, "it was changed while it was read"),
        (Path.unlink, "No such file or directory"),
    ],
)
def test_a_file_that_changes_while_it_is_read(
    path: Path, four: dict[str, Tensor], change: Callable[[Path], None], reason: str
) -> None:
    changes: Iterator[Callable[[Path], None]] = iter([change])
    with pytest.raises(ReadError, match=f"^{reason}$"):
        reader.read(path, advanced=lambda _: next(changes, lambda _: None)(path))


def test_an_unknown_name(path: Path, four: dict[str, Tensor]) -> None:
    with pytest.raises(ReadError, match=r"^1 tensors are not in it, x first$"):
        reader.read(path, ["a", "x"])
    with pytest.raises(ReadError, match=r"^3 tensors are not in it, x first$"):
        reader.read(path, ["z", "a", "y", "x"])


def test_an_unknown_type_is_of_no_matter_until_asked_for(path: Path) -> None:
    number = random("F32", (4,))
    write(path, [("a", "F32", number), ("b", "F4", number)])
    assert_same(reader.read(path, ["a"]), {"a": number})
    with pytest.raises(ReadError, match=r"^b is of the type F4, which is not known here$"):
        reader.read(path)


@pytest.mark.parametrize("shape", [[3], [5], [2, 3], [2**63], [2**62, 4], [0]])
@pytest.mark.parametrize("size", [0, 16])
def test_a_shape_that_does_not_fit_its_bytes(path: Path, shape: list[int], size: int) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    if (shape, size) == ([0], 0):
        assert reader.read(path)["a"].shape == (0,)
        return
    with pytest.raises(ReadError, match=r"^its header is damaged: a has \d+ bytes"):
        reader.read(path)


def test_an_empty_tensor_with_more_rows_than_can_be_counted(path: Path) -> None:
    for extents in ([0, 2**64], [2**62, 0, 2**62]):
        text = json.dumps({"a": {"dtype": "F32", "shape": extents, "data_offsets": [0, 0]}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(ReadError, match=r"^its header is damaged"):
            reader.read(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ReadError):
            reader.read(wrong)
