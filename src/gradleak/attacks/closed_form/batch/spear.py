"""SPEAR: a batch from the zeros that a ReLU leaves in the gradient of a wide linear layer.

Dimitrov et al., "SPEAR: Exact Gradient Inversion of Batches in Federated Learning" (2024), Sections 3-4.
dL/dW = Δᵀ X has rank B and factors U, S V; the columns of Δᵀ lie in the span of U, and each has a zero
wherever its record's ReLU was off. Beside the paper's sampling, which takes about 2^B draws, there is a
descent to sparse vectors, which does not. Where the paper sets a number of zeros above which a direction
is a record's, each zero is asked whether it could be spared, which those of a false direction cannot.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from gradleak.attacks.closed_form.batch.dense import Stage, backward, forward
from gradleak.attacks.closed_form.batch.factors import Factors

_ZERO = 8.0  # an entry within so many standard deviations of the noise may be a zero
_SAME = 0.9999  # cosine
_CHUNK = 128
_NEEDED = 0.9  # leverage
_SPANNED = 1e-3  # of the largest singular value, or it is noise that spans the dimension
_FEW = 3  # records, whose span can be searched at random
_SPARE = 3  # zeros beyond the r − 1 that any direction can be made to have


def directions(
    f: Factors, first: Stage, rng: Generator, *, draws: int, starts: int, known: Tensor | None = None
) -> Tensor:
    """[n, r]: distinct unit vectors q for which U q is a record's delta, n = r where all are found.

    ``known`` are some of them, from a search before.
    """
    if f.rank == 1:
        return f.U.new_ones(1, 1)
    live = ((f.U * f.S).norm(dim=1) > _ZERO * f.noise * f.rank**0.5).nonzero()[:, 0]
    kept = f.U.new_zeros(0, f.rank) if known is None else known
    if len(live) < f.rank + _SPARE:
        return kept
    rows, back = _whitened(f.U[live])
    for _ in range(0, draws, 4096):
        kept = _distinct(f, live, kept, _sampled(rows, rng, 4096) @ back.mT)
        if len(kept) >= f.rank:
            return kept
    for _ in range(0, starts, _CHUNK):
        kept = _distinct(f, live, kept, _descended(rows, _mixtures(rows, rng)) @ back.mT)
        if len(kept) >= f.rank:
            break
        # what is left is easier to find among the outputs in which a found record has no part
        kept = _distinct(f, live, kept, _beside(f, live, kept, rng))
        if 0 < f.rank - len(kept) <= _FEW:
            kept = _distinct(f, live, kept, _inside_out(f, live, kept, first, rng))
        if len(kept) >= f.rank:
            break
    return kept


def unmix(f: Factors, q: Tensor) -> tuple[Tensor, Tensor] | None:
    """Δ [r, outputs] and the inputs [r, inputs] from the directions, or None where they are not r.

    Scale: [X, 1] = Q⁻¹ S V has a last column of ones, which is the paper's Σ_k s_k (U q_k) = dL/db.
    """
    if len(q) < f.rank or int(torch.linalg.matrix_rank(q[: f.rank], rtol=1e-6)) < f.rank:
        return None
    Q = q[: f.rank].mT
    rows = torch.linalg.solve(Q, f.S[:, None] * f.V)
    scale = rows[:, -1:]
    if bool((scale.abs() < 1e-12 * rows.norm(dim=1, keepdim=True)).any()):
        return None
    return (f.U @ Q * scale[:, 0]).mT, rows[:, :-1] / scale


def agreement(first: Stage, deltas: Tensor, x: Tensor) -> Tensor:
    """[r]: the share of outputs at which a record's delta is 0 exactly where its own ReLU is off.

    The paper's sparsity matching (Section 4.3), for each record: one that was mixed up with another fails.
    """
    on = x @ first.W.T + first.b > 0
    size = deltas.abs()
    return ((size > 1e-5 * size.amax(1, keepdim=True)) == on).double().mean(1)


def labels_from_deltas(net: Sequence[Stage], x: Tensor, deltas: Tensor) -> Tensor:
    """[r]: for each record the label whose delta at the first layer is the one that was found."""
    inputs = forward(net, x)
    misfits = []
    for c in range(inputs[-1].shape[1]):
        y = torch.full((len(x),), c, device=x.device)
        misfits.append((backward(net, inputs, y)[0] - deltas).norm(dim=1))
    return torch.stack(misfits).argmin(0)


def _whitened(U: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1 in coordinates in which their columns are orthonormal, and the way back for q."""
    rows = U / U.norm(dim=1, keepdim=True)
    _, s, v = torch.linalg.svd(rows, full_matrices=False)
    back = v.mT / s
    return rows @ back, back


def _sampled(rows: Tensor, rng: Generator, draws: int) -> Tensor:
    """Kernels of r − 1 random rows (Section 4.1)."""
    pick = torch.rand(draws, len(rows), generator=rng).topk(rows.shape[1] - 1, 1).indices.to(rows.device)
    kernels: Tensor = torch.linalg.qr(rows[pick].mT, mode="complete")[0][..., -1]
    return kernels


def _mixtures(rows: Tensor, rng: Generator) -> Tensor:
    """Rows, and sums of two: the constraints c·q = 1 of ER-SpUD (Spielman, Wang, Wright 2012).

    An output that few records reach leans to them, where a random direction leans to none.
    """
    i, j = torch.randint(len(rows), (2, _CHUNK), generator=rng).to(rows.device)
    pairs = torch.arange(_CHUNK, device=rows.device) % 3 == 2
    return rows[i] + torch.where(pairs[:, None], rows[j], 0.0)


