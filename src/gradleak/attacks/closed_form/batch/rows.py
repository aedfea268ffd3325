"""One record of the batch at a time, from what its row must satisfy on its own.

Rows q with [h, 1] = q V belong to records. Three facts tell a record's row from any other, and none needs
the other records: q v_bias = 1; q V ≥ 0 with zeros where a ReLU was off; and its delta p − e_y, which
depends on q alone, lies in the span of U.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linprog
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from gradleak.attacks.closed_form.batch.descent import Head
from gradleak.attacks.closed_form.batch.factors import Factors

_ZERO = 6.0  # an entry within so many standard deviations of the noise may be a zero
_LP_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Rows:
    """Candidate records: rows q [n, r], their labels, and how far each is from the span of U (sine)."""

    q: Tensor
    y: Tensor
    gap: Tensor


def roots(head: Head, rng: Generator, *, starts: int = 48, steps: int = 40) -> Rows:
    """Rows whose delta lies in the span of U, by Levenberg-Marquardt for every label.

    With u = the softmax over the other classes, p − e_y = (1 − p_y) (u − e_y): the unknown confidence
    drops out, and with it the false root of a record that is certain. classes − 1 − r equations stand
    against r − 1 unknowns, so that roots are isolated up to a batch of about half the classes.
    """
    f, C = head.f, len(head.b)
    outside = _outside(f)
    if outside.shape[1] == 0:
        return _none(head)
    y = torch.arange(C, device=head.b.device).repeat_interleave(starts)
    base = f.bias / f.bias.square().sum()
    open_ = torch.linalg.svd(f.bias[None])[2][1:]  # [r-1, r], orthogonal to the bias column
    t = _starts(head, y, base, open_, rng)
    q, value = _refine(head, y, base, open_, outside, t, steps)
    return _judged(head, q, y, value, outside)


def _starts(head: Head, y: Tensor, base: Tensor, open_: Tensor, rng: Generator) -> Tensor:
    """Around the class's own row of the gradient, which is a mixture that its records lead."""
    f = head.f
    own = -(f.U * f.S)[y]
    size = base.norm() * 10 ** (1.2 * torch.rand(len(y), 1, generator=rng, dtype=f.S.dtype).to(base) - 0.2)
    noise = torch.randn(len(y), f.rank, generator=rng, dtype=f.S.dtype).to(base)
    share = torch.rand(len(y), 1, generator=rng, dtype=f.S.dtype).to(base)
    direction = _unit(own) * (1 - share) + _unit(noise) * share
    lean = direction @ f.bias  # bring it to q v_bias = 1 where it leans that way, else to a random length
    q = torch.where(lean[:, None] > 0.1 * f.bias.norm(), direction / lean[:, None], base + size * direction)
    return (q - base) @ open_.mT


