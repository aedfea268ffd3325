"""Mixup: the client trains on blends of its records (Zhang et al. 2018)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from gradleak.defenses.base import Defense, number
from gradleak.errors import InvalidInput
from gradleak.observe import Task, logistic
from gradleak.observe.uncertainty import both
from gradleak.trees import Tree, map_tree


@dataclass(frozen=True)
class Mixup(Defense):
    """Each record becomes λ times itself and 1 − λ times another of the batch, its label too.

    λ ~ Beta(``alpha``, ``alpha``) is one number for the batch, thrown once: local training takes the blends
    for its records. 0 mixes nothing, and neither does a batch of one record. Without dice, an attacker
    simulates the records unmixed.
    """

    alpha: float = field(kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("mixup",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("alpha", self.alpha, 0, math.inf)

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.dice is None or not self.alpha or len(x) == 1:
            return self.client(task, params, x, y)
        share, partner = self.blend(len(x))
        soft = y if y.is_floating_point() else _probabilities(task, params, x, y)
        partner = partner.to(x.device)
        x, soft = (share * one + (1 - share) * one[partner] for one in (x, soft))
        return self.client(task, params, x, soft)

    def blend(self, records: int) -> tuple[float, Tensor]:
        """λ, and whom each record is mixed with: never itself."""
        rng = Generator().manual_seed(self.dice or 0)
        chance = float(torch.rand((), generator=rng, dtype=torch.float64))
        circle = torch.randperm(records, generator=rng)
        partner = torch.empty_like(circle)
        partner[circle] = circle.roll(1)
        return float(betaincinv(self.alpha, self.alpha, chance)), partner

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """A rough figure for how far blends are from records: half of √E λ(1 − λ), in sizes of a tensor."""
        before = super().uncertainty(params, update, records, hidden=hidden)
        if not self.alpha or records == 1:
            return before
        share = 0.5 * (self.alpha / (4 * self.alpha + 2)) ** 0.5
        size = map_tree(lambda leaf: leaf.double().square().mean().sqrt().expand(leaf.shape), update)
        return both(before, map_tree(lambda s: share * s, size))


def _probabilities(task: Task, params: Tree, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        output = task.forward(params, x)
    if output.dim() != 2 or y.dim() != 1:
        raise InvalidInput(
            "expected logits [records, classes] and class indices to blend; came shapes "
            f"{list(output.shape)} and {list(y.shape)}"
        )
    classes = 2 if task.loss is logistic else output.shape[1]
    return torch.nn.functional.one_hot(y, classes).to(x)