def _inside_out(f: Factors, live: Tensor, kept: Tensor, first: Stage, rng: Generator) -> Tensor:
    """Directions for the few records that are missing, from pictures that they could be.

    Rows of Q⁻¹ are orthogonal to the other records' directions, so that the missing pictures lie in the
    span of as many as are missing: one is known at once. A picture's own forward says which outputs are off.
    """
    missing = torch.linalg.svd(kept)[2][len(kept) :]
    spanned = torch.linalg.qr((missing * f.S @ f.V).mT)[0].mT
    c = _unit(torch.randn(_CHUNK, len(missing), generator=rng, dtype=f.U.dtype).to(f.U))
    pictures = c @ spanned
    z = pictures[:, :-1] / pictures[:, -1:] @ first.W[live].mT + first.b[live]
    U = f.U[live]
    starts = [torch.linalg.svd(U[row < 0])[2][-1] for row in z if int((row < 0).sum()) >= f.rank]
    return _descended(U, torch.stack(starts), begin=22) if starts else kept[:0]


def _descended(rows: Tensor, c: Tensor, begin: int = 0) -> Tensor:
    """Sparse rows·q on c·q = 1: Σ_j |z_j| first, then Σ_j log(z_j² + ε²) with ε falling.

    Iteratively reweighted least squares with weights (z² + ε²)^(p/2 − 1), p = 1 and then 0 (Chartrand and
    Yin 2008). All starts c [n, r] take their steps together.
    """
    q = c
    ridge = 1e-14 * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    for k in range(begin, 55):
        z = q @ rows.mT
        size = z.abs().amax(1, keepdim=True)
        if k < 20:
            weight = (z.square() + (size * max(0.5 * 0.8**k, 1e-3)).square()).rsqrt()
        else:
            weight = 1 / (z.square() + (size * max(0.1 * 0.7 ** (k - 20), 1e-8)).square())
        A = (rows.mT * weight[:, None]) @ rows
        A = A / A.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + ridge
        q = _unit(torch.linalg.solve_ex(A, c[..., None])[0][..., 0])
    return q


def _beside(f: Factors, live: Tensor, kept: Tensor, rng: Generator) -> Tensor:
    """Directions for other records, each sought where a found record k is off.

    There U has rank r − 1, and q is found up to a multiple of q_k; that multiple makes the most zeros
    elsewhere: −(U_j q) / (U_j q_k) is the same number for every output j where the other record is off.
    """
    found = [kept[:0]]
    for k in [int(i) for i in torch.randperm(len(kept), generator=rng)[:4]]:
        off = _zeros(f, kept[k : k + 1], live)[0]
        there, here = f.U[live[off]], f.U[live[~off]]
        v = torch.linalg.svd(there, full_matrices=False)[2]
        if len(there) < f.rank + _SPARE or len(v) < f.rank:
            continue
        v = v[: f.rank - 1]
        rows, back = _whitened(there @ v.mT)
        q = _unit(_descended(rows, _mixtures(rows, rng)) @ back.mT @ v)
        ratio = (-(q @ here.mT) / (kept[k] @ here.mT)).sort(1).values
        if ratio.shape[1] < 2:
            continue  # one ratio is its own window and says nothing
        # the narrowest window that holds a few ratios has the common one in it
        width = min(4, ratio.shape[1] - 1)
        at = (ratio[:, width:] - ratio[:, :-width]).argmin(1)
        found.append(_unit(q + ratio.gather(1, at[:, None] + width // 2) * kept[k]))
    return torch.cat(found)


def _distinct(f: Factors, live: Tensor, kept: Tensor, fresh: Tensor) -> Tensor:
    """The kept directions and the fresh ones that are records', refined on their zeros, one of each."""
    fresh = _unit(fresh)
    zeros = _zeros(f, fresh, live)
    count = zeros.sum(1)
    for i in [int(i) for i in count.argsort(descending=True) if int(count[i]) >= f.rank - 1 + _SPARE]:
        if len(kept) and float((kept @ fresh[i]).abs().max()) > _SAME:
            continue
        fine = _refined(f.U[live[zeros[i]]])
        if fine is not None and not (len(kept) and float((kept @ fine).abs().max()) > _SAME):
            kept = torch.cat((kept, fine[None]))
        if len(kept) >= f.rank:
            break
    return kept


def _refined(rows: Tensor) -> Tensor | None:
    """The direction that these outputs determine, or None if one of them alone makes the difference.

    Where a record is off, the others span r − 1 dimensions many times over. Other vertices, such as a
    mixture of two records that vanishes where both are off and at one more output, hang on that one: its
    leverage is 1.
    """
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    r = rows.shape[1]
    if len(s) < r or not bool(s[r - 2] > 10 * s[r - 1]) or not bool(s[r - 2] > _SPANNED * s[0]):
        return None  # fewer than r − 1 dimensions: a mixture of records, which are off together
    leverage = u[:, : r - 1].square().sum(1)
    return None if float(leverage.max()) > _NEEDED else v[-1]


def _zeros(f: Factors, q: Tensor, live: Tensor) -> Tensor:
    """[n, live outputs]: where U q is no more than noise."""
    level = (_ZERO * f.blur(q)).clamp_min(1e-12)[:, None]
    return (q @ f.U[live].mT).abs() < level


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    return unit
