"""Three ways to solve a linear or convolutional layer's equations, tried from the cheapest on.

1. The gradient equations alone, by a Cholesky factorisation that all input channels share.
2. Where these leave few directions open or weak (a stride leaves some pixels to few taps), the forward
   equations complete them.
3. All equations by conjugate gradients, without a matrix.

Zhu and Blaschko 2021 (R-GAP) solve the same equations as one dense least-squares problem, which takes
hundreds of times as long; that the gradient equations decouple over the input channels is ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gradleak.layers.chain import Layer
from gradleak.layers.equations import Stacked, bias_residual, stacked
from gradleak.layers.signal import Inverse, Signal
from gradleak.layers.solve import cgls, smallest, well_conditioned

_PIXELS = 600  # beyond these, factorising costs more than iterating
_SOUND = 1e-4  # eigenvalues of A'A, relative, that the gradient equations are trusted with
_OPEN = 700  # unknowns that are left to the forward equations
_GOOD = 1e-4  # a residual at which no other way is tried
_NULL = 1e-12  # eigenvalues of A'A, relative, that count as zero
_EXACT = 3e-6  # float32 gradients leave less than this, a gradient from a kink's wrong side more
_FLIPS, _DOUBTS = 4, 8  # how many wrong sides are looked for, among how many entries at a time
_PROBE = 1e-6  # how far the probe is iterated
_MISSING = 1e-4  # what of the probe, squared, may stay unfound where nothing is missing
_COUNTED = 4_000_000  # numbers in a matrix whose rank is counted


@dataclass(frozen=True, eq=False)
class _Solution:
    x: Tensor  # planes
    residual: float
    deficit: int


def peel(layer: Layer, out: Signal, tolerance: float) -> Inverse:
    """The input of a linear or convolutional layer, from all its equations.

    The deficit is exact where the first two ways serve. After the third it is 0 where a random input is
    found again from its own equations, and counted or, for large layers, estimated where it is not.
    """
    best = _solved(layer, out, tolerance)
    for _ in range(_FLIPS):
        if out.either is None or best.residual <= _EXACT:
            break
        better = min(_flipped(layer, out, tolerance), key=lambda tried: tried[1].residual, default=None)
        if better is None or better[1].residual >= best.residual:
            break
        out, best = better
    return best


def _flipped(layer: Layer, out: Signal, tolerance: float) -> Iterator[tuple[Signal, Inverse]]:
    """The same, with the gradient of the other side at one of the entries that lie next to a kink."""
    if out.either is None:
        return
    doubtful = (out.either != out.grad).flatten()
    for entry in doubtful.nonzero()[:_DOUBTS, 0]:
        grad, either = out.grad.flatten().clone(), out.either.flatten().clone()
        grad[entry], either[entry] = out.either.flatten()[entry], out.grad.flatten()[entry]
        other = replace(out, grad=grad.view_as(out.grad), either=either.view_as(out.grad))
        yield other, _solved(layer, other, tolerance)


def _solved(layer: Layer, out: Signal, tolerance: float) -> Inverse:
    found = stacked(layer, out)
    best = min(_tried(found, tolerance), key=lambda solution: solution.residual)
    grad = found.view.transpose(found.delta[None])[0]
    value, grad = (found.view.from_planes(planes, layer.in_shape) for planes in (best.x, grad))
    return Inverse(Signal(value, grad), max(best.residual, bias_residual(layer, found)), best.deficit)


def _tried(found: Stacked, tolerance: float) -> Iterator[_Solution]:
    """The ways that apply, up to the first whose residual is good."""
    for way in (_decoupled, _completed):
        result = way(found)
        if result is not None:
            x, deficit = result
            solution = _Solution(x, found.residual(x), deficit)
            yield solution
            if solution.residual <= _GOOD:
                return
    x, deficit = _iterated(found, tolerance)
    yield _Solution(x, found.residual(x), deficit)


def _decoupled(found: Stacked) -> tuple[Tensor, int] | None:
    if found.matrix is None or found.per_channel is None:
        return None
    if found.rows < found.pixels or found.pixels > _PIXELS:
        return None
    solved = []
    for A, G in zip(found.matrix, found.per_channel, strict=True):
        factor = well_conditioned(A.T @ A, _SOUND)
        if factor is None:
            return None
        x = torch.cholesky_solve(A.T @ G, factor)
        x = x + torch.cholesky_solve(A.T @ (G - A @ x), factor)
        solved.append(x.T)
    return torch.cat(solved).reshape(found.view.planes), 0


def _completed(found: Stacked) -> tuple[Tensor, int] | None:
    fewest = found.pixels - (found.rows if found.gradient is not None else 0)
    if found.pixels > _PIXELS or fewest * found.channels > _OPEN:
        return None
    splits = [_split(found, group) for group in range(found.groups)]
    if any(split.open.shape[1] * found.channels > _OPEN for split in splits):
        return None
    x = torch.cat([split.settled.T for split in splits]).reshape(1, *found.view.planes)
    short = found.trusted(found.goal - found.view.apply(x)[0]).reshape(found.groups, -1)
    heavy, light = found.weights
    parts, deficit = [], 0
    for group, split in enumerate(splits):
        matrix = heavy * found.seen(split.open, group)
        gram = matrix.T @ matrix
        gram.diagonal().add_((light**2 * split.values).repeat(found.channels))
        right = matrix.T @ (heavy * short[group]) + light**2 * split.right.T.flatten()
        y, left = smallest(gram, right.unsqueeze(1), _NULL, 1.0)
        parts.append(y.reshape(found.channels, -1) @ split.open.T)
        deficit += left
    return x[0] + torch.cat(parts).reshape(found.view.planes), deficit


@dataclass(frozen=True, eq=False)
class _Split:
    """One group's pixels: what its gradient equations settle, and the directions that they leave open."""

    settled: Tensor  # [pixels, channels]
    open: Tensor  # [pixels, directions], orthonormal
    values: Tensor  # the eigenvalues of these directions: what the gradient still says about them
    right: Tensor  # [directions, channels]


