"""What is left to do, in seconds and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.plan import decode
from multipass.progress import Kind, Task, Timings, batch, duration, left, read, rest, told, write
from multipass.schedule import Segment

kinds = st.sampled_from(Kind)
tasks = st.builds(
    Task,
    kind=kinds,
    pass_number=st.integers(1, 16),
    label=st.text(max_size=5),
    subject=st.text(max_size=5),
    amount=st.floats(0.5, 100),
    pixels=st.sampled_from([0, 64 * 64, 512 * 512, 1024 * 1024]),
)
seconds = st.floats(0.001, 1000)


def sampling(subject: str, amount: float = 10, pixels: int = 100) -> Task:
    return Task(Kind.SAMPLE, 1, "", subject, amount, pixels)


def alone(timings: Timings, task: Task) -> float | None:
    return left(task, 0, timings.pace(task), rest(timings, []))


@given(tasks, seconds)
def test_what_was_done_once_takes_as_long_again(task: Task, took: float) -> None:
    timings = Timings().learned(task, took)
    assert alone(timings, task) == pytest.approx(took)
    after = rest(timings, [task]).and_times(rest(timings, [task, task]), 2)
    assert left(task, task.amount / 2, timings.pace(task), after) == pytest.approx(5.5 * took)


@given(tasks, st.lists(seconds, min_size=1, max_size=8))
def test_what_is_learned_lies_between_what_was_seen_and_follows_the_last(task: Task, took: list[float]) -> None:
    timings = Timings()
    for one in took:
        timings = timings.learned(task, one)
    known = alone(timings, task)
    assert known is not None
    assert min(took) * 0.999 <= known <= max(took) * 1.001
    settled = timings
    for _ in range(40):
        settled = settled.learned(task, took[-1])
    assert alone(settled, task) == pytest.approx(took[-1], rel=1e-3)


def test_another_size_goes_by_the_pixels_and_the_same_checkpoint_comes_first() -> None:
    timings = Timings().learned(sampling("a"), 10.0).learned(sampling("b"), 30.0)
    assert timings.pace(sampling("a", pixels=400)) == pytest.approx(4.0)
    assert timings.pace(sampling("c", pixels=200)) == pytest.approx(6.0), "the newest of the others"
    assert timings.pace(Task(Kind.DECODE, 1, "", "a", pixels=100)) is None


def test_nothing_is_told_where_nothing_is_known_and_the_present_pace_is_enough() -> None:
    first, second = sampling("a"), sampling("b", pixels=400)
    after = rest(Timings(), [second])
    assert left(first, 0, None, after) is None
    assert left(first, 4, 0.5, after) == pytest.approx(6 * 0.5 + 10 * 2.0)
    loading = Task(Kind.LOAD, 1, "", "a")
    assert left(loading, 0, None, after) is None
    timings = Timings().learned(first, 10.0)
    assert left(loading, 0, None, rest(timings, [first])) == pytest.approx(10.0)
    assert left(first, 0, None, rest(timings, [])) is None


def test_the_tasks_of_a_batch_are_in_order_and_numbered_by_pass() -> None:
    passes = [{"name": "a"}, {"name": "b", "switch_at": 0.5}, {"name": "c", "kind": "refine", "upscaler": "Lanczos"}]
    plan = decode({"version": 1, "passes": passes})
    laid = [(Segment(0, 0, 5, 9.0, 4.0), Segment(1, 5, 8, 4.0, 0.0)), (Segment(2, 0, 3, 2.0, 0.0),)]
    hires = sampling("h", 4, 400)
    made = batch(plan, laid, [100, 900], {0: "x", 1: "y", 2: "z"}, hires=hires)
    assert made.number_of == {0: 1, 1: 2, 2: 4}
    assert made.hires == 3
    told = [(task.kind.value, task.pass_number, task.amount, task.pixels) for task in made.tasks]
    assert told == [
        ("encode", 2, 1, 0),
        ("encode", 4, 1, 0),
        ("sample", 1, 5, 100),
        ("load", 2, 1, 0),
        ("sample", 2, 3, 100),
        ("sample", 3, 4, 400),
        ("load", 4, 1, 0),
        ("upscale", 4, 1, 900),
        ("sample", 4, 3, 900),
        ("decode", 4, 1, 900),
    ]


def test_it_forgets_the_oldest() -> None:
    timings = Timings()
    for number in range(500):
        timings = timings.learned(sampling(str(number)), 1.0)
    assert len(timings.paces) == 400
    assert "sample|99|100" not in timings.paces


def test_what_was_written_is_read(tmp_path: Path) -> None:
    timings = Timings().learned(sampling("a|b"), 10.0)
    file = tmp_path / "new" / "timings.json"
    write(timings, file)
    assert read(file) == timings
    assert [path.name for path in file.parent.iterdir()] == ["timings.json"]
    assert read(tmp_path / "none.json") == Timings()
    for damaged in (b"{", b'{"paces": {"sample|a|x": 1.0, "b": 2.0, "load|a|0": -1.0}}', b"[]"):
        file.write_bytes(damaged)
        assert read(file) == Timings()


@pytest.mark.parametrize(
    ("task", "more", "text"),
    [
        (Task(Kind.SAMPLE, 2, "style", "b"), {"step": 7, "steps": 18}, "Pass 2 of 3: style, step 7/18"),
        (
            Task(Kind.SAMPLE, 2, "Pass 2", "b"),
            {"step": 1, "steps": 2, "seconds": 8.6},
            "Pass 2 of 3, step 1/2, 9 s left",
        ),
        (Task(Kind.LOAD, 3, "photo", "b"), {"seconds": 125}, "Pass 3 of 3: photo, loading, 2 min 05 s left"),
        (Task(Kind.UPSCALE, 3, "photo", "b"), {}, "Pass 3 of 3: photo, upscaling"),
    ],
)
def test_in_words(task: Task, more: dict[str, float], text: str) -> None:
    assert told(task, 3, **more) == text  # type: ignore[arg-type]


@given(st.floats(0, 1e6))
def test_a_duration_has_no_sixty_of_anything(seconds: float) -> None:
    text = duration(seconds)
    assert "60 s" not in text
    assert "60 min" not in text
