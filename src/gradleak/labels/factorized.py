"""Exact labels of a batch whose records can be told apart in the gradient of a linear layer."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from gradleak.labels.allocate import records
from gradleak.labels.beyond import Dense, behind, dense_layers
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.sparse import Corners, Span, rows_of_records, span
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator

_FITS = 1e-3  # the sine between a record's delta and the span of all deltas
_APART = 10.0  # and how much worse every other label must fit
_ROOM = 4  # outputs beyond the rank, without which anything fits
_SAME = 0.999  # cosine of deltas
_LEAST = 0.3
_WHOLE = 0.02  # how far a sum may be from the whole number that it must be
_NOISE = 30.0  # standard deviations that float32 forwards and the found rows' own blur add to a residual


@dataclass(frozen=True, eq=False)
class Part:
    """What is known exactly of some of the batch's records."""

    y: Tensor  # [n] labels
    share: Tensor  # [classes, features + 1]: their Σ_k δ_k [h_k, 1] at the head
    whole: bool  # they are the batch, and account for its gradient up to rounding

    @property
    def n(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Factorized:
    """The head first, whose records add up to whole numbers; then layers before it, one record at a time.

    With every record's probabilities, λ = Σ_k p_k − K db must be whole numbers: a certificate. In a layer
    before the head a record proves itself by its label, the only one whose delta lies in the span of all.
    """

    ways: int = 120
    citations: tuple[str, ...] = ("spear",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        if found.bias is None or not found.plain:
            what = (
                "no bias" if found.bias is None else "several local steps, of which no record is one factor"
            )
            return Unanswerable(f"expected a head with a bias and the gradient of one batch; came {what}")
        part = factored(obs, found, rng, ways=self.ways)
        if part is None or part.n < found.batch:
            n = 0 if part is None else part.n
            return Unanswerable(
                f"the gradient falls apart into {n} of {found.batch} records: expected more zeros, as behind "
                "a ReLU, and fewer records than classes, or than outputs of another linear layer"
            )
        return LabelGuess(
            y=part.y, certain=part.whole, classes=found.classes, confidence=1.0 if part.whole else 0.96
        )


def factorized(ways: int = 120) -> Factorized:
    """Take the gradient apart into its records, and read their labels off exactly."""
    return Factorized(ways)


def factored(obs: Observation, found: Evidence, rng: Generator, *, ways: int = 120) -> Part | None:
    """The records that some linear layer's gradient shows; of several layers, those of the one with most."""
    best: Part | None = None
    for layer in dense_layers(obs):
        at_head = layer.weight == found.head.weight
        if layer.low is None or (at_head and found.batch >= found.classes):
            continue
        part = _together(obs, found, layer, rng, ways) if at_head else None
        if part is None:
            part = _one_by_one(obs, found, layer, rng, ways, strict=at_head)
        if part is not None and (best is None or part.n > best.n):
            best = part
        if best is not None and best.n == found.batch:
            break
    return best


def _together(obs: Observation, found: Evidence, layer: Dense, rng: Generator, ways: int) -> Part | None:
    """All the records whose deltas rise above the noise, or none."""
    if found.bias is None:
        return None
    taken = span(found.full, found.batch, torch.finfo(obs.like.dtype).eps)
    if taken.rank == 0:
        return None
    corners = Corners.of(taken, layer.low, layer.high)
    q = rows_of_records(corners, rng, strict=True, ways=ways, idle=ways // 3)
    if len(q) < taken.rank:
        return None
    h = taken.inputs(q)
    p = (h @ found.W.mT + found.b).softmax(-1)
    counts = p.sum(0) - found.batch * found.bias
    whole = counts.round().clamp_min(0)
    if float((counts - whole).abs().max()) > _WHOLE or int(whole.sum()) != taken.rank:
        return None
    rows = torch.cat((h, torch.ones_like(h[:, :1])), 1)
    # Δᵀ Q = U S, with all of Q known, says which record has which label.
    deltas = torch.linalg.lstsq(rows.mT, found.batch * found.full.mT).solution
    y = (p - deltas).argmax(1)
    if not torch.equal(torch.bincount(y, minlength=found.classes), whole.long()):
        y = records(whole.long(), y.device)
    left = found.full - _share(h, p, y) / found.batch
    complete = _nothing_left(taken, left, found.batch) and _accounts(found, h, p, y)
    return Part(y.sort().values, found.batch * found.full, complete)


def _one_by_one(
    obs: Observation, found: Evidence, layer: Dense, rng: Generator, ways: int, *, strict: bool
) -> Part | None:
    """One record after another: what is known is taken out, and the rest is easier to take apart."""
    eps, total = torch.finfo(obs.like.dtype).eps, found.batch
    rest = layer.gradient(obs)
    if min(rest.shape) < total + (1 if strict else _ROOM):
        return None
    labels = torch.zeros(0, dtype=torch.int64, device=rest.device)
    h, p = found.weight.new_zeros(0, found.weight.shape[1]), found.weight.new_zeros(0, found.classes)
    taken_out = rest.new_zeros(0, len(rest))
    all_of_it = span(rest, total, eps)
    patience = 2
    while patience and len(labels) < total:
        taken = span(rest, total - len(labels), eps)
        if taken.rank == 0:
            break
        corners = Corners.of(taken, layer.low, layer.high)
        q = rows_of_records(corners, rng, strict=strict, ways=max(ways // 4, 1), idle=ways)
        seen = behind(obs, layer, found.head.weight, taken.inputs(q)) if len(q) else None
        # the head's deltas sum to 0, so that one dimension less is free
        fits_anything = strict and found.classes - 1 < taken.rank - len(q) + 1 + _ROOM - 1
        if seen is None or fits_anything:
            patience -= 1
            continue
        misfit = taken.misfit_among(q, seen.deltas) if strict else taken.misfit(seen.deltas)
        fit, order = misfit.sort(1)
        good = (fit[:, 0] < _FITS) & (fit[:, 1] > _APART * fit[:, 0])
        # what was imprecise in a record that is taken out is left behind, with that record's delta
        again = _parallel(seen.deltas[torch.arange(len(q), device=q.device), order[:, 0]], taken_out)
        good = _first_ones(good & ~again, fit[:, 0], q, taken)
        if not bool(good.any()):
            patience -= 1
            continue
        y = order[good, 0]
        deltas = seen.deltas[good, y]
        taken_out = torch.cat((taken_out, deltas))
        inputs = taken.inputs(q[good])
        rest = rest - deltas.mT @ torch.cat((inputs, torch.ones_like(inputs[:, :1])), 1) / total
        labels, h, p = (
            torch.cat((labels, y)),
            torch.cat((h, seen.features[good])),
            torch.cat((p, seen.p[good])),
        )
    if not len(labels):
        return None
    share = _share(h, p, labels)
    complete = len(labels) == total and _nothing_left(all_of_it, rest, total)
    complete = complete and _accounts(found, h, p, labels)
    return Part(labels.sort().values, share, complete)


def _first_ones(good: Tensor, fit: Tensor, q: Tensor, taken: Span) -> Tensor:
    """No more than the rank, none of them a combination of better ones."""
    chosen = torch.zeros_like(good)
    basis = q.new_zeros(0, q.shape[1])
    for i in fit.argsort().tolist():
        if not bool(good[i]) or len(basis) == taken.rank:
            continue
        unit = q[i] / q[i].norm()
        left = unit - basis.mT @ (basis @ unit)
        if float(left.norm()) > 1e-4:
            chosen[i] = True
            basis = torch.cat((basis, (left / left.norm())[None]))
    return chosen


def _parallel(deltas: Tensor, others: Tensor) -> Tensor:
    cosine = (deltas @ others.mT) / (deltas.norm(dim=1)[:, None] * others.norm(dim=1)).clamp_min(1e-300)
    alike: Tensor = (cosine > _SAME).any(1)
    return alike


def _share(h: Tensor, p: Tensor, y: Tensor) -> Tensor:
    deltas = p - one_hot(y, p.shape[1]).to(p)
    return deltas.mT @ torch.cat((h, torch.ones_like(h[:, :1])), 1)


def _nothing_left(before: Span, rest: Tensor, records: int) -> bool:
    """Whether less is left of the layer's gradient than the least of its records put in.

    A record that is fitted well is small, and a wrong one in its place would hardly be missed otherwise.
    """
    return before.rank == records and float(rest.norm()) < _LEAST * float(before.S[-1])


def _accounts(found: Evidence, h: Tensor, p: Tensor, y: Tensor) -> bool:
    """Whether these records' gradient at the head is the one that was sent, as far as rounding can tell."""
    left = found.batch * found.full - _share(h, p, y)
    size = float(found.full.norm()) * found.batch
    allowed: float = max(_NOISE * found.noise * found.batch * left.numel() ** 0.5, 1e-12 * size)
    return float(left.norm()) <= allowed
