"""How far an attacker believes a residual: far from the end it is no noise, but a wrong picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.trees import Tree, map_tree

_NOISE = 0.4549  # the median of the square of N(0, 1)
_FREEDOM = 1.0  # of Student's distribution: Cauchy's, whose tails forgive the most


@dataclass(frozen=True, eq=False)
class Trust:
    """A cost of residuals in deviations, and the weights with which Gauss-Newton lowers it.

    ``blocks`` are variances by parameter; None is the noise's own, 1. ``forgiving`` takes entries for
    Cauchy's and not for Gaussian: some may be off by any amount.
    """

    blocks: Mapping[str, float]
    forgiving: bool = False

    @classmethod
    def full(cls, residual: Tree) -> "Trust":
        return cls(dict.fromkeys(residual, 1.0))

    @classmethod
    def by_blocks(cls, residual: Tree, known: Tree) -> "Trust":
        """Each parameter's entries share their likeliest variance, and it is not below the noise's."""
        return cls({name: max(1.0, e) for name, e in excess(residual, known).items()})

    @classmethod
    def by_entries(cls, residual: Tree, known: Tree) -> "Trust":
        """The scale is that of the middle entry, so that entries beyond a kink are left out, and no others.

        A network with kinks is linear on each side of them. Where a unit of the candidate is on and the
        true one's is off, its entries differ by far more than all others, and no small step mends them.
        """
        sizes = {name: leaf.square()[known[name] > 0] for name, leaf in residual.items()}
        middle = {name: float(one.median()) / _NOISE if len(one) else 1.0 for name, one in sizes.items()}
        return cls({name: max(1.0, size) for name, size in middle.items()}, forgiving=True)

    def weights(self, residual: Tree) -> dict[str, Tensor]:
        """What each residual is multiplied by, for squares that fall where the cost does."""
        return {
            name: ((_FREEDOM + 1) / (_FREEDOM * size + leaf.square())).sqrt()
            if self.forgiving
            else torch.full_like(leaf, size**-0.5)
            for (name, leaf), size in zip(residual.items(), self._sizes(residual), strict=True)
        }

    def cost(self, residual: Tree) -> float:
        pairs = zip(residual.values(), self._sizes(residual), strict=True)
        if self.forgiving:
            return sum(
                float((_FREEDOM + 1) * torch.log1p(leaf.square() / (_FREEDOM * size)).sum())
                for leaf, size in pairs
            )
        return sum(float(leaf.square().sum()) / size for leaf, size in pairs)

    def _sizes(self, residual: Tree) -> list[float]:
        return [self.blocks[name] for name in residual]


def excess(residual: Tree, known: Tree) -> dict[str, float]:
    """By parameter, the residual's mean square over that of what hides it: 1 where it is only that."""
    found = {}
    for name, leaf in residual.items():
        seen = int((known[name] > 0).sum())
        found[name] = float(leaf.square().sum()) / seen if seen else 0.0
    return found


def level(residual: Tree, known: Tree) -> float:
    """The same over all parameters together."""
    seen = sum(int((leaf > 0).sum()) for leaf in known.values())
    return sum(float(leaf.square().sum()) for leaf in residual.values()) / max(seen, 1)


def weighted(residual: Tree, weights: Tree) -> dict[str, Tensor]:
    return map_tree(torch.mul, dict(residual), weights)
