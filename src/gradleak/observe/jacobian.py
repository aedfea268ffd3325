"""How the update answers to small changes of the batch, and how much of the batch it leaves open."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from gradleak.observe.observation import Observation
from gradleak.observe.task import attention_by_formula
from gradleak.trees import flatten


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J = d update / d x at one batch, as its products with vectors: it is never written down.

    Rows are scaled so that every parameter's share of the update has the same size: an attacker may
    weigh them as it likes, and J's rank is the same.
    """

    obs: Observation
    x: Tensor
    y: Tensor

    def transposed(self, u: Tensor) -> Tensor:
        """Jᵀu in float64: one matching gradient."""
        leaf, update = self._sent
        with attention_by_formula():
            (slope,) = torch.autograd.grad(update, leaf, u.to(update), retain_graph=True)
        return slope.detach().double()

    def times(self, v: Tensor) -> Tensor:
        """J v in float64, as the derivative of ⟨Jᵀu, v⟩ with respect to u."""
        u, slope = self._slope
        with attention_by_formula():
            (product,) = torch.autograd.grad(slope, u, v.to(slope), retain_graph=True)
        return product.detach().double()

    @property
    def rows(self) -> int:
        return self._sent[1].numel()

    @cached_property
    def _sent(self) -> tuple[Tensor, Tensor]:
        leaf = self.x.detach().clone().requires_grad_()
        task = replace(self.obs.task, transformed=False, whole=True)
        with attention_by_formula(), torch.enable_grad():
            update = self.obs.client(task, self.obs.params, leaf, self.y)
            scaled = {name: u / u.detach().norm().clamp(min=1e-30) for name, u in update.items()}
        return leaf, flatten(scaled)

    @cached_property
    def _slope(self) -> tuple[Tensor, Tensor]:
        leaf, update = self._sent
        u = torch.zeros_like(update, requires_grad=True)
        with attention_by_formula(), torch.enable_grad():
            (slope,) = torch.autograd.grad(update, leaf, u, create_graph=True)
        return u, slope


def open_share(jacobian: Jacobian, rng: Generator, *, iterations: int = 300, enough: float = 0.0) -> float:
    """The share of the batch's directions that the update leaves open: the nullity of J, over its columns.

    A random direction is rebuilt from its product with J by conjugate gradients; what cannot be rebuilt
    lies in J's null space, or in directions so weak that ``iterations`` do not reach them. So it is an
    upper bound, which falls with more iterations, and an estimate with an error of 1/sqrt(columns). It
    stops early where the share falls to ``enough``, and where rounding has taken over.
    """
    v = torch.randn(jacobian.x.shape, generator=rng, dtype=torch.float64)
    whole = float(v.square().sum())
    least = 1.0
    for n, rebuilt in enumerate(_rebuilt(jacobian, v)):
        share = float((v - rebuilt).square().sum()) / whole
        if not share <= 2 * least:  # without rounding it only falls
            break
        least = min(least, share)
        if least <= enough or n == iterations:
            break
    return least


def _rebuilt(jacobian: Jacobian, v: Tensor) -> Iterator[Tensor]:
    """Towards the least-squares solution of J w = J v, by CGLS from 0: v without its null space."""
    w, left = torch.zeros_like(v), jacobian.times(v)
    slope = jacobian.transposed(left)
    direction, size = slope, slope.square().sum()
    first = float(size)
    while float(size) > 1e-24 * first:
        moved = jacobian.times(direction)
        step = size / moved.square().sum()
        w, left = w + step * direction, left - step * moved
        yield w
        slope = jacobian.transposed(left)
        size, last = slope.square().sum(), size
        direction = slope + size / last * direction
