"""What a candidate is charged: how far its update is off in units of what hides it, and how odd it looks."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradleak.attacks.posterior.trust import Trust
from gradleak.observe import Observation
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.prior import Prior, prior_of
from gradleak.observe.seen import Seen
from gradleak.observe.uncertainty import weights
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Posterior:
    """−2 log of the probability of u up to a constant: ‖W (g(x) − ĝ)‖² + ‖u‖², at x = center + K u.

    W is 1 / deviation of every entry, from the assumed client. ``obs`` computes in float64, and
    ``deviations`` are those of the update as it came.
    """

    obs: Observation
    y: Tensor
    deviations: Tree

    @classmethod
    def of(cls, obs: Observation, y: Tensor) -> "Posterior":
        deviations = obs.uncertainty  # before the cast: rounding is that of the dtype that was sent
        y = y.to(torch.float64) if y.is_floating_point() else y
        return cls(obs.to(torch.float64), y, deviations)

    @cached_property
    def prior(self) -> Prior:
        return prior_of(self.obs.x_shape, self.obs.domain, self.obs.like)

    @cached_property
    def known(self) -> dict[str, Tensor]:
        """1 / deviation, 0 for what is not seen."""
        return weights(self.deviations)

    def pictures(self, u: Tensor) -> Tensor:
        moved = self.prior.spread(u.reshape(self.obs.x_shape))
        return self.obs.domain.from_pixels(self.prior.center(moved) + moved)

    def residual(self, u: Tensor) -> dict[str, Tensor]:
        """g(x) − ĝ in deviations, by name."""
        sent = self.obs.simulate(self.pictures(u), self.y)
        return {
            name: (leaf - self.obs.update[name]).detach() * self.known[name] for name, leaf in sent.items()
        }

    def linear(self, u: Tensor, trusted: Tree) -> Seen:
        """The update around u in deviations, times how far each entry is trusted."""
        scaled = {name: known * trusted[name] for name, known in self.known.items()}
        return Seen(Jacobian(self.obs, self.pictures(u), self.y, scaled), self.prior)

    def odd(self, x: Tensor) -> float:
        """What any candidate is charged, an outlier among the entries by its logarithm only."""
        moved = self.obs.domain.to_pixels(x.to(self.obs.like))
        u = self.prior.coordinates(moved - self.prior.center(moved))
        residual = self.residual(u)
        whole = Trust.full(residual, forgiving=True)
        return whole.cost(residual) + float(u.square().sum())

    def unexplained(self, residual: Tree) -> float:
        """The share of the update, squared, that is left, of the entries that are seen."""
        left = sum(float((r / w.clamp_min(1e-300)).square().sum()) for r, w in self._pairs(residual))
        whole = sum(float((g[w > 0]).square().sum()) for g, w in self._pairs(self.obs.update))
        return left / max(whole, 1e-300)

    def _pairs(self, tree: Tree) -> list[tuple[Tensor, Tensor]]:
        return [(leaf, self.known[name]) for name, leaf in tree.items()]
