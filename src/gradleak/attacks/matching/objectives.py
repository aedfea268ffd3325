"""How far a simulated update is from the observed one. Each is 0 for a match and 1 for an update of zeros."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.trees import Tree, flatten, squared_norm, subtract, total

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
class LayerNorms:
    """Σ ‖g_l(x) − g_l‖ / Σ ‖g_l‖ over the tensors, not squared (Yin et al. 2021, who do not divide).

    A tensor that is nearly right pulls as hard as one that is far off, and a match is a kink.
    """

    citations: tuple[str, ...] = ("gradinversion",)

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        gaps = total(torch.linalg.vector_norm(simulated[name] - leaf) for name, leaf in observed.items())
        return gaps / total(torch.linalg.vector_norm(leaf) for leaf in observed.values())


@dataclass(frozen=True)
class Cosine:
    """1 − cos(g(x), g) over all tensors flattened together (Geiping et al. 2020): blind to any scale.

    Computed as ½‖u − v‖² of the unit vectors, which is the same and keeps its digits near a match, where
    1 − cos rounds to 0 from a mismatch of 1e-7 on in float32.
    """

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        u, v = flatten(simulated), flatten(observed)  # a few long operations are faster than many short
        size = u.square().sum()
        apart = _unit(u, size) - _unit(v, v.square().sum())
        return apart.square().sum() / 2 + (size < _tiny(size)) / 2  # zeros have no direction: their cos is 0


@dataclass(frozen=True)
class AbsoluteError:
    """‖g(x) − g‖₁ / ‖g‖₁: forgiving to a few entries that are far off."""

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        distance = total((simulated[name] - leaf).abs().sum() for name, leaf in observed.items())
        return distance / total(leaf.abs().sum() for leaf in observed.values())


def _unit(vector: Tensor, size: Tensor) -> Tensor:
    return vector * size.clamp(min=_tiny(size)).rsqrt()


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
