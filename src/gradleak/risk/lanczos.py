"""Functions of a symmetric matrix that is known by its products only, applied to a few vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class Lanczos:
    """The Krylov space of each row b of ``starts``, which ``grow`` enlarges: f(A) b ≈ |b| Q f(T) e₁.

    ``product`` takes all rows at once, and the rows know nothing of each other. Every new direction is made
    orthogonal to all before, twice: without that, copies of the first eigenvalues found would crowd out the
    small ones, which are what a strong leak is made of.
    """

    product: Callable[[Tensor], Tensor]
    starts: Tensor

    def __post_init__(self) -> None:
        rows, _ = self.starts.shape
        self.steps = 0
        self.sizes = self.starts.norm(dim=1)
        self.basis = _over(self.starts, self.sizes)[:, None]
        self.diagonal = self.starts.new_zeros(rows, 0)
        self.beside = self.starts.new_zeros(rows, 0)

    @property
    def ended(self) -> bool:
        """Whether no space can grow any more; f(A) b is exact then."""
        return not bool(self.basis[:, self.steps].any())

    def grow(self, steps: int) -> None:
        """Up to ``steps`` products in all, or as many as there are directions."""
        rows, columns = self.starts.shape
        more = max(0, min(steps, columns) - self.steps)
        self.basis = torch.cat((self.basis, self.basis.new_zeros(rows, more, columns)), 1)
        for _ in range(more):
            if self.ended:
                break
            known = self.basis[:, : self.steps + 1]
            here = known[:, -1]
            moved = self.product(here)
            diagonal = (moved * here).sum(1)
            for _ in range(2):
                moved = moved - torch.einsum("rsc,rs->rc", known, torch.einsum("rsc,rc->rs", known, moved))
            length = moved.norm(dim=1)
            self.diagonal = torch.cat((self.diagonal, diagonal[:, None]), 1)
            largest = torch.cat((self.diagonal, self.beside), 1).abs().amax(1)
            goes_on = (length > 1e-12 * largest) & (self.steps + 1 < columns)
            length = torch.where(goes_on, length, 0.0)
            self.beside = torch.cat((self.beside, length[:, None]), 1)
            self.steps += 1
            self.basis[:, self.steps] = _over(moved, length)

    def apply(self, *functions: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """f(A) b of every row, for each f, which takes the eigenvalues of T."""
        values, vectors = self._small()
        seen = (
            torch.einsum("rij,rj->ri", vectors, f(values.clamp_min(0)) * vectors[:, 0]) for f in functions
        )
        return [
            self.sizes[:, None] * torch.einsum("rsc,rs->rc", self.basis[:, : self.steps], one.to(self.basis))
            for one in seen
        ]

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights of Gauss's rule for every row: Σ weights g(nodes) ≈ bᵀ g(A) b / bᵀb."""
        values, vectors = self._small()
        return values.to(self.basis), vectors[:, 0].square().to(self.basis)

    def _small(self) -> tuple[Tensor, Tensor]:
        """Of T, which is A in the Krylov space."""
        beside = self.beside[:, : self.steps - 1]
        small = torch.diag_embed(self.diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        values, vectors = torch.linalg.eigh(small.cpu())
        return values, vectors


def _over(rows: Tensor, lengths: Tensor) -> Tensor:
    """Rows of length 1, or 0 where there is no length to divide by."""
    return torch.where(lengths[:, None] > 0, rows / lengths.clamp_min(1e-300)[:, None], 0.0)
