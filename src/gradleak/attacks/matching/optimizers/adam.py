"""Adam, with the sign and the steps of Inverting Gradients and the cosine and noise of GradInversion."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.matching.optimizers.base import Descent, Space, is_count, is_number
from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Adam:
    """``sign`` feeds the signs of the gradient to Adam instead of the gradient (Geiping et al. 2020).

    ``schedule="steps"``: ``drops`` are shares of ``steps`` after which the rate falls to a tenth; they used
    3/8, 5/8, 7/8. ``"cosine"``: the rate falls along half a cosine to 0. Either way it first rises from 0
    within ``warmup`` steps.

    ``noise``: after each step the pictures move by rate · noise · N(0, 1) (Yin et al. 2021, who take 0.2;
    breaching takes 0.01). Labels and what is not known of the client are left alone.
    """

    steps: int
    lr: float = 0.1
    sign: bool = False
    drops: tuple[float, ...] = (3 / 8, 5 / 8, 7 / 8)
    betas: tuple[float, float] = (0.9, 0.999)
    citations: tuple[str, ...] = ("adam",)
    schedule: Literal["steps", "cosine"] = "steps"
    warmup: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not is_count(self.steps) or not is_number(self.lr) or not 0 < self.lr < math.inf:
            raise InvalidInput(
                "expected steps of 1 or more and a finite learning rate above 0; came "
                f"{self.steps!r} and {self.lr!r}"
            )
        if self.schedule not in ("steps", "cosine"):
            raise InvalidInput(f'expected a schedule "steps" or "cosine"; came {self.schedule!r}')
        if self.warmup != 0 and not (is_count(self.warmup) and self.warmup < self.steps):
            raise InvalidInput(f"expected a warm-up of 0 or more steps of {self.steps}; came {self.warmup!r}")
        if not is_number(self.noise) or not 0 <= self.noise < math.inf:
            raise InvalidInput(f"expected a finite noise of 0 or more; came {self.noise!r}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        if step <= self.warmup:
            return self.lr * step / self.warmup
        if self.schedule == "cosine":
            through = (step - 1 - self.warmup) / (self.steps - self.warmup)
            return self.lr * (1 + math.cos(math.pi * through)) / 2
        drops = sum(step > math.floor(share * self.steps) for share in self.drops)
        return float(self.lr * 0.1**drops)

    def descend(self, start: Tensor, space: Space, rng: Generator) -> Descent:
        point = start
        mean, square = torch.zeros_like(point), torch.zeros_like(point)
        first, second = self.betas
        for n in range(1, self.steps + 1):
            value, gradient = yield point
            if not math.isfinite(value):
                return Outcome.DIVERGED
            gradient = gradient.sign() if self.sign else gradient
            mean = first * mean + (1 - first) * gradient
            square = second * square + (1 - second) * gradient.square()
            rate = self.rate(n)
            scaled = (mean / (1 - first**n)) / ((square / (1 - second**n)).sqrt() + 1e-8)
            point = point - rate * scaled
            if self.noise:
                point = _shaken(point, space.pixels, rate * self.noise, rng)
            if space.project is not None:
                point = space.project(point)
        yield point
        return Outcome.BUDGET


def _shaken(point: Tensor, pixels: int, size: float, rng: Generator) -> Tensor:
    draw = torch.randn(pixels, generator=rng, dtype=torch.float64).to(point)
    return torch.cat((point[:pixels] + size * draw, point[pixels:]))
