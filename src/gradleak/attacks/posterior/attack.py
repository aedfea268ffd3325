"""MAP: Gauss-Newton from mid-grey for the most probable pictures under noise, rounding, masks and pruning."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.matching.optimizers.base import is_count
from gradleak.attacks.posterior.merit import Posterior
from gradleak.attacks.posterior.walk import Walk, walk
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.labels import LabelStrategy, Unanswerable, inferred
from gradleak.observe import Observation, OpenClient
from gradleak.randomness import Rng, spawn

_APART = 0.1  # deviations by which the records of a batch differ at the start: from grey, twins never part


@dataclass(frozen=True)
class MostProbable:
    """See ``map``, which builds it."""

    labels: LabelStrategy = field(default_factory=inferred)
    steps: int = 30
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
        guess = self.labels(obs, rng=for_labels)
        if isinstance(guess, Unanswerable):
            yield Reconstruction(Outcome.NOT_APPLICABLE, reason=guess.reason)
            return
        y = guess.y if guess.logits is None else guess.logits.argmax(-1)
        if y is None:
            raise MissingInformation("a label strategy gave neither labels nor a start for them")
        posterior = Posterior.of(obs, y)
        for now in walk(posterior, _start(obs, for_start), steps=self.steps, iterations=self.iterations):
            yield _found(obs, posterior, now, y, time.perf_counter() - clock)


def _start(obs: Observation, rng: Generator) -> Tensor:
    pixels = torch.Size(obs.x_shape).numel()
    if obs.batch_size == 1:
        return torch.zeros(pixels, dtype=torch.float64, device=obs.like.device)
    return _APART * torch.randn(pixels, generator=rng, dtype=torch.float64).to(obs.like.device)


_OPEN = "the client is open: what is unknown of it is not learnt here"


def _found(obs: Observation, posterior: Posterior, now: Walk, y: Tensor, seconds: float) -> Reconstruction:
    x = obs.domain.clamp(posterior.pictures(now.u)).to(obs.like)
    reason = ""
    if now.outcome is Outcome.STALLED:
        reason = f"no step helps any more, and the update is {now.excess:.2g} times what hides it away"
    return Reconstruction(
        now.outcome,
        x,
        y,
        now.score,
        reason,
        cost=Cost(now.cost, seconds, 1),
        history=tuple(now.history),
        decisions=(f"{now.step} steps, {now.newton.factors} of them with a matrix of all unknowns",),
    )


def map(*, labels: LabelStrategy | None = None, steps: int = 30, iterations: int = 40) -> MostProbable:
    """The most probable pictures under noise, rounding, masks or pruning, by Gauss-Newton from mid-grey."""
    return MostProbable(labels or inferred(), steps, iterations)
