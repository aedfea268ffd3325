"""Two attacks that recover a batch exactly, each with a certificate: by the softmax head, and by SPEAR."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Outcome, Reconstruction
from gradleak.attacks.closed_form.batch.dense import Stage
from gradleak.attacks.closed_form.batch.descent import Head
from gradleak.attacks.closed_form.batch.factors import Factors
from gradleak.attacks.closed_form.batch.head import Search, solutions
from gradleak.attacks.closed_form.batch.peel import peel
from gradleak.attacks.closed_form.batch.spear import agreement, directions, labels_from_deltas, unmix
from gradleak.attacks.closed_form.batch.verdict import (
    factored,
    inapplicable,
    judged,
    network,
    stalled,
    standard,
    timed,
)
from gradleak.errors import InvalidInput
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator

_UNEXPLAINED = (
    "no labels and features were found that explain the last layer's gradient; "
    "the batch may have another size"
)
_AGREES = 0.98  # share of the first layer's outputs


@dataclass(frozen=True)
class ExactBatch:
    """Every picture and label of a batch of up to classes − 1 records, from one gradient of an MLP.

    The last layer's gradient gives features, deltas and labels; a linear system per layer leads from
    there to the pixels. ``search`` says how much is tried. A result has ``converged`` when the gradient
    of what was found is the observed one up to ``tolerance`` (‖g(x) − g‖ / ‖g‖, whose square is its score;
    None: a few hundred roundings of the gradient's dtype), and the error to expect in a pixel, from the
    noise that is left, is at most ``accuracy``.
    """

    search: Search = field(default_factory=Search)
    tolerance: float | None = None
    accuracy: float = 1e-3
    name: str = "exact_batch"

    def __post_init__(self) -> None:
        _check_standard(self.tolerance, self.accuracy)

    @property
    def budget(self) -> int:
        return 1  # what is found is simulated once

    @property
    def citations(self) -> tuple[str, ...]:
        return ("spear",)

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        """The final reconstruction only: there is nothing on the way that is half right."""
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        clock = time.perf_counter()
        obs = obs.plainest
        with torch.no_grad():
            found, tried = self._solve(obs, rng)
        return timed(found, time.perf_counter() - clock, tried)

    def _solve(self, obs: Observation, rng: Rng) -> tuple[Reconstruction, int]:
        net = network(obs)
        if isinstance(net, str):
            return inapplicable(net), 0
        refusal = _beyond_the_head(obs, net[-1])
        if refusal:
            return inapplicable(refusal), 0
        factors = factored(net, obs)
        lost = _unseen(obs, net, factors)
        if lost:
            return stalled(lost), 0
        head = Head(factors[-1], net[-1].W, net[-1].b, obs.batch_size, _positive(net, obs))
        best, tried = stalled(_UNEXPLAINED), 0
        wanted = standard(obs, self.tolerance, self.accuracy)
        for solution in solutions(head, self.search, generator(rng), obs.labels):
            x = peel(net, factors, solution.H, solution.D, solution.blur)
            if not bool(torch.isfinite(x).all()):
                continue
            found, tried = judged(obs, net, factors, x, solution.y, wanted), tried + 1
            best = min(best, found, key=lambda r: (r.outcome is not Outcome.CONVERGED, r.score))
            if best.outcome is Outcome.CONVERGED or best.score**0.5 <= wanted.residual(1.0):
                break  # what rounding has blurred, no other start makes sharp
        return best, tried


@dataclass(frozen=True)
class Spear:
    """SPEAR: batches larger than the classes, from a wide first layer with a ReLU (Dimitrov et al. 2024).

    ``draws`` are the paper's random subsets, tried first; ``starts`` are descents to sparse vectors, which
    go on where sampling is hopeless. The paper's layer may be anywhere and leaves the labels open; here it
    is the first one, so that its inputs are the pictures, and the labels come from the deltas. The
    certificate is that of ``ExactBatch``.
    """

    draws: int = 16384
    starts: int = 1536
    repairs: int = 3
    tolerance: float | None = None
    accuracy: float = 1e-3
    name: str = "spear"

    def __post_init__(self) -> None:
        _check_standard(self.tolerance, self.accuracy)
        if min(self.draws, self.starts, self.repairs) < 0:
            raise InvalidInput("expected draws, starts and repairs of 0 or more")

    @property
    def budget(self) -> int:
        return 1  # what is found is simulated once

    @property
    def citations(self) -> tuple[str, ...]:
        return ("spear",)

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        """The final reconstruction only."""
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        clock = time.perf_counter()
        obs = obs.plainest
        with torch.no_grad():
            found = self._solve(obs, rng)
        return timed(found, time.perf_counter() - clock, int(found.x is not None))

    def _solve(self, obs: Observation, rng: Rng) -> Reconstruction:
        net = network(obs)
        if isinstance(net, str):
            return inapplicable(net)
        first = net[0]
        if first.act.kink != 0.0:
            return inapplicable(f"{first.name} is not followed by a ReLU, whose zeros this attack lives on")
        if first.db is None:
            return inapplicable(f"{first.name} has no bias, whose gradient fixes the scale of the pictures")
        factors = factored(net, obs)
        lost = _unseen(obs, net[:1], factors[:1])
        if lost:
            return stalled(lost)
        unmixed, found = self._unmixed(first, factors[0], generator(rng))
        if unmixed is None:
            return stalled(f"{found} of {obs.batch_size} records were found by the zeros of their deltas")
        deltas, x = unmixed
        y = labels_from_deltas(net, x, deltas)
        return judged(obs, net, factors, x, y, standard(obs, self.tolerance, self.accuracy))

    def _unmixed(self, first: Stage, f: Factors, rng: Generator) -> tuple[tuple[Tensor, Tensor] | None, int]:
        """Deltas and pictures, after directions that contradict the layer's own forward were sought anew."""
        known = None
        for _ in range(self.repairs + 1):
            known = directions(f, first, rng, draws=self.draws, starts=self.starts, known=known)
            unmixed = unmix(f, known)
            if unmixed is None:
                if len(known) < f.rank:
                    return None, len(known)
                known = known[torch.randperm(len(known), generator=rng)[: len(known) // 2]]
                continue
            agrees = agreement(first, *unmixed) > _AGREES
            if bool(agrees.all()):
                return unmixed, f.rank
            known = known[: f.rank][agrees]
        return None, 0 if known is None else len(known)


def _check_standard(tolerance: float | None, accuracy: float) -> None:
    if (tolerance is not None and not tolerance >= 0) or not accuracy > 0:
        raise InvalidInput(
            f"expected a tolerance of 0 or more and an accuracy above 0; came {tolerance} and {accuracy}"
        )


def _beyond_the_head(obs: Observation, last: Stage) -> str:
    classes = len(last.W)
    if last.db is None:
        return (
            f"{last.name} has no bias, whose gradient would fix the scale of the features; "
            "an optimisation attack is needed"
        )
    if obs.batch_size > classes - 1:
        return (
            f"a batch of {obs.batch_size} is beyond the {classes - 1} independent rows that the gradient of "
            f"{classes} logits has; expected a batch of at most {classes - 1}, or SPEAR on a wide first layer"
        )
    return ""


def _positive(net: list[Stage], obs: Observation) -> bool:
    """Whether the last layer's inputs cannot be negative: after a ReLU or a sigmoid, or as pixels."""
    if len(net) == 1:
        return all(mean == 0 for mean in obs.domain.mean)
    low = net[-2].act.value(torch.tensor([-40.0, -1.0]))
    return bool((low >= 0).all())


def _unseen(obs: Observation, net: list[Stage], factors: list[Factors]) -> str:
    """Why the batch cannot be told apart, if some layer shows fewer records than were said to be there."""
    for stage, f in zip(reversed(net), reversed(factors), strict=True):
        if f.rank < obs.batch_size:
            return (
                f"the gradient of {stage.name} shows {f.rank} of {obs.batch_size} records: the others are "
                "equal to them, meet dead units, or are below the noise; or the batch has another size"
            )
    return ""


def exact_batch(*, tolerance: float | None = None, accuracy: float = 1e-3) -> ExactBatch:
    """Exact batch: all pictures and labels of an MLP's batch by linear solves, up to classes − 1 of them."""
    return ExactBatch(tolerance=tolerance, accuracy=accuracy)


def spear(*, tolerance: float | None = None, accuracy: float = 1e-3) -> Spear:
    """SPEAR: a larger batch from a wide first layer, by the zeros of its ReLU (Dimitrov et al. 2024)."""
    return Spear(tolerance=tolerance, accuracy=accuracy)
