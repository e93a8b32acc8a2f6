"""What the stages of the training have in common: the optimiser, its schedule by the clock, the running average."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """A stage's length is a time, not a number of steps: the machine's speed decides how many those are."""

    minutes: float
    warmup: float = 0.02  # share of the time
    floor: float = 0.02  # of the full learning rate, at the end

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return max(progress / self.warmup, 0.01)
        cosine = 0.5 + 0.5 * math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))
        return self.floor + (1 - self.floor) * cosine


class Clock:
    def __init__(self, minutes: float) -> None:
        self.start, self.seconds = time.monotonic(), minutes * 60

    @property
    def progress(self) -> float:
        return min((time.monotonic() - self.start) / self.seconds, 1.0)


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1).reshape(tensor.shape[0], -1) if tensor.ndim == 4 else tensor


class MuonAdamW:
    """Muon for weight matrices (convolutions flattened), AdamW for the rest; here it learns several times faster.

    torch's Muon takes two-dimensional tensors only, so it gets views that share a convolution's memory.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], muon_rate: float, adam_rate: float) -> None:
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        others: list[nn.Parameter] = []
        for name, parameter in named:
            if parameter.ndim >= 2 and "embedding" not in name and min(parameter.shape[:2]) > 8:
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                matrix = nn.Parameter(_as_matrix(parameter.data))
                assert matrix.data_ptr() == parameter.data_ptr()
                self.pairs.append((parameter, matrix))
            else:
                others.append(parameter)
        self.parameters = [parameter for parameter, _ in self.pairs] + others
        matrices = [matrix for _, matrix in self.pairs]
        self.muon = torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.adam = torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.rates = (muon_rate, adam_rate)

    def step(self, factor: float) -> None:
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, rate in zip((self.muon, self.adam), self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        for parameter, matrix in self.pairs:
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        self.muon.step()
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None


class Average:
    """A running average of a module's weights whose memory grows with the steps taken."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.module.state_dict().items():
            self.shadow[name].lerp_(value, 1 - decay)
