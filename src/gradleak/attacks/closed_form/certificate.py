"""Whether a closed form's answer is one: the update that it would have caused, against the one that came."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.observe import Observation
from gradleak.trees import norm, subtract

_TOLERANCE = {torch.float64: 1e-6}
"""Relative distance up to which an update counts as explained; 1e-4 for every shorter dtype."""
_FLOOR = 1e-6  # of the whole update: what a tensor's own distance is held against at the least


@dataclass(frozen=True)
class Certificate:
    """``residual`` is ‖g(x) − g‖ / ‖g‖; ``worst`` is the same for the parameter that is explained worst.

    One norm over everything would not see a small layer, and it may be the only one that sees the data.
    """

    residual: float
    worst: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.worst <= self.tolerance

    @property
    def score(self) -> float:
        """In the unit of the matching attacks, which square it."""
        return self.residual**2


def certify(obs: Observation, x: Tensor, y: Tensor) -> Certificate:
    """Simulate the assumed client in float64 on the recovered batch."""
    precise = obs.to(torch.float64)
    simulated = precise.simulate(x.to(precise.like), y.to(precise.like.device))
    difference, whole = subtract(simulated, precise.update), float(norm(precise.update))
    each = [
        float(leaf.norm()) / max(float(precise.update[name].norm()), _FLOOR * whole)
        for name, leaf in difference.items()
    ]
    residual = float(norm(difference)) / whole
    tolerance = _TOLERANCE.get(obs.like.dtype, 1e-4)
    if not math.isfinite(residual):
        return Certificate(math.inf, math.inf, tolerance)
    return Certificate(residual, max(each), tolerance)
