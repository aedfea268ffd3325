"""What an attacker takes for granted before it sees an update: that pictures are smooth, for one."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradleak.observe.domain import Domain

# The likeliest spectrum c / (a + |f|)^p of 90 bundled pictures that no measurement attacks: faces 30 to 59
# and 60 crops of photographs with seeds 20 to 29, in grey, at 16, 32 and 64 pixels a side (32 alone would
# fit by 0.04 nats an entry better there, and by 1.2 worse at 64). Given a and p, the scale c is the one at
# which the prior's variance is the pictures' mean square about mid-grey; in colour, that of the 60 crops.
# ``python -m benchmarks.decibels --fit`` prints these.
OFFSET, DECAY, SIDE = 2.413, 1.923, 32
SCALE = {1: 24.75, 3: 29.38}
# of red with green, red with blue and green with blue, in the whitened crops
CORRELATIONS = (0.875, 0.759, 0.926)


class Prior(Protocol):
    """Records are center + K u with u ~ N(0, I), each independent of the others, in pixels in [0, 1]."""

    @property
    def variance(self) -> float:
        """The mean square about the center that it expects of an entry."""

    def center(self, records: Tensor) -> Tensor:
        """The guess without an update, shaped like ``records``."""

    def spread(self, u: Tensor) -> Tensor:
        """K u, for any number of records."""

    def gathered(self, g: Tensor) -> Tensor:
        """Kᵀ g."""

    def coordinates(self, moved: Tensor) -> Tensor:
        """K⁻¹ of what a record differs by from the center."""


def prior_of(shape: tuple[int, ...], domain: Domain, like: Tensor) -> Prior:
    """Of pictures [B, C, H, W] that of natural ones; of anything else the domain's mean and deviation."""
    return Natural.of(shape, like) if len(shape) == 4 else Plain(domain)


@dataclass(frozen=True)
class Plain:
    """Entries of N(mean, std²), independent, as normalisation says: N(0, 1) after it."""

    domain: Domain

    @property
    def variance(self) -> float:
        return sum(std * std for std in self.domain.std) / len(self.domain.std)

    def center(self, records: Tensor) -> Tensor:
        return self.domain.to_pixels(torch.zeros_like(records))

    def spread(self, u: Tensor) -> Tensor:
        return self.domain.to_pixels(u) - self.center(u)

    def gathered(self, g: Tensor) -> Tensor:
        return self.spread(g)

    def coordinates(self, moved: Tensor) -> Tensor:
        return self.domain.from_pixels(moved + self.center(moved))


@dataclass(frozen=True, eq=False)
class Natural:
    """K = R · IDCT · diag(S) about mid-grey: S is the spectrum, and R Rᵀ the channels' correlations.

    R holds their principal axes, so that KᵀK is diagonal: the coordinates' shares of a picture add up.
    |f| counts half-waves over the picture and S grows with its size, so one scene has one prior at any
    resolution. The size of colours other than red, green and blue is unknown: they are independent.
    """

    rows: Tensor
    columns: Tensor
    spectrum: Tensor
    root: Tensor

    @classmethod
    def of(cls, shape: tuple[int, ...], like: Tensor) -> "Natural":
        _, channels, height, width = shape
        values, vectors = torch.linalg.eigh(correlations(channels))
        root = vectors * values.clamp_min(0).sqrt()
        scale = SCALE.get(channels, SCALE[1])
        parts = (cosines(height), cosines(width), scale * spectrum(height, width), root)
        return cls(*(part.to(like.device) for part in parts))

    @property
    def variance(self) -> float:
        return float(self.spectrum.square().mean())

    def center(self, records: Tensor) -> Tensor:
        return torch.full_like(records, 0.5)

    def spread(self, u: Tensor) -> Tensor:
        return self._mixed(self.rows.T @ (u * self.spectrum) @ self.columns, self.root)

    def gathered(self, g: Tensor) -> Tensor:
        return (self.rows @ self._mixed(g, self.root.T) @ self.columns.T) * self.spectrum

    def coordinates(self, moved: Tensor) -> Tensor:
        plain = self._mixed(moved, torch.linalg.inv(self.root))
        return (self.rows @ plain @ self.columns.T) / self.spectrum

    @staticmethod
    def _mixed(x: Tensor, root: Tensor) -> Tensor:
        return x if len(root) == 1 else torch.einsum("ij,bjhw->bihw", root, x)


def spectrum(height: int, width: int, offset: float = OFFSET, decay: float = DECAY) -> Tensor:
    """1 / (a + |f|)^p by rows and columns, of a scene whose orthonormal coefficients grow with its size."""
    side = math.sqrt(height * width)
    y = torch.arange(height, dtype=torch.float64) * (side / height)
    x = torch.arange(width, dtype=torch.float64) * (side / width)
    return (side / SIDE) * (offset + torch.hypot(y[:, None], x)) ** -decay


def correlations(channels: int) -> Tensor:
    matrix = torch.eye(channels, dtype=torch.float64)
    if channels == 3:
        for (i, j), value in zip(((0, 1), (0, 2), (1, 2)), CORRELATIONS, strict=True):
            matrix[i, j] = matrix[j, i] = value
    return matrix


def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform of n numbers, as a matrix."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi * (k + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
