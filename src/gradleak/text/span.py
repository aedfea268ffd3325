"""Which vectors a layer has read: those in the span of its gradient's rows, whatever noise lies on them."""

from dataclasses import dataclass

import torch
from scipy.stats import chi2
from torch import Tensor

_EDGE = 1.02  # of the largest singular value that noise has
_STEP = 8.0  # from the weakest word to the strongest rounding; within rounding, steps were below 2
_BULK = 0.9  # of the smallest: what decays further is no noise


@dataclass(frozen=True, eq=False)
class Span:
    """The row space of a gradient Σ_t δ_t x_tᵀ, as far as its dtype and its noise show it.

    For an x that was read, Nᵀx is Gaussian in k = n − rank dimensions, with deviation ``sigma`` times
    ‖S⁻¹Vᵀx‖, so that the ratio of the two squares follows a χ² (first-order perturbation of the null space).
    """

    null: Tensor  # N [n, n - rank]
    weighted: Tensor  # V S^-1 [n, rank]
    sigma: float  # of the noise in the scaled rows
    rounding: float  # of x itself, relative to its length
    noisy: bool
    rank: int  # how many words, or combinations of some, the rows hold
    basis: Tensor  # V [n, rank]; rows of zeros are dimensions that are not seen
    blocks: list[Tensor]  # the gradients, as far as they are seen

    @property
    def free(self) -> int:
        """k: how many dimensions say no."""
        return self.null.shape[1]

    def hears_more(self, other: "Span") -> bool:
        """Whether it is the better one of two that have read the same words."""
        blurs = [one.sigma * float(one.weighted.norm()) for one in (self, other)]
        if self.rank == other.rank:
            return self.noisy and blurs[0] < blurs[1]
        return self.rank > other.rank

    def bound(self, miss: float) -> float:
        """What χ²/k of a vector that was read exceeds with probability ``miss``.

        Where only rounding blurs the rows, three times the deviation is let pass: rounding is not white.
        """
        return float(chi2.isf(miss, self.free)) / self.free * (1 if self.noisy else 9)

    def ratio(self, outside: Tensor, inside: Tensor, length: Tensor) -> Tensor:
        """χ²/k from ‖Nᵀx‖², ‖S⁻¹Vᵀx‖² and ‖x‖²."""
        expected = self.sigma**2 * inside + self.rounding**2 * length / len(self.null)
        return outside / (self.free * expected)

    def without(self, x: Tensor, other: Tensor) -> float:
        """χ²/k to expect of ``x`` if ``other`` was read and it was not, by how far the two are apart."""
        outside = (x - other).square().sum() * self.free / len(self.null)
        return float(self.ratio(outside, (x @ self.weighted).square().sum(), x.square().sum()))

    def test(self, x: Tensor) -> Tensor:
        """χ²/k of vectors [..., n]: about 1 for those that were read."""
        outside, inside = (x @ self.null).square().sum(-1), (x @ self.weighted).square().sum(-1)
        return self.ratio(outside, inside, x.square().sum(-1))


def span(blocks: list[Tensor], dtype: torch.dtype, rounding: float) -> Span | str:
    """Of the gradients [rows, n] of layers that read the same, or why there is none.

    Where the numbers' own precision leaves no dimension free there is noise, or there are more words than
    dimensions. Noise has a spectrum of its own, which tells the two apart.
    """
    blocks = [block for block in blocks if bool(block.any())]
    if not blocks:
        return "none of the layers that read the words has a gradient in the update"
    eps = torch.finfo(dtype).eps
    stack = torch.cat([block / torch.linalg.matrix_norm(block) for block in blocks])
    m, n = stack.shape
    _, s, V = torch.linalg.svd(stack, full_matrices=True)
    rank = _rank(s, m, eps)
    if rank < min(n, m):
        tail = float(s[rank:].square().sum()) / ((m - rank) * (n - rank))
        return _split(s, V, rank, tail**0.5, rounding, False, blocks)
    if m < 2 * n:
        return f"{m} rows of gradient are too few to tell noise from words"
    whitened = [_whitened(block) for block in blocks]
    _, s, V = torch.linalg.svd(torch.cat(whitened), full_matrices=True)
    rank, sigma = noise_level(s, m, n)
    lowest = sigma * ((m - rank) ** 0.5 - (n - rank) ** 0.5)
    if n - rank < 2 or float(s[-1]) < _BULK * lowest:
        return f"the gradient fills all of its {n} dimensions: more words than that, or more noise than words"
    return _split(s, V, rank, sigma, rounding, True, blocks)


def _rank(s: Tensor, m: int, eps: float) -> int:
    """How many singular values are no rounding: those above √m eps, and weaker ones that stand apart from it.

    Rounding falls off evenly, so a steep step below that bound has words above it: the weak direction that
    is left where words are almost aliases.
    """
    rank = int((s > s[0] * m**0.5 * eps).sum())
    weaker = s[rank - 1 :]
    steps = (weaker[:-1] > _STEP * weaker[1:]) & (weaker[:-1] > 2 * eps * s[0])
    return rank + int(steps.nonzero().max()) if bool(steps.any()) else rank


def noise_level(s: Tensor, m: int, n: int) -> tuple[int, float]:
    """Rank and deviation of noise, from singular values, largest first (the Marchenko–Pastur edge)."""
    rank = int(0.9 * n)
    for _ in range(100):
        sigma = float(s[rank:].square().sum() / ((m - rank) * (n - rank))) ** 0.5
        found = min(int((s > _EDGE * sigma * (m**0.5 + n**0.5)).sum()), n - 1)
        if found == rank:
            break
        rank = found
    return rank, sigma


def _whitened(block: Tensor) -> Tensor:
    """Rows on which the noise has deviation 1, since each layer's may have its own."""
    m, n = block.shape
    s = torch.linalg.svdvals(block)
    if m < n:
        return block / block.square().mean().sqrt()
    _, sigma = noise_level(s, m, n)
    return block / sigma


def _split(
    s: Tensor, V: Tensor, rank: int, sigma: float, rounding: float, noisy: bool, blocks: list[Tensor]
) -> Span:
    basis = V[:rank].T.contiguous()
    return Span(V[rank:].T.contiguous(), basis / s[:rank], sigma, rounding, noisy, rank, basis, blocks)
