"""How far a simulated update is from the observed one. Each is 0 for a match and 1 for an update of zeros."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.trees import Tree, dot, squared_norm, subtract, total

Objective = Callable[[Tree, Tree], Tensor]


@dataclass(frozen=True)
class SquaredError:
    """‖g(x) − g‖² / ‖g‖² (Zhu et al. 2019, who do not divide: the minimiser stays, the scale goes)."""

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        return squared_norm(subtract(simulated, observed)) / squared_norm(observed)


@dataclass(frozen=True)
class LayerwiseSquaredError:
    """Every tensor's squared error in units of its own size, weighted and averaged over the tensors.

    ``weights`` are per tensor in the model's order; None weighs all alike.
    """

    weights: tuple[float, ...] | None = None

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        weights = self.weights or (1.0,) * len(observed)
        errors = (
            weight * (simulated[name] - leaf).square().sum() / leaf.square().sum().clamp(min=_tiny(leaf))
            for weight, (name, leaf) in zip(weights, observed.items(), strict=True)
        )
        return total(errors) / sum(weights)


@dataclass(frozen=True)
class Cosine:
    """1 − cos(g(x), g) over all tensors flattened together (Geiping et al. 2020): blind to any scale."""

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        size = squared_norm(simulated) * squared_norm(observed)
        return 1 - dot(simulated, observed) / size.clamp(min=_tiny(size)).sqrt()


@dataclass(frozen=True)
class AbsoluteError:
    """‖g(x) − g‖₁ / ‖g‖₁: forgiving to a few entries that are far off."""

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        distance = total((simulated[name] - leaf).abs().sum() for name, leaf in observed.items())
        return distance / total(leaf.abs().sum() for leaf in observed.values())


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
