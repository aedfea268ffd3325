"""The update as an attacker sees it who expects natural pictures: J K, whose columns are alike beforehand."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradleak.observe.jacobian import Jacobian
from gradleak.observe.prior import Prior

_AT_ONCE = 2**20  # numbers in the updates of one product: of a large network, many at once take longer


@dataclass(frozen=True, eq=False)
class Seen:
    """The update as the attacker's coordinates u see it: J K, in float64 whatever J is in."""

    jacobian: Jacobian
    prior: Prior

    @property
    def shape(self) -> torch.Size:
        return self.jacobian.x.shape

    @cached_property
    def moved(self) -> Tensor:
        """How far the pictures are from the prior's center, in pixels."""
        pixels = self.jacobian.obs.domain.to_pixels(self.jacobian.x.double())
        return pixels - self.prior.center(pixels)

    @property
    def truth(self) -> Tensor:
        """u*."""
        return self.prior.coordinates(self.moved).reshape(-1)

    def pixels(self, u: Tensor) -> Tensor:
        """K u, for one vector or for a row of each."""
        return self.prior.spread(u.reshape(-1, *self.shape[1:])).reshape(*u.shape[:-1], *self.shape)

    def times(self, u: Tensor) -> Tensor:
        return self.jacobian.times(self._in_units(self.pixels(u)))

    def transposed(self, rows: Tensor) -> Tensor:
        return self.prior.gathered(self._in_units(self.jacobian.transposed(rows))).reshape(-1)

    def product(self, u: Tensor) -> Tensor:
        """A u at noise 1."""
        return self.transposed(self.times(u))

    def products(self, rows: Tensor) -> Tensor:
        """A u of every row, a few at a time: a large network's update takes memory."""
        size = max(1, _AT_ONCE // self.jacobian.rows)
        return torch.cat([self._products(some) for some in torch.split(rows, size)])

    def _products(self, rows: Tensor) -> Tensor:
        if len(rows) == 1:
            return self.product(rows[0])[None]
        moved = self._in_units(self.pixels(rows).flatten(0, 1)).reshape(len(rows), *self.shape)
        slopes = self.jacobian.transposed_all(self.jacobian.times_all(moved))
        return self.prior.gathered(self._in_units(slopes.flatten(0, 1))).reshape(rows.shape)

    def gram(self) -> Tensor:
        """A at noise 1, written out."""
        half = self._gathered_rows(self.jacobian.gram())
        matrix = self._gathered_rows(half.T)
        return (matrix + matrix.T) / 2

    def _gathered_rows(self, rows: Tensor) -> Tensor:
        """M K, row by row."""
        return torch.cat(
            [
                self.prior.gathered(self._in_units(some.reshape(-1, *self.shape[1:]))).reshape(len(some), -1)
                for some in torch.split(rows, 256)
            ]
        )

    def _in_units(self, pixels: Tensor) -> Tensor:
        """As the model's input: normalisation divides by a deviation, whichever way the chain rule goes."""
        domain = self.jacobian.obs.domain
        return domain.from_pixels(pixels) - domain.from_pixels(torch.zeros_like(pixels))

    def errors(self, u: Tensor) -> Tensor:
        """Each record's sum of squares of K u, for one vector or for a row of each."""
        return self.pixels(u).flatten(u.dim()).square().sum(-1)
