"""GradInversion's group term (Yin et al. 2021): trials of one record pull towards what they agree on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.matching.alignment import aligned, order_like
from gradleak.attacks.matching.candidate import Candidate
from gradleak.attacks.matching.optimizers.base import is_count, is_number
from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Consensus:
    """weight · mean (pixel − consensus)², with the trials' common mean as the consensus.

    It begins after ``start`` of the budget, and the mean is taken anew ``every`` so many evaluations: in
    the paper after 5,000 of 20,000, then every 100. Records of a batch are first put into one order, by
    their labels and then by distance. ``registered`` moves each picture onto the mean, and averages once
    more: here by a whole number of pixels, where the paper registers with RANSAC-flow. The paper's
    distance is not squared; squared, trials that agree already are left alone.
    """

    weight: float
    start: float = 0.25
    every: int = 100
    registered: bool = False
    citations: tuple[str, ...] = ("gradinversion",)

    def __post_init__(self) -> None:
        numbers = is_number(self.weight) and is_number(self.start)
        if not numbers or not 0 < self.weight < math.inf or not 0 <= self.start <= 1:
            raise InvalidInput(
                "expected a finite weight above 0 and a start as a share of the budget; came "
                f"{self.weight!r} and {self.start!r}"
            )
        if not is_count(self.every):
            raise InvalidInput(f"expected evaluations of 1 or more between two means; came {self.every!r}")

    def due(self, rounds: int, evaluations: int) -> bool:
        """Whether a new mean is to be taken before the evaluation number ``rounds``, counted from 1."""
        since = rounds - 1 - math.ceil(self.start * evaluations)
        return since >= 0 and since % self.every == 0

    def anchors(self, x: Tensor, y: Tensor, reference: int) -> Tensor:
        """What each trial of x [trials, B, ...] with labels y [trials, B] is to move to, in its own order.

        ``reference`` is the trial that lends its order to the others while they are compared.
        """
        orders = [order_like(x[t], y[t], x[reference], y[reference]) for t in range(len(x))]
        sorted_x = torch.stack([one[order] for one, order in zip(x, orders, strict=True)])
        mean = sorted_x.mean(0)
        if self.registered and x.dim() >= 5:
            mean = torch.stack([aligned(one, mean) for one in sorted_x]).mean(0)
        return torch.stack([mean[order.argsort()] for order in orders])

    def __call__(self, candidate: Candidate) -> Tensor:
        if candidate.anchor is None:
            return candidate.x.new_zeros(())
        gap = candidate.pixels - candidate.domain.to_pixels(candidate.anchor)
        return self.weight * gap.square().mean()
