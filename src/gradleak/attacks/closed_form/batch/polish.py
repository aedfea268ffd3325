"""Gauss-Newton on the whole gradient in the r x r coordinates that the first layer leaves open."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.closed_form.batch.dense import Stage, backward, forward
from gradleak.attacks.closed_form.batch.factors import Factors


@dataclass(frozen=True, eq=False)
class Polished:
    """``misfit`` is in units of the noise; ``blur`` [B] is the error to expect in a pixel of each record."""

    x: Tensor
    misfit: float
    blur: Tensor


def polish(
    net: Sequence[Stage], factors: Sequence[Factors], x: Tensor, y: Tensor, *, steps: int = 25
) -> Polished:
    """Fit X = Q V to every layer's gradient at once, each weighed by its own noise.

    The head of a batch with repeated labels is badly conditioned, and the layers below are not: their
    ReLUs tell the records apart. Gradients count only within their own row spaces, outside of which there
    is noise; X is in the row space of dW_1, of which each record's picture is a part.
    """
    problem = _Problem(net, factors, y)
    Q = torch.linalg.lstsq(problem.basis.mT, x.mT).solution.mT
    residual = problem.residual(Q)
    value, lam = float(residual.square().sum()), 1e-9
    J = problem.jacobian(Q)
    for _ in range(steps):
        A, g = J.mT @ J, J.mT @ residual
        step = torch.linalg.lstsq(A + lam * torch.diag(A.diagonal()), g[:, None]).solution
        trial = Q - step.reshape(Q.shape)
        fresh = problem.residual(trial)
        tried = float(fresh.square().sum())
        if not tried < value:
            lam = max(lam, 1e-9) * 100
            if lam > 1e3:
                break
            continue
        done = tried > (1 - 1e-6) * value
        Q, residual, value, lam = trial, fresh, tried, max(lam / 100, 1e-12)
        J = problem.jacobian(Q)
        if done:
            break
    return Polished(Q @ problem.basis, (value / len(residual)) ** 0.5, problem.blur(J, residual, Q))


class _Problem:
    """The residual of every layer, in the few coordinates in which it can be other than noise."""

    def __init__(self, net: Sequence[Stage], factors: Sequence[Factors], y: Tensor) -> None:
        self.net, self.factors, self.y = net, factors, y
        width = net[0].W.shape[1]
        self.basis = factors[0].V[:, :width]
        # The first layer sees X through W V alone, and its gradient through V alone.
        first = net[0]
        self._short = [
            Stage(first.name, first.W @ self.basis.mT, first.b, first.dW, first.db, first.act),
            *net[1:],
        ]

    def residual(self, Q: Tensor) -> Tensor:
        inputs = forward(self._short, Q)
        deltas = backward(self._short, inputs, self.y)
        found = []
        for i, (f, delta) in enumerate(zip(self.factors, deltas, strict=True)):
            width = self.net[i].W.shape[1]
            A = Q @ (self.basis @ f.V[:, :width].mT) if i == 0 else inputs[i] @ f.V[:, :width].mT
            if f.V.shape[1] > width:
                A = A + f.V[:, -1]
            found.append(((delta.mT @ A - f.U * f.S) / f.noise).reshape(-1))
        return torch.cat(found)

    def jacobian(self, Q: Tensor) -> Tensor:
        """[residuals, B r]: d(Σ_k δ_kᵀ a_k) / dQ_ki = (dδ_k)ᵀ a_k + δ_kᵀ (da_k), as records do not mix."""
        inputs = forward(self._short, Q)
        deltas = backward(self._short, inputs, self.y)
        slow_inputs, slow_deltas = self._tangents(inputs, deltas)
        found = []
        for i, f in enumerate(self.factors):
            width = self.net[i].W.shape[1]
            reduce = self.basis @ f.V[:, :width].mT if i == 0 else f.V[:, :width].mT
            A = inputs[i] @ reduce
            if f.V.shape[1] > width:
                A = A + f.V[:, -1]
            part = torch.einsum("kif,kc->fcki", slow_deltas[i], A)
            part = part + torch.einsum("kf,kic->fcki", deltas[i], slow_inputs[i] @ reduce)
            found.append((part / f.noise).reshape(-1, Q.numel()))
        return torch.cat(found)

    def _tangents(self, inputs: list[Tensor], deltas: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """How every stage's inputs and deltas [B, r, ...] move with each coordinate of their own record."""
        net, r = self._short, inputs[0].shape[1]
        moved = [torch.eye(r).to(inputs[0]).expand(len(self.y), r, r)]
        for stage, out in zip(net, inputs[1:], strict=True):
            moved.append((moved[-1] @ stage.W.mT) * stage.act.slope(out)[:, None])
        p = inputs[-1].softmax(-1)[:, None]
        turned = [p * (moved[-1] - (p * moved[-1]).sum(-1, keepdim=True)) / len(self.y)]
        for i in range(len(net) - 1, 0, -1):
            act, out = net[i - 1].act, inputs[i]
            bent = (deltas[i] @ net[i].W * act.bend(out))[:, None] * moved[i]
            turned.append((turned[-1] @ net[i].W) * act.slope(out)[:, None] + bent)
        return moved, turned[::-1]

    def blur(self, J: Tensor, residual: Tensor, Q: Tensor) -> Tensor:
        """From the covariance (JᵀJ)⁻¹ of Q (the rows of V are orthonormal), and the noise in V."""
        variance = torch.linalg.pinv(J.mT @ J, hermitian=True).diagonal().reshape(Q.shape).sum(1)
        excess = max(1.0, float(residual.square().mean()))
        blur: Tensor = (
            excess * (variance.clamp_min(0) / self.basis.shape[1] + self.factors[0].blur(Q) ** 2)
        ).sqrt()
        return blur
