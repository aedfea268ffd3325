"""Levenberg-Marquardt on the r x r unknowns of a softmax head, many starts together."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gradleak.attacks.closed_form.batch.factors import Factors


@dataclass(frozen=True, eq=False)
class Head:
    """The last layer: its factors and its own numbers. ``positive``: its inputs cannot be negative."""

    f: Factors
    W: Tensor
    b: Tensor
    batch: int
    positive: bool

    @property
    def M(self) -> Tensor:  # noqa: N802
        """[r, classes]: the logits of a row q are q M + b."""
        return self.f.features @ self.W.T

    def deltas(self, Q: Tensor, y: Tensor) -> Tensor:
        """D = (softmax(H Wᵀ + b) − Y) / B for H = Q V."""
        p = (Q @ self.M + self.b).softmax(-1)
        return (p - one_hot(y, p.shape[-1]).to(p)) / self.batch

    def misfit(self, Q: Tensor, y: Tensor) -> Tensor:
        """The root mean square of Dᵀ [Q V, 1] − G within the span of V, in units of the noise.

        Dᵀ Q V − G = (Dᵀ Q − U S) V, and the rows of V are orthonormal; q v_bias = 1 is r2.
        """
        f = self.f
        r1 = self.deltas(Q, y).mT @ Q - f.U * f.S
        r2 = ((Q @ f.bias - 1) / f.noise).square() / (1 + (Q / f.S).square().sum(-1))
        return ((r1 / f.noise).square().mean((-2, -1)) + r2.mean(-1)).sqrt()


@dataclass(frozen=True, eq=False)
class Descent:
    """Where each start [T] ended: the rows, and the residuals in units of the noise."""

    Q: Tensor
    y: Tensor
    misfit: Tensor


def descend(head: Head, Q: Tensor, y: Tensor, columns: Tensor, *, scaled: bool, steps: int = 60) -> Descent:
    """All starts Q [T, r, r] with their labels y [T, r] at once.

    r1 = (Dᵀ Q − U S) / ‖S‖, or each column over its own Sᵢ where ``scaled`` (confident records have tiny
    deltas and would be ignored); r2 = (q v_bias − 1) / B; r3 = min(Q V, 0) on some columns.
    """
    T, r, _ = Q.shape
    lam = Q.new_full((T,), 1e-2)
    value, A, g = _equations(head, Q, y, columns, scaled)
    for _ in range(steps):
        damped = A + lam[:, None, None] * torch.diag_embed(A.diagonal(dim1=1, dim2=2) + 1e-14)
        step, _ = torch.linalg.solve_ex(damped, g[..., None])
        trial = Q - step[..., 0].reshape(T, r, r)
        tried, A_new, g_new = _equations(head, trial, y, columns, scaled)
        better = tried < value
        lam = torch.where(better, lam / 5, lam * 4).clamp(1e-13, 1e8)
        Q = torch.where(better[:, None, None], trial, Q)
        A = torch.where(better[:, None, None], A_new, A)
        g = torch.where(better[:, None], g_new, g)
        value = torch.where(better, tried, value)
        if bool(((lam > 1e7) | (value < 1e-30)).all()):
            break
    return Descent(Q, y, head.misfit(Q, y))


def _equations(
    head: Head, Q: Tensor, y: Tensor, columns: Tensor, scaled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """‖residual‖², JᵀJ and Jᵀresidual in the order of Q's entries."""
    f, M = head.f, head.M
    T, r, _ = Q.shape
    weight = 1 / f.S if scaled else torch.full_like(f.S, 1 / float(f.S.norm()))
    p = (Q @ M + head.b).softmax(-1)
    D = (p - one_hot(y, p.shape[-1]).to(p)) / head.batch
    r1 = (D.mT @ Q - f.U * f.S) * weight  # [T, C, r]
    # ∂D_ac/∂q_ab = p_ac (M_bc − Σ_c' p_ac' M_bc') / B
    slope = p[:, :, None, :] * (M - (p @ M.T)[..., None]) / head.batch  # [T, a, b, C]
    J = torch.einsum("tai,tabc->tciab", Q, slope)
    eye = torch.eye(r, dtype=Q.dtype, device=Q.device)
    J = J + torch.einsum("ib,tac->tciab", eye, D)
    J = (J * weight[:, None, None]).reshape(T, -1, r * r)
    residual = r1.reshape(T, -1)
    A, g = J.mT @ J, (J.mT @ residual[..., None])[..., 0]
    r2 = (Q @ f.bias - 1) / r
    own = torch.einsum("b,c->bc", f.bias, f.bias).expand(T, r, r, r) / r**2
    grad = r2[..., None] * f.bias / r
    value = residual.square().sum(1) + r2.square().sum(1)
    if head.positive:
        low = (Q @ columns).clamp_max(0)  # [T, r, m]
        own = own + (columns * (low < 0).to(low)[..., None, :]) @ columns.T
        grad = grad + low @ columns.T
        value = value + low.square().sum((1, 2))
    blocks = torch.zeros(T, r, r, r, r, dtype=Q.dtype, device=Q.device)
    index = torch.arange(r, device=Q.device)
    blocks[:, index, :, index, :] = own.transpose(0, 1)
    return value, A + blocks.reshape(T, r * r, r * r), g + grad.reshape(T, -1)


def watched(f: Factors, n: int = 192) -> Tensor:
    """[r, n]: the columns on which r3 looks, scaled so that it weighs about as much as r1.

    Evenly spread over the layer, since there is no reason to prefer any. The paper trail says random ones.
    """
    F = f.features.shape[1]
    pick = torch.linspace(0, F - 1, min(n, F)).round().long()
    columns = f.features[:, pick]
    return columns * float(f.bias.norm())
