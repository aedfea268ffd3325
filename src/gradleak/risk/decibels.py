"""Risk in decibels: how well the strongest known attacker would rebuild a picture from a blurred update.

It takes the update for linear in the picture around the truth and pictures for Gaussian, and tells what the
most probable picture then is off by. With J the Jacobian of the update, W = 1/std² of its entries, pictures
x = center + K u with u ~ N(0, I), and A = Kᵀ Jᵀ W J K, the attacker finds u up to

    (I + A)⁻¹ u*            its bias: what the prior smooths away of this picture, and
    (I + A)⁻¹ Kᵀ Jᵀ W^½ e   its variance, with e ~ N(0, I): what the noise writes into it.

It is no upper bound: an attacker with a better prior than a Gaussian does better where the prior speaks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput, InvalidUpdate
from gradleak.observe import Client, Observation, observe
from gradleak.observe.checks import check_finite, check_fit, check_targets, require_function
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.kinks import kinks
from gradleak.observe.prior import prior_of
from gradleak.observe.seen import Seen
from gradleak.observe.uncertainty import weights as inverse
from gradleak.randomness import Rng, spawn
from gradleak.risk.lanczos import Lanczos

Weights = Mapping[str, Tensor | float]

AGREED = 0.3  # decibels within which two sizes of the Krylov space are one answer
_DENSE = 4096  # unknowns: a matrix of 128 MiB, and its eigenvectors in minutes
_MOST = 20_000  # 3 GiB, and two more matrices beside it
STEPS = 600
"""Of Lanczos, at most."""
_FIRST, _GROWTH = 8, 1.5
_DRAWS, _MORE_DRAWS = 4, 40  # of noise, and of pictures of the prior, where memory allows
_SAMPLED, _FEW = 0.2, 100  # decibels of standard error with so few dimensions: then more are drawn
_LEAST = 200  # steps that the draws leave room for
_NUMBERS = 2**27  # in all Krylov bases together: one GiB, and twice that while they grow
_SINGLE = 4096  # unknowns above which float32 is worth a question: it takes a fifth to a ninth of the time
_PROBED = 4  # Krylov steps, after which the largest eigenvalue is known well enough
_PER_DIMENSION = 0.05  # Krylov steps for each dimension seen, before agreement is believed


@dataclass(frozen=True, eq=False)
class Decibels:
    """PSNR by noise level and record, in pixels; ``psnr`` is the number to show for these very pictures.

    ``bayes`` is its mean error over the pictures of the prior, which says more about the model and the noise.
    ``unbiased`` is an attacker without a prior (the inversion influence function with ε = 0): −∞ where some
    direction is not seen at all, NaN where no dense matrix was made. ``null_psnr`` is that of the prior's
    center. ``dimensions`` count, by level, the directions of the whole batch that the noise leaves visible.
    All of them are means over the noise; where few dimensions are seen, one draw of it strays by decibels.

    ``way`` is "dense" or "lanczos". By level, ``error`` is how many decibels the last enlargement of the
    Krylov space still changed, and above ``AGREED`` an answer that errs towards too much leakage;
    ``sampling`` is the standard error of ``psnr`` from the few draws of noise that stand for all. Both are 0
    when dense. ``note`` says where the number has to be taken with care.
    """

    noise: tuple[float, ...]
    psnr: Tensor
    bayes: Tensor
    unbiased: Tensor
    null_psnr: Tensor
    dimensions: Tensor
    way: str
    error: Tensor
    sampling: Tensor
    note: str = ""

    @property
    def leak(self) -> Tensor:
        """What the update adds to a guess without it; 0 where it adds nothing."""
        return self.psnr - self.null_psnr

    @property
    def converged(self) -> bool:
        return bool((self.error <= AGREED).all())


def decibels(
    model_or_obs: nn.Module | Observation,
    x: Tensor,
    y: Tensor,
    *,
    noise: float | Sequence[float] | None = None,
    client: Client | None = None,
    weights: Weights | None = None,
    exact: bool | None = None,
    steps: int = STEPS,
    rng: Rng = 0,
) -> Decibels:
    """What the batch ``x`` with labels ``y`` loses through its update under noise, without an attack.

    Without ``noise``, what hides the batch is what ``client`` does to its update, known to the attacker in
    strength though not in dice, such as ``gl.defenses.GaussianNoise(std=1e-3)``; a plain client's numbers are
    rounded. For several levels of Gaussian noise at once, an update's entry deviates by ``noise`` over its
    weight; ``weights`` are 1 unless given, by name, one number or one per entry, and 0 is an entry that
    nobody sees, as those are that the client withholds. Labels are known to the attacker.

    ``exact`` chooses a dense matrix of all pixels against all, or, False, Lanczos runs from a few random
    vectors of ``rng``; None goes by size. A run has at most ``steps``; too few err towards too much leakage,
    and the note says so.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InvalidInput(f"expected steps as a whole number of 1 or more; came {steps!r}")
    seen_by = _observed(model_or_obs, x, y, client)
    levels, scales = _hidden(seen_by, noise, weights)
    obs = seen_by.to(torch.float64)
    x = x.detach().to(obs.like.device, torch.float64)
    y = y.detach().to(obs.like.device, torch.float64 if y.is_floating_point() else y.dtype)
    if exact and x.numel() > _MOST:
        raise InvalidInput(
            f"expected at most {_MOST:,} unknowns with exact=True, as a matrix of their square is made; came "
            f"{x.numel():,}. Leave exact out, or take exact=False."
        )
    seen = Seen(Jacobian(obs, x, y, scales), prior_of(obs.x_shape, obs.domain, obs.like))
    dense = x.numel() <= _DENSE if exact is None else exact
    if not dense and x.numel() > _SINGLE:
        rough = replace(seen, jacobian=Jacobian(obs.to(torch.float32), x.float(), _single(y), scales))
        seen = rough if _suffices(rough, levels) else seen
    found = from_the_gram(seen, levels) if dense else _matrix_free(seen, levels, rng, steps)
    return replace(found, note=" ".join(_notes(obs, x, found)))


