"""Least squares in float64: iterative and matrix-free, or by a small dense factorisation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_SOUND = 1e-8  # the least squared diagonal of a Cholesky factor, relative, that needs no eigenvalues
_LIMIT = 3000  # steps; the layers of the papers' networks need 100 to 500


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """``matvec(x) = target``, its rows already balanced; both products take leading batch axes.

    ``matvec`` maps [*batch, *shape] to [*batch, rows], ``rmatvec`` is its transpose.
    """

    matvec: Callable[[Tensor], Tensor]
    rmatvec: Callable[[Tensor], Tensor]
    target: Tensor
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Iterated:
    """Solutions [k, *shape], the smallest ones where there are many, and the steps they took."""

    x: Tensor
    steps: int
    converged: bool


def relative(error: Tensor, against: Tensor) -> float:
    size, scale = float(torch.linalg.vector_norm(error)), float(torch.linalg.vector_norm(against))
    return size / scale if scale else size


def cgls(
    system: LinearSystem,
    targets: Tensor,
    tolerances: Tensor,
    *,
    start: Tensor | None = None,
    limit: int = _LIMIT,
) -> Iterated:
    """Conjugate gradients on the normal equations, without forming them, for ``targets`` [k, rows] at once.

    Each stops when ||A'r|| has fallen to its tolerance times ||A'b||, and leaves the rest to go on alone.
    """
    shape = (len(targets), *system.shape)
    done = targets.new_zeros(shape) if start is None else start.clone()
    x, r = done.clone(), targets - system.matvec(done) if start is not None else targets.clone()
    s = system.rmatvec(r).flatten(1)
    goal = tolerances * torch.linalg.vector_norm(system.rmatvec(targets).flatten(1), dim=1)
    alive = torch.arange(len(targets), device=targets.device)
    p, x, size = s, x.flatten(1), (s * s).sum(1)
    for step in range(limit + 1):
        going = size.sqrt() > goal
        if not bool(going.all()) or step == limit:
            done[alive] = x.reshape(-1, *system.shape)
            if step == limit or not bool(going.any()):
                return Iterated(done, step, step < limit)
            x, r, p, s = x[going], r[going], p[going], s[going]
            size, goal, alive = size[going], goal[going], alive[going]
        q = system.matvec(p.reshape(-1, *system.shape))
        rate = (size / (q * q).sum(1)).unsqueeze(1)
        x, r = x + rate * p, r - rate * q
        s = system.rmatvec(r).flatten(1)
        last, size = size, (s * s).sum(1)
        p = s + (size / last).unsqueeze(1) * p
    raise RuntimeError("unreachable: the loop returns at its limit")


def well_conditioned(gram: Tensor, least: float, scale: float = 0.0) -> Tensor | None:
    """The Cholesky factor of A'A, or None where its diagonal says that A is close to losing rank.

    The squared ratio of the diagonal's ends bounds the condition number of A'A from below. ``scale`` is
    what A'A would be compared with where all of it may be rounding.
    """
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info):
        return None
    diagonal = factor.diagonal().square()
    return factor if float(diagonal.min()) > least * max(float(diagonal.max()), scale) else None


def smallest(gram: Tensor, right: Tensor, cutoff: float, scale: float) -> tuple[Tensor, int]:
    """The smallest solution of the normal equations ``gram x = right``, and how many dimensions it leaves.

    Eigenvalues count as zero below ``cutoff`` times the largest, or times ``scale`` where that is more.
    """
    if not gram.numel():
        return right, 0
    factor = well_conditioned(gram, _SOUND, scale)
    if factor is not None:
        x = torch.cholesky_solve(right, factor)
        x += torch.cholesky_solve(right - gram @ x, factor)
        return x, 0
    values, vectors = torch.linalg.eigh(gram)
    kept = values > cutoff * max(float(values[-1]), scale)
    strong = vectors[:, kept]
    x = torch.zeros_like(right)
    for _ in range(2):  # the second refines the first
        x += strong @ ((strong.T @ (right - gram @ x)) / values[kept].unsqueeze(1))
    return x, int((~kept).sum())
