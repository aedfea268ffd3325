"""The inversion influence function: how far a change of the update moves a perfect attacker's picture.

I2F (Zhang, Hong, Deng, Mahdavi, Zhou, NeurIPS 2023): x̂ − x ≈ (JᵀJ)⁻¹ Jᵀ δ, with J = d update / d x at the
true picture, and δ the change. The paper writes J with its rows for pixels; here rows are the update.

We deviate: the paper and its code damp by default (1, the code's, is 60 times too small on LeNet), solve
for one δ by gradient descent, and draw noise. Here damping is 0 unless asked for, one decomposition serves
all δ, and for Gaussian noise of std s the expectation is known: E‖x̂ − x‖² = s² Σ 1/λ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from gradleak.errors import InvalidInput
from gradleak.observe import Client, Observation
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.randomness import Rng, generator
from gradleak.risk.change import Change, Perturbation, change, white
from gradleak.risk.gram import (
    Function,
    Krylov,
    Spectrum,
    floor_of,
    jacobian,
    krylov,
    per_sample,
    slope,
    spectrum,
)
from gradleak.risk.prediction import Prediction

_MOST_EXACT = 4096  # columns: the decomposition takes about 20 s on one core
_TOLERANCE = 0.003  # of the matrix-free way: one standard error, and what Lanczos has not found yet
_PROBES, _MOST_PROBES = 8, 128
_NOTICED = 0.01  # directions: what a random probe sees of one or more
_THROWS, _FEW_THROWS = 32, 4  # of a defense's dice; the second where each takes a Krylov space


@dataclass(frozen=True, eq=False)
class _Answer:
    """What either way finds out: ``mse`` for noise of std 1, or of the perturbation."""

    mse: Tensor  # [B]
    slope: float  # ‖Jᵀδ‖², or its expectation
    values: Tensor  # the spectrum, as nodes
    counts: Tensor  # and how many eigenvalues each of them stands for
    way: str
    error: float
    of: str


def influence(
    model: nn.Module | Observation,
    x: Tensor,
    y: Tensor,
    *,
    noise: float | Sequence[float] | Tensor | None = None,
    perturbation: Perturbation | None = None,
    client: Client | None = None,
    damping: float = 0.0,
    exact: bool | None = None,
    rng: Rng = 0,
) -> Prediction:
    """The error that a perfect, unbiased attacker without a prior makes, linearised at the batch.

    Either ``noise``, the std of Gaussian noise on every entry of the update (several for several levels), or
    a ``perturbation``: what is added to the update by parameter name, a function from the update to the one
    that is sent, or a defense, such as ``gl.defenses.Mask(rate=0.5)``. Of a defense that throws dice, errors
    are averaged over some throws of ``rng``, or in closed form where it only adds noise; the attacker takes
    its work for an error, and does not know of it. To one who does, it is the ``client``.

    ``damping`` is I2F's ε. ``exact`` decomposes JᵀJ; the matrix-free way estimates by Lanczos, with probes
    from ``rng``; None takes the first where the batch is small enough for it and for the free memory.
    """
    if client is None and isinstance(perturbation, Defended) and not isinstance(model, Observation):
        client = undefended(perturbation)  # type: ignore[arg-type]
    found = jacobian(model, x, y, client=client)
    if exact is None:
        exact = _affordable(found)
    return influence_of(
        spectrum(found) if exact else found, noise=noise, perturbation=perturbation, damping=damping, rng=rng
    )


def influence_of(
    known: Spectrum | Jacobian,
    *,
    noise: float | Sequence[float] | Tensor | None = None,
    perturbation: Perturbation | None = None,
    damping: float = 0.0,
    rng: Rng = 0,
) -> Prediction:
    """The same for a Spectrum that is at hand, or matrix-free for a Jacobian."""
    if (noise is None) == (perturbation is None):
        came = "neither" if noise is None else "both"
        raise InvalidInput(f"expected noise or a perturbation, one of them; came {came}")
    damping = _number("damping", damping)
    deviation = white(perturbation)
    if deviation is not None:
        noise, perturbation = deviation, None
    levels = None if noise is None else _levels(noise)
    found, draws = known.jacobian if isinstance(known, Spectrum) else known, generator(rng)
    throws = _THROWS if isinstance(known, Spectrum) else _FEW_THROWS
    moved = None if perturbation is None else change(found, perturbation, throws, draws)
    if isinstance(known, Spectrum):
        answer = _exactly(known, moved, damping)
    else:
        answer = _matrix_free(found, moved, damping, draws)
    return _prediction(found, answer, levels, damping, several=noise is not None and not _is_one(noise))


def _exactly(known: Spectrum, moved: Change | None, damping: float) -> _Answer:
    found, error, of = known.jacobian, 0.0, "the mean over all noise of that std"
    if moved is None:
        mse, size = known.diagonal(_variance(known.floor, damping)), float(known.values.sum())
    else:
        b = torch.stack([slope(found, delta) for delta in moved.rows])
        each = known.apply(_inverse(known.floor, damping), b).square()
        mse, error = _averaged([per_sample(found, one) for one in each])
        size, of = float(b.square().sum(1).mean()), moved.of
    if not damping:
        mse = _hidden(mse, known.diagonal(lambda v: (v <= known.floor).to(v)))
    return _Answer(mse, size, known.values, torch.ones_like(known.values), "exact", error, of)


def _averaged(each: Sequence[Tensor]) -> tuple[Tensor, float]:
    """The mean of squared errors [B], and how far its root may be off, relatively: one standard error."""
    sample = torch.stack(list(each))
    mean = sample.mean(0)
    if len(sample) == 1:
        return mean, 0.0
    deviation = sample.std(0) / math.sqrt(len(sample))
    return mean, float((deviation / mean.abs().clamp_min(1e-300)).max()) / 2


def _matrix_free(found: Jacobian, moved: Change | None, damping: float, draws: Generator) -> _Answer:
    """By Lanczos: from Jᵀδ, or for noise from random signs, whose mean is the trace (Hutchinson).

    A batch needs no probes of its own for each sample: the diagonal is estimated, and summed by sample.
    Which sample the null space belongs to is not seen: all of the batch is called infinite.
    """
    columns = found.x.numel()
    largest = _largest(found, draws)
    floor = floor_of(largest, columns)
    if moved is not None:
        b = torch.stack([slope(found, delta) for delta in moved.rows])
        probe = _signs(1, columns, draws).to(b)  # sees the null space, in which b has no share
        both = krylov(found, torch.cat((b, probe)), _inverse(floor, damping), tolerance=_TOLERANCE)
        mse, spread = _averaged([per_sample(found, one.square()) for one in both.applied[:-1]])
        values, counts = both.nodes[-1], both.weights[-1] * columns
        if not damping and float(counts[values <= floor].sum()) > _NOTICED:
            mse = torch.full_like(mse, math.inf)
        size = float(b.square().sum(1).mean())
        return _Answer(mse, size, values, counts, "matrix-free", spread + both.error, moved.of)
    return _probed(found, floor, damping, draws)


def _probed(found: Jacobian, floor: float, damping: float, draws: Generator) -> _Answer:
    columns, f = found.x.numel(), _variance(floor, damping)
    each: list[Tensor] = []
    seen: list[Krylov] = []
    spread = math.inf
    while len(each) < _MOST_PROBES and spread > _TOLERANCE:
        probes = _signs(_PROBES, columns, draws).to(found.x)
        seen.append(krylov(found, probes, f, tolerance=_TOLERANCE))
        each += [per_sample(found, z * w) for z, w in zip(probes, seen[-1].applied, strict=True)]
        mse, spread = _averaged(each)
    values = torch.cat([one.nodes.flatten() for one in seen])
    counts = torch.cat([one.weights.flatten() for one in seen]) * (columns / len(each))
    mse = mse.clamp_min(0)
    if not damping and float(counts[values <= floor].sum()) > _NOTICED:
        mse = torch.full_like(mse, math.inf)
    error = spread + max(one.error for one in seen)
    of = f"the mean over all noise of that std, by {len(each)} random probes"
    return _Answer(mse, float((values * counts).sum()), values, counts, "matrix-free", error, of)


def _prediction(
    found: Jacobian, answer: _Answer, levels: Tensor | None, damping: float, *, several: bool
) -> Prediction:
    columns, largest = found.x.numel(), float(answer.values.max())
    floor = floor_of(largest, columns)
    null = per_sample(found, (found.obs.domain.to_pixels(found.x) - 0.5).square().flatten())
    above = answer.counts * (answer.values > floor)
    rank = above.sum()
    lower = torch.as_tensor(math.sqrt(answer.slope / columns) / largest, dtype=torch.float64)
    rmse, dimensions = answer.mse.sqrt(), rank
    if levels is not None:
        levels = levels.to(rmse)
        # a level of 0 leaves no error in what is determined, and says nothing of the rest
        rmse = torch.where(rmse.isinf(), rmse, levels[:, None] * rmse)
        lower = levels * lower.to(levels)
        told = answer.values > levels.square()[:, None] / null.mean().clamp_min(1e-12)
        dimensions = (above * told).sum(1)
        if not several:
            rmse, lower, dimensions = rmse[0], lower[0], dimensions[0]
    return Prediction(
        rmse=rmse,
        lower=lower,
        null_psnr=-10 * torch.log10(null),
        noise=() if levels is None else tuple(levels.tolist()),
        unknowns=columns,
        dimensions=dimensions.round().long(),
        protected=columns - int(rank.round()),
        tolerance=floor / largest,
        damping=damping,
        way=answer.way,
        error=answer.error,
        of=answer.of,
    )


def _variance(floor: float, damping: float) -> Function:
    """Of the damped attacker's pixels under noise of std 1: λ / (λ + ε)², and 0 in the null space."""
    return lambda v: torch.where(v > floor, v, 0.0) / (v.clamp_min(floor) + damping).square()