def _refine(
    head: Head, y: Tensor, base: Tensor, open_: Tensor, outside: Tensor, t: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    lam = t.new_full((len(t),), 1e-2)
    value, A, g = _row_equations(head, y, base + t @ open_, open_, outside)
    for _ in range(steps):
        damped = A + lam[:, None, None] * torch.diag_embed(A.diagonal(dim1=1, dim2=2) + 1e-14)
        step, _ = torch.linalg.solve_ex(damped, g[..., None])
        trial = t - step[..., 0]
        tried, A_new, g_new = _row_equations(head, y, base + trial @ open_, open_, outside)
        better = tried < value
        lam = torch.where(better, lam / 5, lam * 4).clamp(1e-13, 1e8)
        t = torch.where(better[:, None], trial, t)
        A = torch.where(better[:, None, None], A_new, A)
        g = torch.where(better[:, None], g_new, g)
        value = torch.where(better, tried, value)
    return base + t @ open_, value


def _row_equations(
    head: Head, y: Tensor, q: Tensor, open_: Tensor, outside: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    M = open_ @ head.M  # [r-1, C]
    hot = one_hot(y, M.shape[1]).bool()
    u = (q @ head.M + head.b).masked_fill(hot, -torch.inf).softmax(-1)
    residual = (u - hot.to(u)) @ outside
    J = (u[:, :, None] * (M.mT - (u @ M.mT)[:, None])).mT @ outside  # [n, r-1, m]
    value, A, g = residual.square().sum(1), J @ J.mT, (J @ residual[..., None])[..., 0]
    if head.positive:
        weight = head.f.bias.norm()
        low = (q @ head.f.features).clamp_max(0) * weight
        V = open_ @ head.f.features * weight
        A = A + torch.einsum("ij,nj,kj->nik", V, (low < 0).to(V), V)
        g, value = g + low @ V.mT, value + low.square().sum(1)
    return value, A, g


def by_subsets(head: Head, rng: Generator, *, draws: int = 6000) -> Tensor:
    """[n, r]: rows that are orthogonal to r − 1 random columns of V, and to more than chance would allow.

    SPEAR's sampling (Dimitrov et al. 2024, Section 4), on the head's features instead of a layer's deltas.
    """
    f = head.f
    r, live = f.rank, _live(f)
    if r < 2 or len(live) < r + 2:
        return f.V.new_zeros(0, r)
    pick = torch.rand(draws, len(live), generator=rng).topk(r - 1, 1).indices.to(live.device)
    columns = f.features[:, live[pick]].permute(1, 0, 2)  # [draws, r, r-1]
    q = torch.linalg.qr(columns, mode="complete")[0][..., -1]
    return _plausible(f, _to_bias(f, q), extra=2)


def by_programs(head: Head, rng: Generator, *, programs: int) -> Tensor:
    """[n, r]: vertices of {q V ≥ 0, q v_bias = 1} with many zeros, by reweighted linear programs.

    min c·q with c = Σ_j w_j V_j and w_j = 1 / (h_j + ε), ε falling: the ℓ1 norm reweighted (Candès, Wakin,
    Boyd 2008). It takes a number of programs that grows like the batch, where subsets take 2^batch.
    """
    f = head.f
    V = f.features[:, _live(f)]
    found = []
    for _ in range(programs if V.shape[1] else 0):
        # a positive combination of what cannot be negative, so that the program is bounded
        c = V @ torch.rand(V.shape[1], generator=rng, dtype=torch.float64).to(V).square()
        q: Tensor | None = None
        for k in range(_LP_ROUNDS):
            q, before = _vertex(c, V, f.bias), q
            if q is None or (before is not None and bool((q - before).norm() < 1e-9 * q.norm())):
                break
            h = (q @ V).clamp_min(0)
            c = V @ (1 / (h + 0.1 * 2.0**-k * h.max() + 1e-300))
        if q is not None:
            found.append(_on_its_zeros(q, V))
    return _plausible(f, _to_bias(f, torch.stack(found)), extra=2) if found else V.new_zeros(0, f.rank)


def _vertex(c: Tensor, V: Tensor, bias: Tensor) -> Tensor | None:
    # every row of length 1, since the solver's tolerances are absolute
    size, columns = bias.norm(), V / V.norm(dim=0)
    answer = linprog(
        (c / c.norm()).cpu().numpy(),
        A_ub=-columns.mT.cpu().numpy(),
        b_ub=[1e-9] * columns.shape[1],
        A_eq=(bias / size)[None].cpu().numpy(),
        b_eq=[1.0],
        bounds=(None, None),
        method="highs",
    )
    return None if answer.x is None else torch.as_tensor(answer.x).to(V) / size


def _on_its_zeros(q: Tensor, V: Tensor) -> Tensor:
    """The solver's vertex to full precision: what is most nearly orthogonal to its zero columns."""
    h = (q @ V).abs() / V.norm(dim=0)
    zeros = h < 1e-6 * h.max()
    if int(zeros.sum()) < len(q) - 1:
        return q
    fine: Tensor = torch.linalg.svd(V[:, zeros].mT)[2][-1]
    return fine


def recognised(head: Head, q: Tensor) -> Rows:
    """The rows with the label whose delta p − e_y comes closest to the span of U."""
    outside = _outside(head.f)
    if len(q) == 0 or outside.shape[1] == 0:
        return _none(head)
    C = len(head.b)
    y = torch.arange(C, device=q.device).repeat(len(q))
    rows = _judged(head, q.repeat_interleave(C, 0), y, None, outside)
    best = rows.gap.reshape(-1, C).argmin(1)
    keep = torch.arange(len(q), device=q.device) * C + best
    return Rows(rows.q[keep], rows.y[keep], rows.gap[keep])


def distinct(rows: Rows, limit: float) -> Rows:
    """The rows with a gap below ``limit``, one of each kind, the surest first."""
    order = [int(i) for i in rows.gap.argsort() if rows.gap[i] < limit]
    kept: list[int] = []
    for i in order:
        same = (
            (rows.q[i] - rows.q[j]).norm() < 1e-3 * rows.q[j].norm() for j in kept if rows.y[i] == rows.y[j]
        )
        if not any(bool(s) for s in same):
            kept.append(i)
    return Rows(rows.q[kept], rows.y[kept], rows.gap[kept])


def assemble(head: Head, rows: Rows) -> Iterator[list[int]]:
    """Which of the candidates are the batch: Σ_k α_k d_kᵀ q_k = U S with every α_k either 1 or 0."""
    f = head.f
    if f.rank > len(rows.q):
        return
    d = head.deltas(rows.q, rows.y)
    terms = (d[:, :, None] * rows.q[:, None, :]).reshape(len(d), -1)
    alpha = torch.linalg.lstsq(terms.mT, (f.U * f.S).reshape(-1, 1), driver="gelsd").solution[:, 0]
    yield [int(i) for i in (alpha - 1).abs().argsort()[: f.rank]]
    yield list(range(f.rank))


def without(head: Head, rows: Rows) -> Head | None:
    """The head's problem for the other records, or None where the rows are not what is missing from it.

    Taking Σ_k d_kᵀ [h_k, 1] away lowers the rank by one for each record that was really there.
    """
    f = head.f
    H = torch.cat((rows.q @ f.features, torch.ones_like(rows.q[:, :1])), 1)
    G = f.G - head.deltas(rows.q, rows.y).mT @ H
    u, s, v = torch.linalg.svd(G, full_matrices=False)
    r = f.rank - len(rows.q)
    noise = max(f.noise, float(s[r:].square().mean().sqrt()) / G.shape[1] ** 0.5)
    if r < 1 or noise > 30 * f.noise or not bool(s[r - 1] > 4 * noise * (len(G) ** 0.5 + G.shape[1] ** 0.5)):
        return None
    return replace(head, f=Factors(G, u[:, :r], s[:r], v[:r], noise))


def _judged(head: Head, q: Tensor, y: Tensor, value: Tensor | None, outside: Tensor) -> Rows:
    hot = one_hot(y, len(head.b)).bool()
    u = (q @ head.M + head.b).masked_fill(hot, -torch.inf).softmax(-1)
    d = u - hot.to(u)
    gap = (d @ outside).norm(dim=1) / d.norm(dim=1)
    if value is not None:
        gap = torch.maximum(gap, value.sqrt())
    return Rows(q, y, gap.nan_to_num(nan=1.0))


def _outside(f: Factors) -> Tensor:
    """[C, C − 1 − r]: orthogonal to U and to the vector of ones, to which every delta is."""
    ones = f.U.new_ones(len(f.U), 1)
    full = torch.linalg.svd(torch.cat((f.U, ones), 1))[0]
    outside: Tensor = full[:, f.rank + 1 :]
    return outside


def _live(f: Factors) -> Tensor:
    """The columns that are more than noise: a feature that is off for all records tells nothing."""
    size = (f.features * f.S[:, None]).norm(dim=0)
    live: Tensor = (size > _ZERO * f.noise * f.rank**0.5).nonzero()[:, 0]
    return live


def _plausible(f: Factors, q: Tensor, *, extra: int) -> Tensor:
    """Rows with no entry below 0 and at least ``extra`` zeros more than a row can be made to have."""
    live = _live(f)
    h = q @ f.features[:, live]
    blur = _ZERO * f.blur(q)[:, None]
    zeros = (h.abs() < blur).sum(1)
    good = (h.amin(1) > -blur[:, 0]) & (zeros >= f.rank - 1 + extra) & (blur[:, 0] < 0.05 * h.amax(1))
    return q[good]


def _to_bias(f: Factors, q: Tensor) -> Tensor:
    lean = q @ f.bias
    return (q / lean[:, None])[lean.abs() > 1e-9]


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    return unit


def _none(head: Head) -> Rows:
    empty = head.b.new_zeros(0)
    return Rows(head.b.new_zeros(0, head.f.rank), empty.long(), empty)
