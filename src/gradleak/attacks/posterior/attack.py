"""MAP: Gauss-Newton from mid-grey for the most probable pictures under noise, rounding, masks and pruning."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.certificate import certify
from gradleak.attacks.kinks import kinked
from gradleak.attacks.matching.optimizers.base import is_count
from gradleak.attacks.posterior.merit import Posterior
from gradleak.attacks.posterior.walk import Walk, walk
from gradleak.errors import InvalidInput
from gradleak.labels import LabelStrategy, Unanswerable, inferred
from gradleak.observe import Observation, OpenClient
from gradleak.randomness import Rng, spawn

_MOST_LABELS, _TRIED = 20, 5  # of one record whose label nothing tells: as many steps with each of so many
_APART = 0.1  # deviations by which the records of a batch differ at the start: from grey, twins never part


@dataclass(frozen=True)
class MostProbable:
    """See ``map``, which builds it."""

    labels: LabelStrategy = field(default_factory=inferred)
    steps: int = 60
    iterations: int = 40
    name: str = "map"
    citations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_count(self.steps) or not is_count(self.iterations):
            raise InvalidInput(
                "expected steps and iterations as whole numbers of 1 or more; came "
                f"{self.steps!r} and {self.iterations!r}"
            )

    @property
    def budget(self) -> int:
        return self.steps * (2 * self.iterations + 4)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        *_, last = self.iterate(obs, rng=rng)
        return last

    @torch.inference_mode(False)
    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        clock = time.perf_counter()
        for_labels, for_start = spawn(rng, 2)
        if isinstance(obs.client, OpenClient):
            yield Reconstruction(Outcome.NOT_APPLICABLE, reason=_OPEN)
            return
        if not any(bool(leaf.any()) for leaf in obs.update.values()):
            yield Reconstruction(Outcome.NOT_APPLICABLE, reason=_NOTHING)
            return
        guess = self.labels(obs, rng=for_labels)
        if isinstance(guess, Unanswerable):
            yield Reconstruction(Outcome.NOT_APPLICABLE, reason=guess.reason)
            return
        start = _start(obs, for_start)
        walked = partial(walk, start=start, iterations=self.iterations, kinked=kinked(obs))
        y, spent = guess.y, 0
        if y is None:
            if obs.batch_size > 1 or obs.classes is None or obs.classes > _MOST_LABELS:
                yield Reconstruction(Outcome.NOT_APPLICABLE, reason=_UNLABELLED)
                return
            y, spent = _likeliest(obs, walked)
        posterior = Posterior.of(obs, y)
        for now in walked(posterior, steps=self.steps):
            now.spent += spent
            spent = 0
            yield _found(obs, posterior, now, y, time.perf_counter() - clock)


def _start(obs: Observation, rng: Generator) -> Tensor:
    pixels = torch.Size(obs.x_shape).numel()
    if obs.batch_size == 1:
        return torch.zeros(pixels, dtype=torch.float64, device=obs.like.device)
    return _APART * torch.randn(pixels, generator=rng, dtype=torch.float64).to(obs.like.device)


def _likeliest(obs: Observation, walked: Callable[..., Iterator[Walk]]) -> tuple[Tensor, int]:
    """The label of one record under which a few steps come nearest to the update, and what they cost."""
    ended = []
    for label in range(obs.classes or 0):
        y = torch.tensor([label], device=obs.like.device)
        *_, last = walked(Posterior.of(obs, y), steps=_TRIED)
        ended.append(last)
    best = min(range(len(ended)), key=lambda label: ended[label].score)
    return torch.tensor([best], device=obs.like.device), sum(one.cost for one in ended)


_UNLABELLED = (
    "the labels are not known and not read off; expected those of a batch, or of one record that has one of "
    f"at most {_MOST_LABELS} classes"
)
_NOTHING = "the update is zero everywhere, so every batch explains it as well as any other"
_QUIET = 0.1  # mean square of the residual in deviations, where 1 is expected
_OPEN = "the client is open: what is unknown of it is not learnt here"


def _found(obs: Observation, posterior: Posterior, now: Walk, y: Tensor, seconds: float) -> Reconstruction:
    x = obs.domain.clamp(posterior.pictures(now.u)).to(obs.like)
    outcome, reason = now.outcome, ""
    if outcome in (Outcome.STALLED, Outcome.BUDGET) and certify(obs, x, y).holds:
        outcome = (
            Outcome.CONVERGED
        )  # a few entries are off by more than rounding, and nothing more is to gain
    if outcome is Outcome.CONVERGED and now.level < _QUIET:
        reason = (
            f"the update is off by {now.level:.1g} of what the assumed client would bring: is it too strong?"
        )
    if outcome is Outcome.STALLED:
        reason = f"no step helps any more, and the update is {now.excess:.2g} times what hides it away"
    return Reconstruction(
        outcome,
        x,
        y,
        now.score,
        reason,
        cost=Cost(now.cost, seconds, 1),
        history=tuple(now.history),
        decisions=(f"{now.step} steps, {now.newton.factors} of them with a matrix of all unknowns",),
    )


def map(*, labels: LabelStrategy | None = None, steps: int = 60, iterations: int = 40) -> MostProbable:
    """The most probable pictures under noise, rounding, masks or pruning, by Gauss-Newton from mid-grey."""
    return MostProbable(labels or inferred(), steps, iterations)