def from_the_gram(seen: Seen, levels: tuple[float, ...]) -> Decibels:
    """One eigendecomposition A = V diag(l) Vᵀ serves all levels: l / noise²."""
    values, vectors = torch.linalg.eigh(seen.gram())
    rounding = float(values[-1]) * len(values) * torch.finfo(torch.float64).eps
    values = torch.where(values <= max(rounding, 0.0), 0.0, values)
    power = seen.errors(vectors.T)  # of each eigenvector, by record
    share = vectors.T @ seen.truth
    psnr, bayes, unbiased, dimensions = [], [], [], []
    for level in levels:
        left = 1 / (1 + values / level**2)
        psnr.append(seen.errors(vectors @ (left * share)) + (left * (1 - left)) @ power)
        bayes.append(left @ power)
        blind = values == 0
        free = torch.where(blind[:, None], torch.where(power > 1e-20 * power.max(), inf, 0.0), 0.0)
        seen_of = torch.where(blind, 0.0, level**2 / values.clamp_min(1e-300))
        unbiased.append(seen_of @ power + free.sum(0))
        dimensions.append((1 - left).sum())
    return _said(seen, levels, psnr, bayes, unbiased, dimensions, "dense", torch.zeros(len(levels)))


def _single(y: Tensor) -> Tensor:
    return y.float() if y.is_floating_point() else y


def _suffices(rough: Seen, levels: tuple[float, ...]) -> bool:
    """Whether products in float32 are off by less than any of these levels hides.

    They are off by their rounding, which is a share of the largest eigenvalue.
    """
    probe = Lanczos(rough.products, rough.truth[None])
    probe.grow(_PROBED)
    return min(levels) ** 2 >= torch.finfo(torch.float32).eps * float(probe.diagonal.max())


