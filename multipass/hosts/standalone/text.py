"""From a prompt to what the UNet reads, as the webui does it: chunks of 75 tokens, weights with the mean restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from multipass.hosts.standalone.emphasis import Weighted, parts

CHUNK = 75
COMMA_REACH = 20
"""A chunk that is full breaks after a comma at most this many tokens back, rather than inside a phrase."""


class Tokenizer(Protocol):
    """What is used of transformers' CLIPTokenizer."""

    bos_token_id: int
    eos_token_id: int

    def __call__(self, text: str, *, add_special_tokens: bool, truncation: bool) -> Any: ...

    def convert_tokens_to_ids(self, tokens: str) -> int: ...


class Chunk(msgspec.Struct, frozen=True):
    """77 token ids with their weights; ``words`` of them, after the start, are text."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    words: int


class Encoded(msgspec.Struct, frozen=True):
    """A text as a UNet reads it.

    Attributes:
        context: 1 x (77 per chunk) x width.
        pooled: 1 x width of the whole text, for SDXL.
    """

    context: Tensor
    pooled: Tensor | None = None


class TextEncoder(msgspec.Struct, frozen=True):
    """One CLIP text model with its tokenizer.

    Attributes:
        pad: the token id behind the end of the text; ``None``: the end token again.
        penultimate: SDXL reads the last but one layer as it is; SD 1.x the last, normalised.
        projected: whether ``pooled`` is the model's projected text embedding.
    """

    model: Any
    tokenizer: Tokenizer
    pad: int | None = None
    penultimate: bool = False
    projected: bool = False

    @torch.no_grad()
    def encode(self, prompt: str, clip_skip: int) -> Encoded:
        """Encode all chunks of a prompt. ``clip_skip`` counts layers from the end, 1 is the last."""
        contexts: list[Tensor] = []
        pooled: Tensor | None = None
        for chunk in chunks(prompt, self.tokenizer):
            context, whole = self._encode_chunk(chunk, clip_skip)
            contexts.append(context)
            if pooled is None and self.projected:
                pooled = whole
        return Encoded(torch.cat(contexts, dim=1), pooled)

    def _encode_chunk(self, chunk: Chunk, clip_skip: int) -> tuple[Tensor, Tensor | None]:
        device = self.model.device
        ids = torch.tensor([chunk.ids])
        if self.pad is not None:
            ids[:, chunk.words + 2 :] = self.pad
        answer = self.model(ids.to(device), output_hidden_states=True)
        if self.penultimate:
            hidden = answer.hidden_states[-2]
        elif clip_skip == 1:
            hidden = answer.last_hidden_state
        else:
            hidden = self.model.final_layer_norm(answer.hidden_states[-clip_skip])
        return _emphasise(hidden, chunk.weights), answer.text_embeds if self.projected else None


def _emphasise(hidden: Tensor, weights: Sequence[float]) -> Tensor:
    """Scale each token's vector, then bring the whole back to its mean."""
    if all(weight == 1.0 for weight in weights):
        return hidden
    scaled = hidden * torch.tensor(weights, dtype=hidden.dtype, device=hidden.device)[None, :, None]
    return scaled * (hidden.mean() / scaled.mean())


def chunks(prompt: str, tokenizer: Tokenizer) -> tuple[Chunk, ...]:
    """At least one chunk; a text is cut after 75 tokens, or at BREAK."""
    found: list[Chunk] = []
    for stretch in parts(prompt) or ((),):
        found += _fill(stretch, tokenizer)
    return tuple(found)


def _fill(stretch: Sequence[Weighted], tokenizer: Tokenizer) -> list[Chunk]:
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    tokens = [
        (token, piece.weight)
        for piece in stretch
        for token in tokenizer(piece.text, add_special_tokens=False, truncation=False).input_ids
    ]
    filled: list[Chunk] = []
    while True:
        cut = min(CHUNK, len(tokens))
        if len(tokens) > CHUNK and tokens[CHUNK][0] != comma:
            commas = [i for i, (token, _) in enumerate(tokens[:CHUNK]) if token == comma]
            if commas and CHUNK - commas[-1] <= COMMA_REACH:
                cut = commas[-1] + 1
        filled.append(_chunk(tokens[:cut], tokenizer))
        tokens = tokens[cut:]
        if not tokens:
            return filled


def _chunk(tokens: Sequence[tuple[int, float]], tokenizer: Tokenizer) -> Chunk:
    end = tokenizer.eos_token_id
    fill = CHUNK - len(tokens)
    return Chunk(
        ids=(tokenizer.bos_token_id, *(token for token, _ in tokens), *[end] * (fill + 1)),
        weights=(1.0, *(weight for _, weight in tokens), *[1.0] * (fill + 1)),
        words=len(tokens),
    )
