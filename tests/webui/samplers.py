"""The table that the conformance tests are generated from: a new sampler, schedule type or host is one row."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 10
"""What the tests ask for."""

FIRST_ORDER = (1,) * STEPS
SECOND_ORDER = (2,) * (STEPS - 1) + (1,)
UNITS = ("steps", "timestep")


@dataclass(frozen=True)
class Host:
    """A webui, and what its own Refiner can do, which is what plans are compared with."""

    name: str
    units: tuple[str, ...] = UNITS
    schedules: bool = True


HOSTS = {
    "a1111": Host("AUTOMATIC1111 1.10.1"),
    "forge": Host("Forge dfdcbab", units=("steps",)),
    "classic": Host("Forge Classic 1f95d71", units=("steps",), schedules=False),
    "reforge": Host("reForge 3b56b26", units=("steps",)),
}


@dataclass(frozen=True)
class Sampler:
    """A sampler, with the schedule type that the tests ask for.

    Attributes:
        evaluations: of the UNet, for each of its steps when it is asked for ten.
        unlike: why it is not compared with the Refiner, if so.
    """

    name: str
    scheduler: str | None = None
    evaluations: tuple[int, ...] = FIRST_ORDER
    unlike: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.scheduler}" if self.scheduler else self.name

    @property
    def is_first_order(self) -> bool:
        return max(self.evaluations) == 1

    def request(self, host: str) -> dict[str, str]:
        """The fields of a request that ask for it."""
        if not HOSTS[host].schedules or self.scheduler is None:
            return {"sampler_name": str(self)}
        return {"sampler_name": self.name, "scheduler": self.scheduler}

    def boundaries(self) -> list[float]:
        """Where the Refiner, which counts evaluations, can be compared at whole steps: fractions of what it counts."""
        if self.is_first_order:
            return [0.25, 0.5, 0.8]
        counted = STEPS * (2 if self.evaluations.count(2) > 1 else 1)
        return [sum(self.evaluations[: len(self.evaluations) // 2]) / counted]


SAMPLERS = [
    Sampler("Euler"),
    Sampler("Euler a"),
    Sampler("DPM++ 2M", "Karras"),
    Sampler("DPM++ SDE", "Karras", SECOND_ORDER),
    Sampler("DPM++ 2M SDE", "Exponential"),
    Sampler("DPM++ 2M SDE Heun"),
    Sampler("DPM++ 2S a", None, SECOND_ORDER),
    Sampler("DPM++ 3M SDE"),
    Sampler("LMS"),
    Sampler("Heun", None, SECOND_ORDER),
    Sampler("DPM2", None, SECOND_ORDER),
    Sampler("DPM2 a", None, SECOND_ORDER),
    Sampler("DPM fast", None, (3, 3, 3, 1)),
    Sampler("Restart", None, SECOND_ORDER),
    Sampler("DDIM", None, (1,) * 9),
    Sampler("DDIM CFG++", None, (1,) * 9),
    Sampler("PLMS", None, (2, *(1,) * 8)),
    Sampler("UniPC"),
    Sampler("LCM", unlike="its table has 50 levels, which the Refiner reads as 1000 timesteps"),
]
SCHEDULES = ["Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal", "Align Your Steps",
             "Simple", "Normal", "DDIM", "Beta"]  # fmt: skip