def _matrix_free(seen: Seen, levels: tuple[float, ...], rng: Rng, steps: int) -> Decibels:
    """A few draws of noise where many dimensions are seen; more where few are, which takes few steps."""
    found = from_products(seen, levels, rng, draws=_DRAWS, steps=steps)
    again = [i for i in range(len(levels)) if found.sampling[i] > _SAMPLED and found.dimensions[i] < _FEW]
    if not again or _room(seen) <= _DRAWS:
        return found
    more = from_products(seen, tuple(levels[i] for i in again), rng, draws=_MORE_DRAWS, steps=steps)
    for name in ("psnr", "bayes", "dimensions", "error", "sampling"):
        getattr(found, name)[again] = getattr(more, name)
    return found


def _room(seen: Seen) -> int:
    """For how many draws there is memory."""
    return max(1, _NUMBERS // (2 * seen.jacobian.x.numel() * _LEAST))


def from_products(
    seen: Seen, levels: tuple[float, ...], rng: Rng, *, draws: int, steps: int = STEPS
) -> Decibels:
    """Grows the Krylov spaces until two sizes of them agree at every level, or the steps are used up."""
    n, draws = seen.jacobian.x.numel(), min(draws, _room(seen))
    most = max(_FIRST, min(steps, _NUMBERS // ((1 + 2 * draws) * n)))
    runs = Runs.of(seen, draws, rng)
    last: Decibels | None = None
    for size in _sizes(most):
        runs.spaces.grow(size)
        found = runs.said(levels)
        if last is not None:
            change = torch.maximum((found.psnr - last.psnr).abs(), (found.bayes - last.bayes).abs())
            found = replace(found, error=change.amax(1).nan_to_num(0.0))
        if runs.spaces.ended:
            return replace(found, error=torch.zeros(len(levels)))
        enough = size >= _PER_DIMENSION * float(found.dimensions.max())
        if last is not None and enough and found.converged:
            break
        last = found
    return found


def _sizes(most: int) -> Iterator[int]:
    size = float(_FIRST)
    while size < most:
        yield int(size)
        size *= _GROWTH
    yield most


@dataclass(frozen=True, eq=False)
class Runs:
    """Lanczos from the picture (its bias), some of the prior (the mean bias), and draws of the noise."""

    seen: Seen
    spaces: Lanczos
    draws: int

    @classmethod
    def of(cls, seen: Seen, draws: int, rng: Rng) -> "Runs":
        pictures, noises = spawn(rng, 2)
        truth = seen.truth
        # ±1 and not normal: a coordinate's own share of the error is then exact, brightness above all
        others = _signs(draws * len(truth), pictures).reshape(draws, -1).to(truth)
        blurs = [seen.transposed(_signs(seen.jacobian.rows, noises).to(truth)) for _ in range(draws)]
        return cls(seen, Lanczos(seen.products, torch.stack((truth, *others, *blurs))), draws)

    def said(self, levels: tuple[float, ...]) -> Decibels:
        filters = [lambda values, s=level: 1 / (1 + values / s**2) for level in levels]
        psnr, bayes, dimensions, sampling = [], [], [], []
        for level, after in zip(levels, self.spaces.apply(*filters), strict=True):
            bias, others, blurs = torch.split(after, [1, self.draws, self.draws])
            variances = self.seen.errors(blurs / level)
            variance, own = variances.mean(0), self.seen.errors(bias[0])
            psnr.append(own + variance)
            bayes.append(self.seen.errors(others).mean(0) + variance)
            starts = self.spaces.starts[-self.draws :]
            dimensions.append((starts * blurs).sum(1).mean() / level**2)
            deviation = variances.std(0) / self.draws**0.5 if self.draws > 1 else variance
            sampling.append((10 * (1 + deviation / psnr[-1]).log10()).amax())
        blind = [torch.full_like(bayes[0], torch.nan) for _ in levels]
        unknown = torch.full((len(levels),), inf)
        found = _said(self.seen, levels, psnr, bayes, blind, dimensions, "lanczos", unknown)
        return replace(found, sampling=torch.stack(sampling).cpu())


def _signs(n: int, rng: Generator) -> Tensor:
    return 2.0 * torch.randint(2, (n,), generator=rng).double() - 1


def _said(
    seen: Seen,
    levels: tuple[float, ...],
    psnr: Sequence[Tensor],
    bayes: Sequence[Tensor],
    unbiased: Sequence[Tensor],
    dimensions: Sequence[Tensor],
    way: str,
    error: Tensor,
) -> Decibels:
    count = seen.moved[0].numel()

    def ratio(errors: Sequence[Tensor]) -> Tensor:
        return -10 * (torch.stack(list(errors)).cpu() / count).log10()

    null = ratio([seen.moved.flatten(1).square().sum(1)])[0]
    many = torch.stack(list(dimensions)).cpu()
    return Decibels(
        levels, ratio(psnr), ratio(bayes), ratio(unbiased), null, many, way, error, torch.zeros(len(levels))
    )


def _notes(obs: Observation, x: Tensor, found: Decibels) -> Iterator[str]:
    if met := kinks(obs, x):
        yield (
            f"Local: the network has kinks ({', '.join(met)}), across which the update is not linear; "
            "attacks may fall short of this."
        )
    if not found.converged:
        levels = ", ".join(f"{s:g}" for s, e in zip(found.noise, found.error, strict=True) if e > AGREED)
        yield f"Not converged at noise {levels}: the true number is lower; exact=True settles it."


def _observed(given: nn.Module | Observation, x: Tensor, y: Tensor, client: Client | None) -> Observation:
    if not isinstance(given, Observation):
        return observe(given, x, y, client=client)
    if not isinstance(x, Tensor) or tuple(x.shape) != given.x_shape:
        came = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(
            f"expected the batch that was observed, of shape {list(given.x_shape)}; came {came}"
        )
    if not bool(torch.isfinite(x).all()):
        raise InvalidBatch("expected finite pixels; came NaN or infinite ones")
    if not isinstance(y, Tensor):
        raise InvalidBatch(f"expected labels as a tensor; came {type(y).__name__}")
    check_targets(y, given.batch_size, given.classes or int(y.max()) + 1)
    if client is None:
        return given
    require_function("client", client)
    return replace(given, client=client)


def _levels(noise: float | Sequence[float]) -> tuple[float, ...]:
    given: Any = noise
    several = given if isinstance(given, Sequence | Tensor) and not isinstance(given, str) else (given,)
    try:
        levels = () if isinstance(given, str) else tuple(map(float, several))
    except (TypeError, ValueError, OverflowError):
        levels = ()
    if not levels or not all(isfinite(s) and s > 0 for s in levels):
        raise InvalidInput(
            "expected noise as the standard deviation of an update's entries, a finite number above 0, or "
            f"several; came {noise!r}. Without any noise, take the client's rounding: 1e-6 or less."
        )
    return levels


def _hidden(
    obs: Observation, noise: float | Sequence[float] | None, weights: Weights | None
) -> tuple[tuple[float, ...], Weights | None]:
    """The levels of noise, and what each entry's deviation is divided by."""
    if noise is None and weights is None:
        return (1.0,), inverse(obs.uncertainty)
    levels = _levels(1.0 if noise is None else noise)
    found = {name: (~leaf.isinf()).to(torch.float64) for name, leaf in obs.uncertainty.items()}
    if weights is not None:
        if not isinstance(weights, Mapping):
            raise InvalidUpdate(
                f"expected weights by parameter name, 1 / deviation; came {type(weights).__name__}"
            )
        spread = {name: _spread(weight, found.get(name)) for name, weight in weights.items()}
        check_fit("weights", spread, found)
        check_finite(spread)
        if any(bool((w < 0).any()) for w in spread.values()):
            raise InvalidUpdate(
                "expected weights of 0, for what is not seen, or above: 1 / deviation; came negative ones"
            )
        found = {name: spread[name] * leaf for name, leaf in found.items()}
    if all(bool((leaf == 1).all()) for leaf in found.values()):
        return levels, None
    return levels, found


def _spread(weight: Tensor | float, like: Tensor | None) -> Tensor:
    """One weight for every entry where one is given for all; what does not fit goes on as it is."""
    if like is None or not isinstance(weight, Tensor | int | float):
        return weight  # type: ignore[return-value]  # the check that follows says what is wrong with it
    weight = torch.as_tensor(weight).to(like)
    return weight.expand(like.shape) if weight.dim() == 0 else weight