def _inverse(floor: float, damping: float) -> Function:
    return lambda v: (v > floor) / (v.clamp_min(floor) + damping)


def _hidden(mse: Tensor, share: Tensor) -> Tensor:
    """Infinite for a sample with a share in the null space, up to the eigenvectors' rounding."""
    return torch.where(share > 1e-6, math.inf, mse)


def _largest(found: Jacobian, draws: Generator) -> float:
    start = _signs(1, found.x.numel(), draws).to(found.x)
    return float(krylov(found, start, lambda v: v, tolerance=1e-3).nodes.max())


def _signs(n: int, columns: int, draws: Generator) -> Tensor:
    return 2.0 * torch.randint(2, (n, columns), generator=draws, dtype=torch.float64) - 1


def _is_one(noise: object) -> bool:
    return isinstance(noise, (int, float)) or (isinstance(noise, Tensor) and noise.dim() == 0)


def _levels(noise: float | Sequence[float] | Tensor) -> Tensor:
    try:
        levels = torch.as_tensor(noise, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"expected noise as a std, or several; came {noise!r}") from error
    if levels.dim() > 1 or not levels.numel() or not bool((levels.isfinite() & (levels >= 0)).all()):
        raise InvalidInput(f"expected noise as a finite std of 0 or more, or several; came {noise!r}")
    return levels.reshape(-1)


def _number(what: str, value: object) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not 0 <= float(value) < math.inf:  # type: ignore[arg-type]
        raise InvalidInput(f"expected {what} as a finite number of 0 or more; came {value!r}")
    return float(value)  # type: ignore[arg-type]


def _affordable(found: Jacobian) -> bool:
    columns = found.x.numel()
    return columns <= _MOST_EXACT and 5 * 8 * columns**2 + 2**30 <= _free_memory(found.x.device)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:  # what the system calls free leaves out its caches
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # only Linux tells
        return 2**33
