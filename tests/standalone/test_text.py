"""Prompts: emphasis, chunks, and what is not known is not drawn as words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from multipass.hosts.standalone.checkpoints import CheckpointFolder
from multipass.hosts.standalone.emphasis import parts, unsupported
from multipass.hosts.standalone.memory import Checkpoints
from multipass.hosts.standalone.models import Component
from multipass.hosts.standalone.text import CHUNK, chunks


def weighed(prompt: str) -> list[tuple[str, float]]:
    (stretch,) = parts(prompt)
    return [(piece.text, round(piece.weight, 4)) for piece in stretch]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a fox", [("a fox", 1.0)]),
        ("a (red) fox", [("a ", 1.0), ("red", 1.1), (" fox", 1.0)]),
        ("a ((red)) fox", [("a ", 1.0), ("red", 1.21), (" fox", 1.0)]),
        ("a (red:1.5) fox", [("a ", 1.0), ("red", 1.5), (" fox", 1.0)]),
        ("a [red] fox", [("a ", 1.0), ("red", 0.9091), (" fox", 1.0)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        (r"\(a\) fox", [("(a) fox", 1.0)]),
        ("a (red", [("a ", 1.0), ("red", 1.1)]),
        ("a red) fox", [("a red) fox", 1.0)]),
        ("time: 12:30", [("time: 12:30", 1.0)]),
    ],
)
def test_emphasis(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weighed(prompt) == expected


@given(st.text(alphabet="ab ,:.1()[]\\|", max_size=30))
def test_any_text_is_a_prompt(prompt: str) -> None:
    assert parts(prompt)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a <lora:x:1> fox", "LoRA"),
        ("a <LyCO:x> fox", "LoRA"),
        ("[cat:fox:0.5]", "prompt editing"),
        ("[(cat:1.2):fox:5]", "prompt editing"),
        ("[fox::.5]", "prompt editing"),
        ("[cat|fox]", "prompt editing"),
        ("a cat AND a fox", "AND"),
    ],
)
def test_what_is_not_known_is_refused(prompt: str, reason: str) -> None:
    (problem,) = unsupported(prompt, "common.prompt")
    assert problem.path == "common.prompt"
    assert reason in problem.message


@pytest.mark.parametrize("prompt", ["a [red] fox", "LAND", "a fox, (red:1.2)", r"\[cat|fox\]", "1:2", "<3"])
def test_what_only_looks_like_it_is_not(prompt: str) -> None:
    assert not list(unsupported(prompt, ""))


@pytest.fixture(scope="module")
def tokenizer(checkpoints: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(checkpoints / "clip")


def words_of(prompt: str, tokenizer: CLIPTokenizer) -> list[int]:
    found = chunks(prompt, tokenizer)
    assert all(len(chunk.ids) == len(chunk.weights) == CHUNK + 2 for chunk in found)
    return [chunk.words for chunk in found]


def test_chunks(tokenizer: CLIPTokenizer) -> None:
    """The test vocabulary has one token per letter."""
    assert words_of("", tokenizer) == [0]
    assert words_of("a" * 75, tokenizer) == [75]
    assert words_of("a" * 76, tokenizer) == [75, 1]
    assert words_of("abc BREAK de", tokenizer) == [3, 2]
    assert words_of("a" * 60 + ", " + "b" * 30, tokenizer) == [61, 30]  # a comma near the end: breaks after it
    assert words_of("a" * 30 + ", " + "b" * 60, tokenizer) == [75, 16]  # too far back
    assert words_of("a" * 75 + ", " + "b", tokenizer) == [75, 2]


def test_chunk_marks(tokenizer: CLIPTokenizer) -> None:
    (chunk,) = chunks("(ab:1.5)c", tokenizer)
    assert chunk.ids[0] == tokenizer.bos_token_id
    assert set(chunk.ids[4:]) == {tokenizer.eos_token_id}
    assert chunk.weights[:5] == (1.0, 1.5, 1.5, 1.0, 1.0)


def test_weights_reach_the_text_and_keep_its_mean(checkpoints: Path, store: Checkpoints) -> None:
    checkpoint = store.get(CheckpointFolder(checkpoints).find("a", ""))
    with store.using(checkpoint, Component.TEXT):
        plain = checkpoint.encode("a fox", 1, negative=False).context
        strong = checkpoint.encode("a (fox:1.5)", 1, negative=False).context
        long = checkpoint.encode("a fox " * 40, 1, negative=False).context
    assert plain.shape == strong.shape
    assert not plain.equal(strong)
    assert strong.mean().item() == pytest.approx(plain.mean().item(), rel=1e-3)
    assert long.shape[1] > 77


def test_an_empty_negative_prompt_is_zeros_for_sdxl(checkpoints: Path, store: Checkpoints) -> None:
    xl = store.get(CheckpointFolder(checkpoints).find("xl", ""))
    with store.using(xl, Component.TEXT):
        assert not xl.encode("", 1, negative=True).context.any()
        assert xl.encode("", 1, negative=False).context.any()