def _split(found: Stacked, group: int, least: float = _SOUND) -> _Split:
    if found.matrix is None or found.per_channel is None:
        n = found.pixels
        nothing = found.goal.new_zeros(n, found.channels)
        return _Split(nothing, torch.eye(n).to(nothing), nothing.new_zeros(n), nothing)
    A, G = found.matrix[group], found.per_channel[group]
    values, vectors = torch.linalg.eigh(A.T @ A)
    sound = values > least * values[-1]
    strong = vectors[:, sound]
    x = G.new_zeros(found.pixels, found.channels)
    for _ in range(2):  # the second refines the first
        x = x + strong @ ((strong.T @ (A.T @ (G - A @ x))) / values[sound].unsqueeze(1))
    weak = vectors[:, ~sound]
    return _Split(x, weak, values[~sound].clamp_min(0), weak.T @ (A.T @ G))


def _iterated(found: Stacked, tolerance: float) -> tuple[Tensor, int]:
    """The solution, and beside it a random input that is looked for in its own equations."""
    system = found.system
    probe = torch.randn(found.view.planes, generator=Generator().manual_seed(0), dtype=torch.float64)
    probe = probe.to(system.target)
    targets = torch.cat((system.target[None], system.matvec(probe[None])))
    tolerances = targets.new_tensor([tolerance, max(tolerance, _PROBE)])
    x, again = cgls(system, targets, tolerances).x
    # the missing part is the probe's shadow on what is not determined: its square is about the dimensions
    missing = float((probe - again).square().sum())
    if missing < _MISSING:
        return x, 0
    counted = _count(found)
    return x, max(1, round(missing)) if counted is None else counted


def _count(found: Stacked) -> int | None:
    """The dimensions that no equation determines, where the matrices that tell are not too large."""
    if found.pixels > 2 * _PIXELS or (found.gradient is not None and found.matrix is None):
        return None
    deficit = 0
    for group in range(found.groups):
        free = _split(found, group, _NULL).open
        unknowns, rows = free.shape[1] * found.channels, found.goal.numel() // found.groups
        if unknowns * rows > _COUNTED:
            return None
        matrix = found.weights[0] * found.seen(free, group)
        gram = matrix.T @ matrix if unknowns <= rows else matrix @ matrix.T
        values = torch.linalg.eigvalsh(gram) if gram.numel() else gram.new_zeros(1)
        deficit += unknowns - int((values > _NULL * max(float(values[-1]), 1.0)).sum())
    return deficit
