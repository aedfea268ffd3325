"""Another optimizer's descent, in coordinates in which the pixels of natural pictures are alike."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.matching.optimizers.base import Descent, Optimizer, Space
from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Natural:
    """The descent of ``inner`` over u with x = K u: K = R · IDCT · diag(S) over every channel's plane.

    S(f) ∝ (1 + |f|)^−``decay`` is how fast the spectrum of pictures falls, and R the root of the channels'
    correlations, ``correlation`` for each pair. A step of one length is then a likely picture, and large
    forms are found before fine ones; nothing is cut off, since K can be inverted. The mean of S² is 1, so
    that a learning rate keeps its meaning. Labels and unknowns of the client pass through as they are.
    """

    inner: Optimizer
    decay: float = 1.0
    correlation: float = 0.9

    def __post_init__(self) -> None:
        if not (0 <= self.decay < math.inf and 0 <= self.correlation < 1):
            raise InvalidInput(
                "expected a decay of 0 or more and a correlation from 0 to below 1; came "
                f"{self.decay!r} and {self.correlation!r}"
            )

    @property
    def citations(self) -> tuple[str, ...]:
        return self.inner.citations

    def descend(self, start: Tensor, space: Space, rng: Generator) -> Descent:
        if len(space.shape) != 4:
            raise InvalidInput(f"natural coordinates need pictures [B, C, H, W]; came {list(space.shape)}")
        basis = Basis.of(space.shape, self.decay, self.correlation, start)

        def over(u: Tensor) -> Tensor:
            return torch.cat((basis.picture(u[: space.pixels]), u[space.pixels :]))

        def back(x: Tensor) -> Tensor:
            return torch.cat((basis.coordinates(x[: space.pixels]), x[space.pixels :]))

        project = space.project
        inside = Space(
            space.pixels, None if project is None else lambda u: back(project(over(u))), space.shape
        )
        descent = self.inner.descend(back(start), inside, rng)
        u = next(descent)
        while True:
            value, gradient = yield over(u)
            pulled = torch.cat((basis.gradient(gradient[: space.pixels]), gradient[space.pixels :]))
            try:
                u = descent.send((value, pulled))
            except StopIteration as ended:
                outcome: Outcome = ended.value
                return outcome


@dataclass(frozen=True, eq=False)
class Basis:
    """K as its factors: the transforms of rows and columns, the spectrum, and the channels' root."""

    shape: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    spectrum: Tensor
    root: Tensor

    @classmethod
    def of(cls, shape: tuple[int, ...], decay: float, correlation: float, like: Tensor) -> "Basis":
        _, channels, height, width = shape
        frequency = torch.hypot(
            torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
        )
        spectrum = (1 + frequency) ** -decay
        spectrum = spectrum / spectrum.square().mean().sqrt()
        together = torch.full((channels, channels), correlation, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(together.fill_diagonal_(1.0))
        root = (vectors * values.sqrt()) @ vectors.T
        return cls(shape, *(m.to(like) for m in (cosines(height), cosines(width), spectrum, root)))

    def picture(self, u: Tensor) -> Tensor:
        """K u."""
        return self._mixed(self._back(u.reshape(self.shape) * self.spectrum), self.root).reshape(-1)

    def gradient(self, g: Tensor) -> Tensor:
        """Kᵀ g."""
        return (self._forth(self._mixed(g.reshape(self.shape), self.root)) * self.spectrum).reshape(-1)

    def coordinates(self, x: Tensor) -> Tensor:
        """K⁻¹ x."""
        plain = self._mixed(x.reshape(self.shape), torch.linalg.inv(self.root))
        return (self._forth(plain) / self.spectrum).reshape(-1)

    def _back(self, u: Tensor) -> Tensor:
        return self.rows.T @ u @ self.columns

    def _forth(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.T

    @staticmethod
    def _mixed(x: Tensor, root: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", root, x)


def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform of n numbers, as a matrix."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
