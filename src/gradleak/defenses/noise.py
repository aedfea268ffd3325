"""Noise on every entry: the defense that differential privacy is made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number
from gradleak.observe import Client, OneGradient
from gradleak.observe.uncertainty import both, uncertainty
from gradleak.trees import Tree, map_tree


@dataclass(frozen=True)
class GaussianNoise(Outgoing):
    """N(0, ``std``²) on every entry. ``with_variance`` takes the variance, which the DLG paper quotes."""

    std: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("std", self.std, 0, math.inf)

    @classmethod
    def with_variance(cls, variance: float, client: Client | None = None) -> Self:
        return cls(client or OneGradient(), std=math.sqrt(number("variance", variance, 0, math.inf)))

    @property
    def deviation(self) -> float:
        return float(self.std)

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return _plus(update, self.std, lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64))

    def uncertainty(self, params: Tree, update: Tree, *, hidden: bool = False) -> dict[str, Tensor]:
        return _blurred(self, params, update, hidden)


@dataclass(frozen=True)
class LaplaceNoise(Outgoing):
    """Laplace noise of this ``scale`` on every entry, whose variance is 2 ``scale``².

    Its uncertainty is that of a Gaussian of the same variance: an attacker who uses the true density does
    better.
    """

    scale: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("scale", self.scale, 0, math.inf)

    @classmethod
    def with_variance(cls, variance: float, client: Client | None = None) -> Self:
        return cls(client or OneGradient(), scale=math.sqrt(number("variance", variance, 0, math.inf) / 2))

    @property
    def deviation(self) -> float:
        return math.sqrt(2) * self.scale

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        def draw(shape: torch.Size) -> Tensor:
            even = torch.rand(shape, generator=rng, dtype=torch.float64) - 0.5
            return -even.sign() * torch.log1p(-2 * even.abs())

        return _plus(update, self.scale, draw)

    def uncertainty(self, params: Tree, update: Tree, *, hidden: bool = False) -> dict[str, Tensor]:
        return _blurred(self, params, update, hidden)


def _plus(update: Tree, size: float, draw: Callable[[torch.Size], Tensor]) -> dict[str, Tensor]:
    if not size:
        return dict(update)
    return map_tree(lambda leaf: leaf + (size * draw(leaf.shape)).to(leaf), update)


def _blurred(
    noise: GaussianNoise | LaplaceNoise, params: Tree, update: Tree, hidden: bool
) -> dict[str, Tensor]:
    """What the client shows of its own dice is blurred with the rest."""
    before = uncertainty(noise.client, params, update, hidden=hidden or noise.deviation > 0)
    return both(before, map_tree(lambda d: torch.full_like(d, noise.deviation), before))
