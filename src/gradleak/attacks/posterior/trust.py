"""How far an attacker believes a residual: far from the end it is no noise, but a wrong picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.trees import Tree, map_tree

_NOISE = 0.4549  # the median of the square of N(0, 1)
_FEW = 1  # entry more than there are: one alone may be off by 2.8 deviations, as noise is in 99.5 % of cases
_FREEDOM = 1.0  # of Student's distribution: Cauchy's, whose tails forgive the most


@dataclass(frozen=True, eq=False)
class Trust:
    """A cost of residuals in deviations, and the weights with which Gauss-Newton lowers it.

    ``sizes`` are variances by parameter and entry, in units of the known ones: 1 is the noise alone.
    ``forgiving`` takes entries for Cauchy's and not for Gaussian: some may be off by any amount.
    """

    sizes: Mapping[str, Tensor]
    forgiving: bool = False

    @classmethod
    def full(cls, residual: Tree, *, forgiving: bool = False) -> "Trust":
        return cls(map_tree(torch.ones_like, residual), forgiving)

    @classmethod
    def by_blocks(cls, residual: Tree, known: Tree) -> "Trust":
        """A wrong picture is off by the same factor in each of a parameter's entries, in units of deviations.

        A smooth network needs no more, and the best known entries soon lead the way.
        """
        factors = excess(residual, known)
        return cls({name: torch.full_like(leaf, max(1.0, factors[name])) for name, leaf in residual.items()})

    @classmethod
    def by_misfit(cls, residual: Tree, known: Tree) -> "Trust":
        """A wrong picture adds as much to each of a parameter's entries, however well they are known."""
        return cls({name: _widened(leaf, known[name], torch.mean, 1.0) for name, leaf in residual.items()})

    @classmethod
    def by_entries(cls, residual: Tree, known: Tree) -> "Trust":
        """What is added is the middle entry's, so that entries beyond a kink are left out, and no others.

        A network with kinks is linear on each side of them. Where a unit of the candidate is on and the
        true one's is off, its entries differ by far more than all others, and no small step mends them.
        """
        sizes = {name: _widened(leaf, known[name], torch.median, _NOISE) for name, leaf in residual.items()}
        return cls(sizes, forgiving=True)

    def weights(self, residual: Tree) -> dict[str, Tensor]:
        """What each residual is multiplied by, for squares that fall where the cost does."""
        return {
            name: ((_FREEDOM + 1) / (_FREEDOM * self.sizes[name] + leaf.square())).sqrt()
            if self.forgiving
            else self.sizes[name] ** -0.5
            for name, leaf in residual.items()
        }

    def cost(self, residual: Tree) -> float:
        squares = {name: leaf.square() / self.sizes[name] for name, leaf in residual.items()}
        if self.forgiving:
            return sum(float((_FREEDOM + 1) * torch.log1p(s / _FREEDOM).sum()) for s in squares.values())
        return sum(float(s.sum()) for s in squares.values())


def _widened(residual: Tensor, known: Tensor, middle: Callable[[Tensor], Tensor], of_noise: float) -> Tensor:
    """The variance of entries with what a wrong picture adds, over what is known; in units of that.

    After rounding to few digits, entries are known to a share of their own size. A factor on all variances
    would keep the smallest in charge, which a wrong picture explains worst.
    """
    seen = known > 0
    if not bool(seen.any()):
        return torch.ones_like(residual)
    variances = known[seen] ** -2
    squares = residual[seen].square() * variances
    misfit = float(middle(squares)) / of_noise - float(middle(variances))
    return 1 + max(0.0, misfit) * known.square()


def excess(residual: Tree, known: Tree) -> dict[str, float]:
    """By parameter, the residual's mean square over that of what hides it: about 1 where it is only that.

    Of few entries the mean is held back, since noise alone may make it large.
    """
    found = {}
    for name, leaf in residual.items():
        seen = int((known[name] > 0).sum())
        found[name] = float(leaf.square().sum()) / (seen + _FEW)
    return found


def level(residual: Tree, known: Tree) -> float:
    """The same over all parameters together."""
    seen = sum(int((leaf > 0).sum()) for leaf in known.values())
    return sum(float(leaf.square().sum()) for leaf in residual.values()) / max(seen, 1)


def weighted(residual: Tree, weights: Tree) -> dict[str, Tensor]:
    return map_tree(torch.mul, dict(residual), weights)
