"""What a denoiser answered, to be said again when it is asked the same: bit for bit the same, or not at all.

A sampler runs as always, with its noise and its history; only its denoiser's evaluations are spared, those of any
sampler. An answer is known by the content of all that was given and by the circumstances (the weights, the code, the
settings), not by the step: a network that remembers nothing itself answers the same whenever it is asked. So the same
answer serves wherever a trajectory comes by again, and no wrong one can: two contents with one digest of 160 bits are
not met by chance.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

_DIGEST = 20  # bytes
_WORTH_COMPARING = 1 << 15  # bytes; less is digested as fast
_CHANGING = 3  # so many others in a row: it is compared no more

Key = tuple[int, bytes]


class UnknownError(Exception):
    """Why an answer cannot be remembered, fit for people: something that decides it cannot be compared."""


class Answer(NamedTuple):
    """What a denoiser says.

    Attributes:
        remembered: nothing was evaluated for it.
        drew: the evaluation drew from torch's global generator. Then it is not kept: what follows would draw other
            numbers without it.
    """

    tensor: Tensor
    remembered: bool = False
    drew: bool = False


class Memo:
    """The answers, in RAM, those that were used longest ago gone first. For one thread at a time.

    Args:
        budget: how many bytes they may take; asked whenever one is kept.

    Attributes:
        held: bytes that they take.
        hits: how many evaluations were spared.
    """

    def __init__(self, budget: Callable[[], int]) -> None:
        self._budget = budget
        self._answers: OrderedDict[Key, Tensor] = OrderedDict()
        # what is in them lives on while an answer is known by them: no other may get its identity
        self._circumstances: dict[Hashable, int] = {}
        self._numbers = itertools.count()  # none is given twice
        self._answers_in: Counter[int] = Counter()  # by the circumstances' number
        self._coming: tuple[Key, Tensor] | None = None
        self._digests = _Digests()
        self.held = self.hits = 0

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def budget(self) -> int:
        """Bytes."""
        return self._budget()

    def key(self, circumstances: Hashable, given: object) -> Key:
        """What an answer is known by.

        Args:
            circumstances: what decides the answer beside what is given; compared by ``==``.
            given: tensors, numbers, texts and ``None``, in lists, tuples and dicts.

        Raises:
            UnknownError: where something else is given.
        """
        digest = self._digests.of(given)
        number = self._circumstances.get(circumstances)
        if number is None:
            number = self._circumstances[circumstances] = next(self._numbers)
        return number, digest

    def ask(self, key: Key, device: torch.device, evaluate: Callable[[], Tensor]) -> Answer:
        """The answer known by that, or what ``evaluate()`` gives, which is remembered: either is the caller's own.

        Args:
            device: where it is evaluated, and the answer wanted.
        """
        self._settle()
        known = self._answers.get(key)
        if known is not None:
            self._answers.move_to_end(key)
            self.hits += 1
            return Answer(known.to(device, copy=True), remembered=True)
        before = _generators(device)
        answer = evaluate()
        if any(not torch.equal(*states) for states in zip(before, _generators(device), strict=True)):
            return Answer(answer, drew=True)
        # into RAM with the next question: on a GPU this would wait for the evaluation itself
        self._coming = key, answer.detach().clone()
        return Answer(answer)

    def rest(self) -> None:
        """Nothing is asked for a while: no more is held than the answers."""
        self._settle()
        self._digests = _Digests()
        self._fit(self.budget)
        kept = self._answers_in
        self._circumstances = {known: number for known, number in self._circumstances.items() if kept[number]}

    def clear(self) -> None:
        """Forget everything."""
        self._coming = None
        self._answers.clear()
        self._circumstances.clear()
        self._answers_in.clear()
        self._digests = _Digests()
        self.held = 0

    def _settle(self) -> None:
        if self._coming is None:
            return
        (key, answer), self._coming = self._coming, None
        budget = self.budget
        if answer.nbytes <= budget:
            self._fit(budget - answer.nbytes)
            self._answers[key] = answer.cpu()
            self._answers_in[key[0]] += 1
            self.held += answer.nbytes

    def _fit(self, budget: int) -> None:
        while self.held > budget:
            (number, _), gone = self._answers.popitem(last=False)
            self._answers_in[number] -= 1
            self.held -= gone.nbytes


class _Seen(NamedTuple):
    """The last tensor in a place, and its digest with its form before it.

    Attributes:
        changes: how many in a row were each another than the one before.
    """

    tensor: Tensor | None
    told: bytes
    changes: int


class _Digests:
    """Of what is given. A large tensor that is, bit for bit, the last one in its place is not digested again: a
    prompt's is the same in every step, and larger than the latent, which never is."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def of(self, given: object) -> bytes:
        found = hashlib.blake2b(digest_size=_DIGEST)
        for place, leaf in _leaves(given, ""):
            content = self._of_tensor(place, leaf) if isinstance(leaf, Tensor) else repr(leaf).encode()
            found.update(f"{place}={type(leaf).__name__}:{len(content)}:".encode() + content)
        return found.digest()

    def _of_tensor(self, place: str, tensor: Tensor) -> bytes:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UnknownError(f"the denoiser is given a tensor of an unusual kind ({place})")
        # the strides too: in which order numbers lie can decide in which they are added up
        form = f"{tensor.dtype} {tensor.device} {tuple(tensor.shape)} {tensor.stride()} ".encode()
        bits, seen = bits_of(tensor), self._seen.get(place, _Seen(None, b"", 0))
        if seen.tensor is not None and seen.told[:-_DIGEST] == form and _are_equal(bits, seen.tensor):
            self._seen[place] = seen._replace(changes=0)
            return seen.told
        told = form + hashlib.blake2b(cast("Any", bits.cpu()).numpy(), digest_size=_DIGEST).digest()
        if bits.nbytes >= _WORTH_COMPARING:
            changes = seen.changes + 1
            # a copy: somebody may write into the tensor
            self._seen[place] = _Seen(bits.clone() if changes < _CHANGING else None, told, changes)
        return told


def _leaves(given: object, place: str) -> Iterator[tuple[str, object]]:
    """Everything that is in no container, and by its place in them; an empty one is itself a leaf."""
    if isinstance(given, dict | list | tuple) and given:
        inside = cast("Any", given)
        pairs = inside.items() if isinstance(given, dict) else enumerate(inside)
        for name, value in pairs:
            yield from _leaves(value, f"{place}[{name!r}]")
    elif given is None or isinstance(given, bool | int | float | str | Tensor | dict | list | tuple | torch.dtype):
        yield place, given
    else:
        raise UnknownError(f"the denoiser is given something that cannot be compared ({place}: {type(given).__name__})")


def bits_of(tensor: Tensor) -> Tensor:
    """As they are: -0.0 is not 0.0, and not-a-number is itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _are_equal(bits: Tensor, others: Tensor) -> bool:
    """Of the same number of bytes. torch compares eight at a time a dozen times as fast as one by one."""
    if bits.nbytes % 8 == 0 and bits.storage_offset() % 8 == others.storage_offset() % 8 == 0:
        return torch.equal(bits.view(torch.int64), others.view(torch.int64))
    return torch.equal(bits, others)


def _generators(device: torch.device) -> list[Tensor]:
    """The states of those that draw where nobody names another."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
