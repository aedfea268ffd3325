"""Whether a closed form's answer is one: the update that it would have caused, against the one that came."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.observe import Observation
from gradleak.trees import norm, subtract

TOLERANCE = {torch.float64: 1e-6}
"""Relative distance up to which an update counts as explained; 1e-3 for every shorter dtype."""


@dataclass(frozen=True)
class Certificate:
    """``residual`` is ‖g(x) − g‖ / ‖g‖."""

    residual: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.residual <= self.tolerance

    @property
    def score(self) -> float:
        """In the unit of the matching attacks, which square it."""
        return self.residual**2


def certify(obs: Observation, x: Tensor, y: Tensor) -> Certificate:
    """Simulate the assumed client in float64 on the recovered batch."""
    precise = obs.to(torch.float64)
    simulated = precise.simulate(x.to(precise.like), y.to(precise.like.device))
    distance = norm(subtract(simulated, precise.update)) / norm(precise.update)
    residual = float(distance)
    return Certificate(
        residual if residual == residual else float("inf"), TOLERANCE.get(obs.like.dtype, 1e-3)
    )
