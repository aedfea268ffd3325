"""Virtual constraints put to use: two layers solved as one, where the upper alone leaves dimensions open.

What the upper layer reads is act(W u + b) of the lower layer's input u, and so confined to a thin set
(the virtual constraints of Zhu and Blaschko 2021, who count them). Solving for u instead uses them all:
the upper layer's equations, seen through the activation's slopes, above the lower layer's gradient
equations. The slopes depend on u, so they are guessed from the smallest solution and updated until they
stay. For piecewise linear activations each round is one linear system, for others a Gauss-Newton step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from gradleak.layers import (
    Inverse,
    Layer,
    LinearSystem,
    Signal,
    apply_linear,
    apply_transpose,
    equations,
    invert,
)
from gradleak.layers.solve import cgls, relative

_ROUNDS = 30
_LOST = 1e-4  # of a random direction, from which a null space is meant and not rounding
_SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)
_STEPS = 400  # of conjugate gradients per round: the slopes will change before more would pay


@dataclass(frozen=True, eq=False)
class Pair:
    """A lower linear layer, the activation on it, and the upper linear layer with what is known above it."""

    lower: Layer
    activation: Layer
    upper: Layer
    out: Signal

    def solve(self, start: Inverse, *, tolerance: float) -> Inverse:
        """The cut below the lower layer; ``start`` is what the upper layer's own rule found above it."""
        above = equations(self.upper, self.out)
        back = start.signal.grad  # dL/d what the upper layer reads: known whatever its value is
        z = invert(self.activation.module, self.activation, start.signal, tolerance=tolerance).signal.value
        u = start.signal.value.new_zeros(self.lower.in_shape)
        u, residual = self._towards(above, back, u, z, tolerance)
        for _ in range(_ROUNDS):
            before = residual
            u, residual = self._towards(above, back, u, self._z(u), tolerance, residual)
            if residual >= before or residual < tolerance:
                break
        value, slope = self._activate(self._z(u))
        system = self._linearised(above, self._z(u), value, slope, back)
        return Inverse(
            Signal(u, apply_transpose(self.lower, slope * back)), residual, open_dimensions(system)
        )

    def _towards(
        self,
        above: LinearSystem,
        back: Tensor,
        u: Tensor,
        z: Tensor,
        tolerance: float,
        residual: float = float("inf"),
    ) -> tuple[Tensor, float]:
        """One round with the slopes at ``z``: the longest of a few steps that meets the equations better."""
        value, slope = self._activate(z)
        system = self._linearised(above, z, value, slope, back)
        found = cgls(system, system.target[None], z.new_tensor([tolerance]), start=u[None], limit=_STEPS).x[0]
        for share in _SHARES:
            there = u + share * (found - u)
            if (lower := self._residual(above, there, back)) < residual:
                return there, lower
        return u, residual

    def _z(self, u: Tensor) -> Tensor:
        return apply_linear(self.lower, u) + self._offset()

    def _activate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The activation's value and slope at ``z``."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = functional_call(self.activation.module, dict(self.activation.params), (leaf[None],))[0]
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope

    def _linearised(
        self, above: LinearSystem, z: Tensor, value: Tensor, slope: Tensor, back: Tensor
    ) -> LinearSystem:
        """Both layers' rows around the activation's present slopes."""
        below = gradient_rows(self.lower, slope * back)
        # act(W u + b) ~ value + slope (W u + b − z), so what is not linear in u moves to the right.
        constant = value + slope * (self._offset() - z)
        target = torch.cat((above.target - above.matvec(constant), below.target))
        split = len(above.target)

        def matvec(u: Tensor) -> Tensor:
            z_part = torch.stack([slope * apply_linear(self.lower, one) for one in u])
            return torch.cat((above.matvec(z_part), below.matvec(u)), 1)

        def rmatvec(rows: Tensor) -> Tensor:
            upper = above.rmatvec(rows[:, :split])
            through = torch.stack([apply_transpose(self.lower, slope * one) for one in upper])
            return through + below.rmatvec(rows[:, split:])

        return LinearSystem(matvec, rmatvec, target, self.lower.in_shape)

    def _residual(self, above: LinearSystem, u: Tensor, back: Tensor) -> float:
        value, slope = self._activate(self._z(u))
        below = gradient_rows(self.lower, slope * back)
        error = torch.cat((above.matvec(value) - above.target, below.matvec(u) - below.target))
        return relative(error, torch.cat((above.target, below.target)))

    def _offset(self) -> Tensor | float:
        bias = self.lower.params.get("bias")
        return 0.0 if bias is None else bias.reshape(-1, *(1,) * (len(self.lower.out_shape) - 1))


def gradient_rows(layer: Layer, delta: Tensor) -> LinearSystem:
    """A layer's gradient equations alone: nothing is known of its output but dL/doutput."""
    unknown = torch.zeros(layer.out_shape, dtype=torch.bool)
    return equations(layer, Signal(torch.zeros_like(delta), delta, unknown))


def open_dimensions(system: LinearSystem) -> int:
    """About how many dimensions of its unknown a system leaves open; 0 only where none was met.

    A random direction is put through the system and solved for: what does not come back lies in the null
    space, and is on average the share of the dimensions that this has.
    """
    n = torch.Size(system.shape).numel()
    probe = torch.randn(system.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = system.matvec(probe[None])
    found = cgls(system, target, target.new_tensor([1e-10])).x[0]
    lost = relative(found - probe, probe)
    return 0 if lost < _LOST else max(1, round(n * lost**2))
