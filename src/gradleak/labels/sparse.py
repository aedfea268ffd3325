"""Sparse vectors in the row space of a layer's gradient: the inputs of single records.

[dW | db] = Δᵀ [A, 1] / K has rank K; with its SVD U S V, [A, 1] = Q V. A record's row q of Q makes q V
zero wherever the record's input is, never negative, and 1 in the last column, that of the bias. The
search for sparse vectors in a span is that of SPEAR (Dimitrov et al. 2024) for the deltas. Here it looks
for the inputs, of which one is a record's without the others, and the sign and the bias say so.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Generator, Tensor

_ZERO = 8.0  # an entry within so many standard deviations of the noise may be a zero
_SAME = 1 - 1e-6  # cosine
_SPARE = 3  # zeros beyond the r - 1 that any direction can be made to have
_SOLVED = 1e-8  # how exactly a linear program is
_SHARP = 0.2  # of the largest entry: zeros that are vaguer say nothing
_REWEIGHTED = 8
_ESSENTIAL = 0.95  # leverage of a zero without which the direction would be another


@dataclass(frozen=True, eq=False)
class Span:
    """G = U diag(S) V up to the rank that its noise lets through."""

    U: Tensor
    S: Tensor
    V: Tensor  # [r, inputs + 1]
    noise: float

    @property
    def rank(self) -> int:
        return len(self.S)

    @property
    def ones(self) -> Tensor:
        """[r]: q · ones is the 1 that the bias multiplies."""
        return self.V[:, -1]

    def blur(self, q: Tensor) -> Tensor:
        """[...]: what the noise leaves in an entry of q V = q S⁻¹ Uᵀ G."""
        blur: Tensor = self.noise * (q / self.S).norm(dim=-1)
        return blur

    def inputs(self, q: Tensor) -> Tensor:
        """[n, inputs]: what the layer is fed by the records with rows q [n, r]."""
        return (q @ self.V)[:, :-1]

    def misfit(self, deltas: Tensor) -> Tensor:
        """[...]: the sine of the angle between vectors [..., outputs] and the columns of U."""
        return _sine(deltas, self.U)

    def misfit_among(self, q: Tensor, deltas: Tensor) -> Tensor:
        """[n, ...]: the same for records whose rows q [n, r] are all certain, which leaves less to choose.

        Δᵀ Q = U S: on what is orthogonal to the other known rows, only this delta and those of the unknown
        records are left.
        """
        fits = []
        for k in range(len(q)):
            others = q[torch.arange(len(q), device=q.device) != k]
            free = torch.linalg.svd(others, full_matrices=True)[2][len(others) :]
            basis = torch.linalg.qr(self.U * self.S @ free.mT)[0]
            fits.append(_sine(deltas[k], basis))
        return torch.stack(fits)


def _sine(vectors: Tensor, basis: Tensor) -> Tensor:
    outside = vectors - vectors @ basis @ basis.mT
    sine: Tensor = outside.norm(dim=-1) / vectors.norm(dim=-1).clamp_min(1e-300)
    return sine


def span(G: Tensor, records: int, eps: float) -> Span:
    """Singular values below those of noise are left out, and with them records whose deltas are that small.

    The noise is what lies beyond the rank that ``records`` can have, or a part of the rounding ``eps``,
    which most entries stay below.
    """
    u, s, v = torch.linalg.svd(G, full_matrices=False)
    rows, columns = G.shape
    free = (min(rows, columns) - records) * (max(rows, columns) - records)
    beyond = float(s[records:].square().sum() / free) ** 0.5 if free > 0 else 0.0
    noise = max(beyond, 0.25 * eps * float(G.square().mean().sqrt()), 1e-300)
    r = min(records, int((s > 3 * noise * (rows**0.5 + columns**0.5)).sum()))
    return Span(u[:, :r], s[:r], v[:r], noise)


@dataclass(frozen=True, eq=False)
class Corners:
    """Records are the most degenerate corners of a polytope: ``faces`` · q >= 0, q · ones = 1.

    The faces [m, r] are what cannot be negative: the inputs behind a ReLU, and how far pixels stay within
    their range. A linear program ends in a corner, the likelier in one the more faces meet there. To go as
    far as possible from one face or two hits records more often than a random direction: on digits 8 % of
    the ways against 1 %. Weights 1 / (z_j + ε) on what is not yet zero (Candès, Wakin and Boyd 2008) lead on.
    """

    found: Span
    faces: Tensor

    @classmethod
    def of(cls, found: Span, low: Tensor | float | None, high: Tensor | None) -> "Corners":
        """Inputs are at least ``low``, and where there is a ``high`` at most that."""
        a = found.V[:, :-1].mT
        edges = [] if low is None else [a - torch.as_tensor(low).to(a).reshape(-1, 1) * found.ones]
        edges += [] if high is None else [high.to(a).reshape(-1, 1) * found.ones - a]
        faces = torch.cat((a[:0], *edges))
        live = (faces * found.S).norm(dim=1) > _ZERO * found.noise * found.rank**0.5
        sizes = faces.norm(dim=1)
        return cls(found, faces[live & (sizes > _SOLVED * sizes.max())])

    def visit(self, known: Tensor, rng: Generator) -> Tensor:
        """[n, r] of length 1: the corners along one way, which starts where the known rows have no part."""
        r = self.found.rank
        if r == 1:
            return known.new_ones(1, 1)
        if len(self.faces) < r:
            return known[:0]
        rows = self.faces / self.faces.norm(dim=1, keepdim=True)
        c = self._aim(rows, rng)
        if 0 < len(known) < r:
            basis = torch.linalg.qr(known.mT)[0]
            c = c - basis @ (basis.mT @ c)
        path: list[Tensor] = []
        for k in range(_REWEIGHTED):
            q = self._lowest(c / c.norm().clamp_min(1e-300), rows)
            if q is None or (path and float((q - path[-1]).norm()) < 1e-9 * float(q.norm())):
                break
            path.append(q)
            z = (rows @ q).clamp_min(0)
            c = (rows / (z + 0.3 * 2.0**-k * z.max().clamp_min(1e-300))[:, None]).sum(0)
        found = torch.stack(path) if path else rows.new_zeros(0, r)
        unit: Tensor = found / found.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return unit

    def _aim(self, rows: Tensor, rng: Generator) -> Tensor:
        """One face, two, or any direction, each in a third of the ways."""
        i, j, kind = (
            int(torch.randint(n, (), generator=rng, device=rng.device)) for n in (len(rows), len(rows), 3)
        )
        if kind == 2:
            return torch.randn(len(rows[0]), generator=rng, dtype=torch.float64, device=rng.device).to(rows)
        weight = float(torch.rand((), generator=rng, device=rng.device))
        return -(rows[i] + kind * weight * rows[j])

    def _lowest(self, c: Tensor, rows: Tensor) -> Tensor | None:
        ones = self.found.ones / self.found.ones.norm()  # any scale would do, and a solver likes this one
        solved = linprog(
            c.cpu().numpy(),
            A_ub=-rows.cpu().numpy(),
            b_ub=np.zeros(len(rows)),
            A_eq=ones[None].cpu().numpy(),
            b_eq=[1.0],
            bounds=(None, None),
            method="highs",
        )
        return None if solved.x is None else torch.from_numpy(np.asarray(solved.x)).to(rows)

    def settled(self, q: Tensor, *, strict: bool) -> Tensor | None:
        """The row that the zeros of q determine, scaled by the bias, or None if it cannot be a record's.

        ``strict`` asks for more zeros than chance has, none of which makes the difference alone: a mixture
        that was made to vanish at one more place hangs on that one.
        """
        f, r = self.found, self.found.rank
        if r > 1:
            sizes = (self.faces @ q).abs()
            level = max(_ZERO * float(f.blur(q)), _SOLVED * float(sizes.max()))
            if level > _SHARP * float(sizes.max()):
                return None
            zeros = self.faces[sizes < level]
            if len(zeros) < r - 1 + (_SPARE if strict else 1):
                return None
            u, s, v = torch.linalg.svd(zeros, full_matrices=False)
            if len(s) < r or not bool(s[r - 2] > 10 * s[r - 1]) or not bool(s[r - 2] > 1e-3 * s[0]):
                return None
            if strict and float(u[:, : r - 1].square().sum(1).max()) > _ESSENTIAL:
                return None
            q = v[-1]
        scale = q @ f.ones
        if float(scale.abs()) < _ZERO * float(f.blur(q)):
            return None
        q = q / scale
        negative = float((self.faces @ q).amin()) if len(self.faces) else 0.0
        return q if negative > -_ZERO * float(f.blur(q)) - _SOLVED else None


def rows_of_records(corners: Corners, rng: Generator, *, strict: bool, ways: int, idle: int) -> Tensor:
    """[n, r]: distinct rows; under ``strict`` records' alone, at most the rank, else also others."""
    r = corners.found.rank
    kept = corners.found.V.new_zeros(0, r)
    since = 0
    for _ in range(ways):
        before = len(kept)
        for q in corners.visit(kept if strict else kept[:0], rng):
            fine = corners.settled(q, strict=strict)
            if fine is not None and not _known(kept, fine):
                kept = torch.cat((kept, fine[None]))
        since = 0 if len(kept) > before else since + 1
        if since > idle or (strict and len(kept) >= r):
            break
    return kept


def _known(kept: Tensor, q: Tensor) -> bool:
    cosine = (kept @ q).abs() / (kept.norm(dim=1) * q.norm())
    return bool((cosine > _SAME).any())
