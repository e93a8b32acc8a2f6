"""Asking a checkpoint's UNet, or a memo of what it answered: the picture is the same to the bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from multipass.cache.budgets import MB
from multipass.cache.memo import Memo
from multipass.hosts.standalone.models import Checkpoint


class Asking:
    """For one picture.

    Args:
        memo: of what was asked for this picture and others; ``None``: the UNet computes whatever it is asked.
    """

    def __init__(self, memo: Memo | None) -> None:
        self._memo = memo
        self._spared = self._made = 0

    def __call__(self, checkpoint: Checkpoint, *given: Tensor, **named: Any) -> Tensor:
        """What its UNet, which is in place, answers."""
        evaluate = partial(_computed, checkpoint, *given, **named)
        if self._memo is None or not self._memo.budget:
            self._made += 1
            return evaluate()
        file, place = checkpoint.file, checkpoint.place
        key = self._memo.key((file.sha256, file.config_path, place.dtype), (given, named))
        answer = self._memo.ask(key, torch.device(place.device), evaluate)
        self._spared += answer.remembered
        self._made += not answer.remembered
        return answer.tensor

    def was_spared(self) -> bool:
        """Whether nothing was computed since this was last asked, and something remembered."""
        spared = self._spared > 0 and not self._made
        self._spared = self._made = 0
        return spared


def new_memo(megabytes: float) -> Memo:
    """A memo of that size; of 0 it remembers nothing."""
    return Memo(lambda: int(megabytes * MB))


def _computed(checkpoint: Checkpoint, *given: Tensor, **named: Any) -> Tensor:
    return checkpoint.unet(*given, **named).sample.float()
