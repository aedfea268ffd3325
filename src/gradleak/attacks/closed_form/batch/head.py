"""The last layer of a batch: features, deltas and labels from its gradient, where B ≤ classes − 1."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Generator, Tensor

from gradleak.attacks.closed_form.batch.counts import estimate, labels_of, multisets, present
from gradleak.attacks.closed_form.batch.descent import Head, descend, watched
from gradleak.attacks.closed_form.batch.rows import (
    Rows,
    assemble,
    by_programs,
    by_subsets,
    distinct,
    recognised,
    roots,
    without,
)

_PLAUSIBLE = 1e4  # a misfit above so many times the noise is a local minimum, not a solution
_GAP = 3e-3  # sine of the angle between a record's delta and the span that it should be in
_CHUNK = 4  # multisets that are tried together


@dataclass(frozen=True, eq=False)
class Solution:
    """One explanation of the head's gradient. ``misfit`` is in units of the noise: about 1 for the truth."""

    H: Tensor  # [B, features]
    D: Tensor  # [B, classes], deltas with the 1 / B of the mean
    y: Tensor  # [B]
    blur: Tensor  # [B], noise of each entry of H
    misfit: float
    strategy: str


@dataclass(frozen=True)
class Search:
    """How much is tried: rounds of a few multisets of labels with a few starts each, and draws of columns and
    linear programs for the rows of single records."""

    starts: int = 3
    rounds: int = 8
    draws: int = 6000
    programs: int = 24


def solutions(head: Head, search: Search, rng: Generator, y: Tensor | None = None) -> Iterator[Solution]:
    """Explanations that are plausible, the cheap strategies' first; the caller's certificate decides.

    ``y`` are the labels as a multiset, where they are known.
    """
    # Records of their own need C − 1 − r equations against r − 1 unknowns; more records need each other.
    if 2 * head.f.rank <= len(head.b):
        yield from _by_roots(head, rng, y)
    else:
        yield from _together(head, search, rng, y, rounds=1)
    yield from _by_zeros(head, search, rng, y)
    yield from _together(head, search, rng, y, rounds=search.rounds)


def _by_roots(head: Head, rng: Generator, y: Tensor | None) -> Iterator[Solution]:
    """Every record on its own, from the span that its delta is in."""
    rows = _allowed(distinct(roots(head, rng), _GAP), y)
    for chosen in assemble(head, rows):
        yield from _settled(head, rows.q[chosen], rows.y[chosen], y, "roots")


def _by_zeros(head: Head, search: Search, rng: Generator, y: Tensor | None) -> Iterator[Solution]:
    """Records with enough features that are off; without them the others may be few enough for roots."""
    if not head.positive:
        return
    found = by_subsets(head, rng, draws=search.draws)
    rows = _allowed(distinct(recognised(head, found), _GAP), y)
    if len(rows.q) < head.f.rank:
        found = torch.cat((found, by_programs(head, rng, programs=search.programs)))
        rows = _allowed(distinct(recognised(head, found), _GAP), y)
    for chosen in assemble(head, rows):
        yield from _settled(head, rows.q[chosen], rows.y[chosen], y, "sparse features")
    while 0 < len(rows.q) < head.f.rank:
        rest = without(head, rows)
        if rest is not None and 2 * rest.f.rank <= len(head.b):
            others = distinct(roots(rest, rng), 10 * _GAP)
            full = _across(rest, head, others)
            for chosen in assemble(rest, others):
                q, labels = torch.cat((rows.q, full[chosen])), torch.cat((rows.y, others.y[chosen]))
                yield from _settled(head, q, labels, y, "sparse features, then roots")
            return
        rows = Rows(rows.q[:-1], rows.y[:-1], rows.gap[:-1])  # the least sure may not be a record


def _across(rest: Head, head: Head, rows: Rows) -> Tensor:
    """The same records' rows in the coordinates of the whole batch."""
    return torch.cat((rows.q @ rest.f.features, torch.ones_like(rows.q[:, :1])), 1) @ head.f.V.mT


