"""Which directions of noise protect a batch, and what a budget of noise buys where it is best spent.

I2F's first insight: perturbations of one length are not alike. Along a left singular vector of J, whose
singular value is √λ, a change of length 1 moves a perfect attacker's picture by 1/√λ.
"""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from gradleak.errors import InvalidInput
from gradleak.observe import Client, Observation
from gradleak.risk.gram import Spectrum, jacobian, pixels_per_unit, spectrum


@dataclass(frozen=True, eq=False)
class Spending:
    """A budget of noise, the variance summed over all entries of the update, and what it does.

    ``variances`` are per direction, in the order of ``Directions``. Errors are the rmse of a pixel for an
    attacker that knows how bright pictures are and no more: spent here, and spread evenly over the update.
    """

    budget: float
    variances: Tensor
    rmse: float
    even_rmse: float

    @property
    def gain(self) -> float:
        """Decibels by which the same budget hides more than when it is spread evenly."""
        return 20 * math.log10(self.rmse / self.even_rmse) if self.even_rmse else math.inf


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions that an update tells of, the most protective first.

    ``errors`` [n]: how far, in pixels' root sum of squares, a change of the update of length 1 moves a
    perfect attacker's picture. Directions that the update does not depend on are ``protected`` without noise.
    """

    spectrum: Spectrum
    errors: Tensor
    protected: int

    @property
    def values(self) -> Tensor:
        """The eigenvalues λ of JᵀJ, ascending."""
        return self.spectrum.values[self.protected :]

    @property
    def spread(self) -> float:
        """The most protective direction's error over the least protective one's."""
        return float(self.errors[0] / self.errors[-1])

    def perturbation(self, i: int, length: float = 1.0) -> dict[str, Tensor]:
        """A change of the update along direction ``i``, by parameter name."""
        if not isinstance(length, int | float) or not 0 < length < math.inf:
            raise InvalidInput(f"expected a finite length above 0; came {length!r}")
        found = self.spectrum.jacobian
        moved = found.times(self._pixels(i) / pixels_per_unit(found))
        return found.split(length * moved / moved.norm())

    def picture(self, i: int) -> Tensor:
        """What that change does to the picture, of length 1: [B, ...] in pixels."""
        return self._pixels(i)

    def best(self, budget: float) -> Spending:
        """How to spend a budget of variance, so that the attacker's error is largest.

        The attacker takes a direction's prior variance τ², that of pixels around mid-gray, for known: its
        error there is τ²σ²/(σ² + λτ²). The best σ² fill up, as water would: τ²(√(λ/μ) − λ) where positive.
        """
        if isinstance(budget, bool) or not isinstance(budget, int | float) or not 1e-30 < budget < math.inf:
            raise InvalidInput(f"expected a budget of variance above 0; came {budget!r}")
        found = self.spectrum.jacobian
        prior = float((found.obs.domain.to_pixels(found.x) - 0.5).square().mean())
        if not prior > 0:
            raise InvalidInput(
                "expected pictures with something to hide; came mid-gray ones, which everybody can guess"
            )
        lam = self.values.clamp_min(self.spectrum.floor)

        def filled(log_price: float) -> Tensor:
            return prior * ((lam / math.exp(log_price)).sqrt() - lam).clamp_min(0)

        low, high = -2 * math.log(float(lam.max()) + 1), -math.log(float(lam.min()))
        while float(filled(low).sum()) < budget:
            low -= 4
        price = brentq(lambda log: float(filled(log).sum()) - budget, low, high, xtol=1e-12)
        variances = filled(price)
        variances = variances * (budget / float(variances.sum()))
        even = torch.full_like(lam, budget / found.rows)
        return Spending(
            float(budget), variances, _rmse(lam, variances, prior, self), _rmse(lam, even, prior, self)
        )

    def _pixels(self, i: int) -> Tensor:
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(self.errors):
            raise InvalidInput(f"expected a direction from 0 to {len(self.errors) - 1}; came {i!r}")
        return self.spectrum.vectors[:, self.protected + i].reshape(self.spectrum.jacobian.x.shape)


def _rmse(lam: Tensor, variances: Tensor, prior: float, found: Directions) -> float:
    left = (prior * variances / (variances + lam * prior)).sum() + prior * found.protected
    return math.sqrt(float(left) / (len(lam) + found.protected))


def directions(
    model: nn.Module | Observation, x: Tensor, y: Tensor, *, client: Client | None = None
) -> Directions:
    """Which directions of noise protect this batch (I2F's first insight), by one decomposition of JᵀJ."""
    return directions_of(spectrum(jacobian(model, x, y, client=client)))


def directions_of(known: Spectrum) -> Directions:
    """The same from a Spectrum that is at hand."""
    told = known.values[known.protected :]
    return Directions(known, told.rsqrt(), known.protected)
