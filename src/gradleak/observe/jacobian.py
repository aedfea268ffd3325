"""How the update answers to small changes of the batch, and how much of the batch it leaves open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from gradleak.observe.observation import Observation
from gradleak.observe.task import attention_by_formula
from gradleak.trees import detached, flatten


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J = d update / d x at one batch, as its products with vectors: it is not written down.

    Rows are the update's entries in its own order, columns the batch's. ``weights`` multiply the rows, by
    name: one number each, or one for every entry; None leaves them as they are.
    """

    obs: Observation
    x: Tensor
    y: Tensor
    weights: Mapping[str, Tensor | float] | None = None

    @classmethod
    def even(cls, obs: Observation, x: Tensor, y: Tensor) -> "Jacobian":
        """With rows scaled so that every parameter's share of the update has the same size.

        An attacker may weigh them as it likes, and the rank is the same.
        """
        sizes = {name: float(leaf.norm()) for name, leaf in cls(obs, x, y).update.items()}
        return cls(obs, x, y, {name: 1 / max(size, 1e-30) for name, size in sizes.items()})

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.x.numel()

    @cached_property
    def update(self) -> dict[str, Tensor]:
        """What the client sends for this very batch, unweighted."""
        return detached(self._simulated(self.x.detach()))

    def split(self, u: Tensor) -> dict[str, Tensor]:
        """A vector of rows, by the parameters' names."""
        parts = torch.split(u, [leaf.numel() for leaf in self.update.values()])
        return {
            name: part.reshape(leaf.shape)
            for part, (name, leaf) in zip(parts, self.update.items(), strict=True)
        }

    def dense(self) -> Tensor:
        """[rows, columns] in float64, column by column: for a picture that is small enough."""
        columns = self.x.numel()
        found = self.x.new_empty(columns, self.rows, dtype=torch.float64)
        for column in range(columns):
            one = torch.zeros(columns, dtype=torch.float64, device=self.x.device)
            one[column] = 1
            found[column] = self.times(one.reshape(self.x.shape))
        return found.T

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
        update = self._simulated(leaf)
        weights = self.weights or {}
        return leaf, flatten({name: u * weights.get(name, 1.0) for name, u in update.items()})

    def _simulated(self, x: Tensor) -> dict[str, Tensor]:
        task = replace(self.obs.task, transformed=False, whole=True)
        with attention_by_formula(), torch.enable_grad():
            return self.obs.client(task, self.obs.params, x, self.y)

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