def _allowed(rows: Rows, y: Tensor | None) -> Rows:
    if y is None or len(rows.y) == 0:
        return rows
    keep = torch.isin(rows.y, y)
    return Rows(rows.q[keep], rows.y[keep], rows.gap[keep])


def _together(
    head: Head, search: Search, rng: Generator, y: Tensor | None, *, rounds: int
) -> Iterator[Solution]:
    """All rows at once, for the likeliest multisets of labels; further rounds add others to the first."""
    if y is not None:
        ranked = [torch.bincount(y, minlength=len(head.b)).tolist()]
    else:
        least = present(head).long()
        ranked = list(islice(multisets(estimate(head), least, head.batch), _CHUNK * rounds))
    if not ranked:
        return  # more classes are proven than there are records
    columns = watched(head.f)
    for i in range(rounds):
        # starts are random, so that the likeliest are worth a second look
        counts = (ranked[_CHUNK * i : _CHUNK * (i + 1)] or ranked[:1]) + (ranked[:2] if i else [])
        labels = torch.stack([labels_of(c) for c in counts]).to(head.b.device)
        labels = labels.repeat_interleave(search.starts, 0)
        ends = [
            descend(head, start(head, labels, rng), labels, columns, scaled=scaled)
            for start, scaled in (
                (_from_probabilities, False),
                (_from_probabilities, True),
                (_from_rows, True),
            )
        ]
        misfit = torch.cat([e.misfit for e in ends]).nan_to_num(nan=torch.inf)
        Q, all_labels = torch.cat([e.Q for e in ends]), torch.cat([e.y for e in ends])
        for k in misfit.argsort()[:2].tolist():
            yield from _settled(head, Q[k], all_labels[k], y, "all records together")


def _settled(head: Head, Q: Tensor, labels: Tensor, y: Tensor | None, strategy: str) -> Iterator[Solution]:
    """The minimum without r3, which pushes entries that are 0 away from the noise below it."""
    if y is not None and not torch.equal(labels.sort().values, y.sort().values):
        return
    free = replace(head, positive=False)
    end = descend(free, Q[None], labels[None], head.f.features[:, :0], scaled=False, steps=15)
    if float(end.misfit[0]) < _PLAUSIBLE:
        Q = end.Q[0]
        D = head.deltas(Q, labels)
        yield Solution(Q @ head.f.features, D, labels, head.f.blur(Q), float(end.misfit[0]), strategy)


def _from_probabilities(head: Head, y: Tensor, rng: Generator) -> Tensor:
    """Q = (S Uᵀ D⁺)ᵀ with D from probabilities that are those of an untrained network."""
    f = head.f
    spread = 0.3 * torch.randn(*y.shape, len(head.b), generator=rng, dtype=f.S.dtype).to(f.S)
    p = (head.b + spread).softmax(-1)
    D = (p - torch.nn.functional.one_hot(y, len(head.b)).to(p)) / head.batch
    Q: Tensor = ((f.U * f.S).mT @ torch.linalg.pinv(D)).mT
    return Q


def _from_rows(head: Head, y: Tensor, rng: Generator) -> Tensor:
    """Each record starts near its class's own row of the gradient, at a length drawn around the likely one.

    H0_k = s_k ((1 − m_k) n(relu(−G_W[y_k])) + m_k n(another row)), log s ~ N(log ‖h‖, 0.5), m ~ U(0, 0.5).
    """
    f = head.f
    own = -(f.U * f.S) @ f.features
    own = own.clamp_min(0) if head.positive else own
    unit = own / own.norm(dim=1, keepdim=True).clamp_min(1e-300)
    other = torch.randint(len(head.b), y.shape, generator=rng).to(y.device)
    mix = 0.5 * torch.rand(*y.shape, 1, generator=rng, dtype=f.S.dtype).to(f.S)
    size = torch.exp(0.5 * torch.randn(*y.shape, 1, generator=rng, dtype=f.S.dtype)).to(f.S) / f.bias.norm()
    H = size * ((1 - mix) * unit[y] + mix * unit[other])
    return torch.cat((H, torch.ones_like(H[..., :1])), -1) @ f.V.mT
