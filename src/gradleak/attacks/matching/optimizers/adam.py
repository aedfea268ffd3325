"""Adam, with the sign and the step schedule of Inverting Gradients."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.matching.optimizers.base import Descent, Project, is_count, is_number
from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Adam:
    """``sign`` feeds the signs of the gradient to Adam instead of the gradient (Geiping et al. 2020).

    ``drops`` are shares of ``steps`` after which the rate falls to a tenth; they used 3/8, 5/8, 7/8.
    """

    steps: int
    lr: float = 0.1
    sign: bool = False
    drops: tuple[float, ...] = (3 / 8, 5 / 8, 7 / 8)
    betas: tuple[float, float] = (0.9, 0.999)
    citations: tuple[str, ...] = ("adam",)

    def __post_init__(self) -> None:
        if not is_count(self.steps) or not is_number(self.lr) or not 0 < self.lr < math.inf:
            raise InvalidInput(
                "expected steps of 1 or more and a finite learning rate above 0; came "
                f"{self.steps!r} and {self.lr!r}"
            )

    def descend(self, start: Tensor, project: Project | None) -> Descent:
        point = start
        mean, square = torch.zeros_like(point), torch.zeros_like(point)
        first, second = self.betas
        drops = [math.floor(share * self.steps) for share in self.drops]
        for n in range(1, self.steps + 1):
            value, gradient = yield point
            if not math.isfinite(value):
                return Outcome.DIVERGED
            gradient = gradient.sign() if self.sign else gradient
            mean = first * mean + (1 - first) * gradient
            square = second * square + (1 - second) * gradient.square()
            rate = self.lr * 0.1 ** sum(n > drop for drop in drops)
            scaled = (mean / (1 - first**n)) / ((square / (1 - second**n)).sqrt() + 1e-8)
            point = point - rate * scaled
            if project is not None:
                point = project(point)
        yield point
        return Outcome.BUDGET
