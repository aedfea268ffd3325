"""One Gauss-Newton step, by conjugate gradients, and with a dense factor where they are slow."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.observe.seen import Seen

_DENSE = 4096  # unknowns: a matrix of 128 MiB


@dataclass
class Newton:
    """Solves (A + I) d = −slope, and keeps the last dense factor as a preconditioner.

    ``spent`` counts products with J or Jᵀ, each of which costs about a matching gradient.
    """

    iterations: int = 40
    factor: Tensor | None = None
    spent: int = 0
    factors: int = 0

    def step(self, seen: Seen, slope: Tensor, *, loose: bool) -> Tensor:
        """``loose``: far from the end, where a rough direction will do and a factor would soon be stale."""
        found, enough = self._conjugate(seen, -slope, 1e-2 if loose else 1e-3)
        if enough or loose or len(slope) > _DENSE:
            return found
        self._refresh(seen)
        return self._conditioned(-slope)

    def _refresh(self, seen: Seen) -> None:
        matrix = seen.gram()
        matrix.diagonal().add_(1.0)
        self.spent += len(matrix)
        self.factors += 1
        self.factor = torch.linalg.cholesky(matrix)

    def _conditioned(self, v: Tensor) -> Tensor:
        return v if self.factor is None else torch.cholesky_solve(v[:, None], self.factor)[:, 0]

    def _conjugate(self, seen: Seen, right: Tensor, enough: float) -> tuple[Tensor, bool]:
        """Conjugate gradients, and whether they got there."""
        found, left = torch.zeros_like(right), right
        ahead = self._conditioned(left)
        direction, size = ahead, left @ ahead
        first = float(size)
        for _ in range(self.iterations):
            product = seen.product(direction) + direction
            self.spent += 2
            step = size / (direction @ product)
            found, left = found + step * direction, left - step * product
            ahead = self._conditioned(left)
            size, last = left @ ahead, size
            if float(size) <= enough**2 * first:
                return found, True
            direction = ahead + size / last * direction
        return found, False
