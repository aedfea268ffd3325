"""Noise on every entry: the defense that differential privacy is made of."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number
from gradleak.observe import Client, OneGradient
from gradleak.observe.uncertainty import Defended, both, uncertainty
from gradleak.trees import Tree, map_tree

_CLEAR = 5.0  # deviations, which noise alone reaches once in two million entries
_SHOWN = 0.1  # of all entries


@dataclass(frozen=True)
class _Noise(Outgoing):
    @property
    @abstractmethod
    def deviation(self) -> float:
        """Of each entry."""

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        """Dice that show: entries well above the noise were not dropped, and all others may have been."""
        if self.deviation and isinstance(self.client, Defended) and not self._shows(update):
            return self
        return super().told_by(params, self._cleared(update), records)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        if self.deviation and not self._shows(update):
            return blurred(self.client, params, update, records, self.deviation, hidden=True)
        return blurred(self.client, params, self._cleared(update), records, self.deviation, hidden=hidden)

    def _cleared(self, update: Tree) -> Tree:
        """0 for what could be noise and nothing else."""
        if not self.deviation:
            return update
        return map_tree(lambda leaf: torch.where(leaf.abs() > _CLEAR * self.deviation, leaf, 0), update)

    def _shows(self, update: Tree) -> bool:
        """Whether so many entries stand out that the rest may be taken for unseen."""
        clear = sum(int((leaf != 0).sum()) for leaf in self._cleared(update).values())
        return clear >= _SHOWN * sum(leaf.numel() for leaf in update.values())


@dataclass(frozen=True)
class GaussianNoise(_Noise):
    """N(0, ``std``²) on every entry. ``with_variance`` takes the variance, which the DLG paper quotes."""

    std: float = field(kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("dlg",)

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
        return plus(update, self.std, lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64))


@dataclass(frozen=True)
class LaplaceNoise(_Noise):
    """Laplace noise of this ``scale`` on every entry, whose variance is twice ``scale`` squared.

    Its uncertainty is that of a Gaussian of the same variance: an attacker who uses the true density does
    better.
    """

    scale: float = field(kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("dlg",)

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

        return plus(update, self.scale, draw)


def blurred(
    client: Client, params: Tree, update: Tree, records: int, deviation: float, *, hidden: bool
) -> dict[str, Tensor]:
    """The uncertainty of what the client sends, and noise of this deviation on top."""

    def without_noise(leaf: Tensor) -> Tensor:
        """As long as the tensor was before, since some defenses blur by a share of that."""
        square = leaf.square().mean()
        rest = (square - deviation**2).clamp_min(0) / torch.where(square > 0, square, 1)
        return leaf * rest.sqrt()

    bare = map_tree(without_noise, update) if deviation else update
    before = uncertainty(client, params, bare, records, hidden=hidden)
    return both(before, map_tree(lambda d: torch.full_like(d, deviation), before))


def plus(update: Tree, size: float, draw: Callable[[torch.Size], Tensor]) -> dict[str, Tensor]:
    """``size`` times what is drawn on every entry."""
    if not size:
        return dict(update)
    return map_tree(lambda leaf: leaf + (size * draw(leaf.shape)).to(leaf), update)
