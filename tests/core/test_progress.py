"""What is left to do, in seconds and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipass.plan import decode
from multipass.progress import (
    Bar,
    Batch,
    Kind,
    Task,
    Timings,
    bars,
    batch,
    duration,
    left,
    read,
    rest,
    told,
    with_repaints,
    write,
)
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


def repainting(pictures: int = 1) -> Batch:
    """A scene, a subject with a switch in its trajectory, and a refine pass."""
    subject = {"name": "subject", "kind": "subject", "target": "person", "denoising_strength": 0.5}
    passes = [{"name": "scene"}, subject, {"name": "late", "switch_at": 0.5}, {"name": "all", "kind": "refine"}]
    laid = [
        (Segment(0, 0, 5, 9.0, 0.0),),
        (Segment(1, 0, 2, 4.0, 2.0), Segment(2, 2, 4, 2.0, 0.0)),
        (Segment(3, 0, 3, 2.0, 0.0),),
    ]
    subjects = {0: "x", 1: "y", 2: "x", 3: "x"}
    plan = decode({"version": 1, "passes": passes})
    return batch(plan, laid, [100, 50, 100], subjects, hires=None, pictures=pictures)


@given(st.integers(1, 3), st.integers(0, 9))
def test_a_batch_with_as_many_repaints_as_subjects_were_found(pictures: int, found: int) -> None:
    made = repainting(pictures)
    told = with_repaints(made.tasks, made.repaint[1], found)
    kinds = [(task.kind.value, task.pass_number) for task in told]
    assert kinds == [
        ("encode", 2),
        ("encode", 3),
        ("encode", 4),
        ("sample", 1),
        ("find", 2),
        *[("load", 2), ("sample", 2), ("load", 3), ("sample", 3)] * found,
        ("load", 4),
        ("upscale", 4),
        ("sample", 4),
        ("decode", 4),
    ]
    assert with_repaints(told, made.repaint[1], pictures) == made.tasks


@pytest.mark.parametrize("found", [0, 1, 7])
def test_the_bars_of_a_batch_in_which_so_many_subjects_were_found(found: int) -> None:
    made = repainting()
    at = 4
    assert made.tasks[at].kind is Kind.FIND
    looking = "looking for the subject"
    before = (Bar("scene", 5, 5, ""), Bar("subject", 2, 0, looking), Bar("late", 2, 0, ""), Bar("all", 3, 0, ""))
    assert bars(made.tasks, at, 0) == before
    tasks, steps = with_repaints(made.tasks, made.repaint[1], found), 2 * found
    both = (Bar("subject", steps, 0, looking), Bar("late", steps, 0, "")) if found else ()
    assert bars(tasks, at, 0) == (Bar("scene", 5, 5, ""), *both, Bar("all", 3, 0, ""))
    for place in range(at, len(tasks)):
        shown = {bar.name: bar.done for bar in bars(tasks, place, 0)}
        assert shown["scene"] == 5, "what is done stays done"
        assert shown["all"] == (3 if tasks[place].kind is Kind.DECODE else 0)


def test_two_pictures_of_a_batch_are_one_bar_for_a_subject_pass() -> None:
    tasks = repainting(pictures=2).tasks
    second = [place for place, task in enumerate(tasks) if (task.kind, task.pass_number) == (Kind.SAMPLE, 2)][1]
    assert bars(tasks, second, 1) == (
        Bar("scene", 5, 5, ""),
        Bar("subject", 4, 3, "sampling"),
        Bar("late", 4, 2, ""),
        Bar("all", 3, 0, ""),
    )


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


@given(st.lists(st.sampled_from(Kind), min_size=1, max_size=12), st.data())
def test_a_bar_for_each_pass_that_is_sampled(kinds: list[Kind], data: st.DataObject) -> None:
    tasks = [Task(kind, place // 2 + 1, f"p{place // 2 + 1}", "a", 8) for place, kind in enumerate(kinds)]
    at = data.draw(st.integers(0, len(tasks) - 1))
    done = data.draw(st.integers(0, 8)) if tasks[at].kind is Kind.SAMPLE else 0
    sampled = [(place, task) for place, task in enumerate(tasks) if task.kind is Kind.SAMPLE]
    numbers = sorted({task.pass_number for _, task in sampled})
    found = bars(tasks, at, done)
    assert [own.name for own in found] == [f"p{number}" for number in numbers]
    for number, own in zip(numbers, found, strict=True):
        places = [place for place, task in sampled if task.pass_number == number]
        assert own.steps == 8 * len(places)
        assert own.done == sum(8 if place < at else done if place == at else 0 for place in places)
        assert bool(own.doing) == (number == tasks[at].pass_number)
