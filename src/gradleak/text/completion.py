"""A gradient of few words, found again where entries are missing or known with unequal precision."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 40  # of Gauss–Newton at each rank, at most
_SETTLED = 0.1  # of the misfit's own deviation: a fall that is none any more
_SLOW = 0.02  # of the misfit: a fall that is not worth it while directions are missing
_EDGE = 1.1  # of the largest singular value that noise has
_EXPLAINED = 10.0  # times what is known of the noise: rounding is known to about that
_HELD = 40  # one entry of so many is held back, to judge by
_EASY = 60  # steps of conjugate gradients, at most
_CLOSE = 1e-5  # of the squared gradient, where these end
_RIDGE = 1e-13
_LOST = 1e3  # times the mean variance: a column that too few rows have seen


@dataclass(frozen=True, eq=False)
class Completed:
    """G = A Bᵀ, with noise of deviation ``sigma`` / weight on each entry."""

    A: Tensor  # [m, r]
    B: Tensor  # [n, r], orthonormal
    spread: Tensor  # [r, r]: a root of the covariance of a row of B, for sigma 1
    trust: Tensor  # [n]: 1 / deviation of each of B's rows, beside that; 0: not determined
    sigma: float


def completed(sent: Tensor, weight: Tensor, faint: float = 1.0) -> Completed | str:
    """The matrix of least rank that ``sent`` [m, n] is, up to deviations of 1 / ``weight``; 0 is unseen.

    A row with k entries seen has k − r equations for the row space, which has r (n − r) unknowns: rows of
    which r entries or fewer are seen say nothing. What is below ``faint`` deviations is taken for noise.
    """
    held = _held(weight)
    fit = _Fit(sent, torch.where(held, 0, weight))
    while more := fit.standing_out(faint):
        if not fit.grow(more):
            return (
                f"{fit.seen} of {weight.numel()} entries are seen, which do not determine {fit.rank} words "
                "or more"
            )
    while fit.shrink(faint):
        pass
    if not fit.rank:
        return "nothing stands out of the noise"
    off = fit.off(weight * held)
    if off > _EXPLAINED:
        return f"entries that were held back are off by {off:.0f} deviations from what the others say"
    return fit.result()


def _held(weight: Tensor) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    chosen = torch.rand(weight.shape, generator=draws, dtype=torch.float64) < 1 / _HELD
    return chosen.to(weight.device) & (weight > 0)


class _Fit:
    """Weighted least squares: A is solved for, row by row, and B moves by Gauss–Newton."""

    def __init__(self, sent: Tensor, weight: Tensor) -> None:
        self.sent, self.weight, self.square = sent, weight, weight.square()
        self.counts = (weight > 0).sum(1)
        self.B = sent.new_zeros(sent.shape[1], 0)
        self._solve()

    @property
    def rank(self) -> int:
        return int(self.B.shape[1])

    @property
    def seen(self) -> int:
        return int(self.counts.sum())

    @property
    def surplus(self) -> int:
        """Equations beyond unknowns."""
        equations = int((self.counts - self.rank).clamp_min(0).sum())
        return equations - self.rank * (len(self.B) - self.rank)

    @property
    def sigma(self) -> float:
        return math.sqrt(self.misfit / max(self.surplus, 1))

    def standing_out(self, faint: float) -> int:
        """How many directions the misfit has that noise has not."""
        seen = (self.weight > 0) & self.told[:, None]
        widest = float(seen.sum(0).max()) ** 0.5 + float(seen.sum(1).max()) ** 0.5
        _, s, V = torch.linalg.svd(self.left, full_matrices=False)
        self.next = V.T
        count = int((s > _EDGE * max(self.sigma, faint) * widest).sum())
        return max(count, int(self.sigma > _EXPLAINED))

    def grow(self, more: int) -> bool:
        """``more`` directions; whether so many are determined."""
        scale = self.square.mean(0).sqrt()
        added = self.next[:, :more] / torch.where(scale > 0, scale, torch.inf)[:, None]
        self.B = torch.linalg.qr(torch.cat((self.B, added), 1)).Q
        if self.surplus <= 0:
            return False
        self._settle()
        return True

    def shrink(self, faint: float) -> bool:
        """The weakest direction less, where nothing stands out without it: too many came at once."""
        if not self.rank:
            return False
        B = self.B
        self.B = B @ torch.linalg.svd(self.A, full_matrices=False).Vh[:-1].T
        self._settle()
        if not self.standing_out(faint):
            return True
        self.B = B
        self._solve()
        return False

    def _settle(self) -> None:
        self._solve()
        damping = 1e-3
        for _ in range(_STEPS):
            B, misfit = self.B, self.misfit
            step = self._step(damping)
            self.B = torch.linalg.qr(B + step.nan_to_num()).Q
            self._solve()
            if self.misfit <= misfit and bool(step.isfinite().all()):
                damping /= 10
                enough = _SLOW if self.sigma > _EXPLAINED else _SETTLED / self.surplus**0.5
                if misfit - self.misfit < enough * misfit:
                    break
            else:
                self.B, damping = B, 10 * damping
                self._solve()

    def _solve(self) -> None:
        """A for this B, and what is left."""
        r, m = self.rank, len(self.sent)
        H = (self.square @ _outer(self.B)).view(m, r, r)
        ridge = _RIDGE * H.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * torch.eye(r).to(H)
        factor, failed = torch.linalg.cholesky_ex(H + ridge)
        self.told = (self.counts > r) & (failed == 0)
        self.factor = torch.where(self.told[:, None, None], factor, torch.eye(r).to(H))
        self.A = self._inverse((self.square * self.sent) @ self.B) * self.told[:, None]
        self.left = self.weight * (self.sent - self.A @ self.B.T) * self.told[:, None]
        self.misfit = float(self.left.square().sum())

    def _inverse(self, right: Tensor) -> Tensor:
        solved: Tensor = torch.cholesky_solve(right[..., None], self.factor)[..., 0]
        return solved

    def _step(self, damping: float) -> Tensor:
        """B's step by conjugate gradients, in coordinates in which A is orthonormal; A follows B."""
        Q, R = torch.linalg.qr(self.A)
        scale = self.square.mean(0)[:, None].clamp_min(torch.finfo(Q.dtype).tiny)

        def normal(step: Tensor) -> Tensor:
            moved = self.weight * (Q @ step.T)
            moved = moved - self.weight * (self._inverse((self.weight * moved) @ self.B) @ self.B.T)
            image: Tensor = (self.weight * moved).T @ Q + damping * scale * step
            return image

        step = _conjugate_gradients(normal, (self.weight * self.left).T @ Q, scale)
        moved: Tensor = torch.linalg.solve_triangular(R, step.T, upper=True).T
        return moved

    def off(self, held: Tensor) -> float:
        """Root mean square of how far held entries are off, in units of what is expected."""
        judged = (held > 0) & self.told[:, None]
        expected = ((1 + self._leverage() * held.square()) * judged).sum()
        left = held * (self.sent - self.A @ self.B.T) * self.told[:, None]
        return float((left.square().sum() / expected.clamp_min(1)).sqrt()) / max(self.sigma, 1.0)

    def result(self) -> Completed:
        """A row of which k entries are seen spends r of them on A, and tells B so much less."""
        r, n = self.rank, len(self.B)
        Q, R = torch.linalg.qr(self.A)
        left = self.square * (1 - self._leverage() * self.square).clamp(0, 1)
        information = (left.T @ _outer(Q)).view(n, r, r)
        mean = information.mean(0)
        errors = torch.linalg.inv(information + _RIDGE**0.5 * mean)
        uneven = torch.einsum("rs,nsr->n", mean, errors) / r  # the variance of each of B's rows
        trust = torch.where(uneven < _LOST, uneven.rsqrt(), 0)
        root = torch.linalg.inv(torch.linalg.cholesky(mean)).T
        return Completed(
            self.A, self.B, torch.linalg.solve_triangular(R, root, upper=True), trust, self.sigma
        )

    def _leverage(self) -> Tensor:
        """[m, n]: what an entry of weight 1 has to say on itself."""
        r, m = self.rank, len(self.sent)
        return torch.cholesky_inverse(self.factor).reshape(m, r * r) @ _outer(self.B).T


def _outer(rows: Tensor) -> Tensor:
    """Each row times itself, [n, r²]."""
    return (rows[:, :, None] * rows[:, None]).flatten(1)


def _conjugate_gradients(normal: Callable[[Tensor], Tensor], right: Tensor, scale: Tensor) -> Tensor:
    """The x whose image under ``normal`` is ``right``; ``scale`` is near the diagonal of ``normal``."""
    x, left = torch.zeros_like(right), right
    towards = left / scale
    way, square = towards, float((left * towards).sum())
    goal = _CLOSE * square
    for _ in range(_EASY):
        if square <= goal:
            break
        image = normal(way)
        length = square / float((way * image).sum())
        x, left = x + length * way, left - length * image
        towards = left / scale
        before, square = square, float((left * towards).sum())
        way = towards + square / before * way
    return x
