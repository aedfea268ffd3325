"""Clipping: an update that is too long is shortened, and keeps its direction."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number, one_of
from gradleak.trees import Tree, map_tree, squared_norm


@dataclass(frozen=True)
class Clip(Outgoing):
    """g · min(1, ``norm`` / ‖g‖), of the whole update, or of each of its tensors (``per="layer"``).

    It throws no dice, so an attacker simulates it as it is. Noise that is added *before* is scaled with the
    update, by a factor that the server does not see, and that is not simulated: how far it is off is rough.
    """

    norm: float = field(kw_only=True)
    per: str = field(default="update", kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("masking",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("norm", self.norm, 0, math.inf, open_ends="[")
        one_of("per", self.per, ("update", "layer"))

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return self.expected(update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        if self.per == "layer":
            return map_tree(lambda leaf: leaf * self.factor(leaf.double().square().sum()).to(leaf), update)
        # In float64: the square of what float16 can hold is more than it can hold.
        factor = self.factor(squared_norm(map_tree(Tensor.double, update)))
        return map_tree(lambda leaf: leaf * factor.to(leaf), update)

    def factor(self, square: Tensor) -> Tensor:
        """min(1, norm / √square), whose slope is 0 where nothing is clipped."""
        long = square.sqrt() > self.norm
        return torch.where(long, self.norm / torch.where(long, square, 1).sqrt(), 1)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """What was noise of this length before cannot be longer than ``norm`` now."""
        before = super().uncertainty(params, update, records, hidden=hidden)
        squares = {
            name: torch.where(d.isfinite(), d, 0).square().sum().double() for name, d in before.items()
        }
        if self.per == "update":
            squares = dict.fromkeys(before, torch.stack(list(squares.values())).sum())
        return {name: d * self.factor(squares[name]) for name, d in before.items()}
