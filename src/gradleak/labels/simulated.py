"""Counts under local training, corrected until the assumed client, simulated, sends the same."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput
from gradleak.labels.allocate import allocate, records
from gradleak.labels.dummies import look, smooth
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.zero_shot import ZeroShot, trust
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator


@dataclass(frozen=True)
class Simulated:
    """λ ← λ + K (db_simulated − db), where the client is simulated on smooth dummies with labels λ.

    What the two-point rule misses, the path between both points, happens in the simulation too. The step
    is damped, and no order of the records is known, so that they are dealt anew each time.
    """

    rounds: int = 5
    damping: float = 0.5
    citations: tuple[str, ...] = ("gdl", "fedavg_leakage")

    def __post_init__(self) -> None:
        if not isinstance(self.rounds, int) or self.rounds < 0 or not 0 < self.damping <= 1:
            raise InvalidInput(
                f"expected rounds >= 0 and a damping in (0, 1]; came {self.rounds!r} and {self.damping!r}"
            )

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        estimate = self.estimate(obs, found, rng)
        if isinstance(estimate, Unanswerable):
            return estimate
        counts = allocate(estimate, found.batch)
        return LabelGuess(
            y=records(counts, obs.like.device), classes=found.classes, confidence=trust(estimate, found.batch)
        )

    def estimate(self, obs: Observation, found: Evidence, rng: Generator) -> Tensor | Unanswerable:
        start = ZeroShot().estimate(obs, found, rng)
        if isinstance(start, Unanswerable):
            return start
        estimate = start
        for _ in range(self.rounds):
            x = smooth(obs, found.batch, rng)
            y = records(allocate(estimate, found.batch), obs.like.device)
            y = y[torch.randperm(len(y), generator=rng, device=rng.device).to(y.device)]
            replay = evidence(obs, obs.simulate(x, y))
            gap = _gap(obs, found, replay, x)
            if gap is None:
                return estimate
            estimate = estimate + self.damping * (allocate(estimate, found.batch).to(gap) - estimate + gap)
        return estimate


def _gap(obs: Observation, found: Evidence, replay: Evidence | Unanswerable, x: Tensor) -> Tensor | None:
    """[classes]: by how many records the simulated client's labels differ from the true ones."""
    if isinstance(replay, Unanswerable):
        return None
    if found.bias is not None and replay.bias is not None:
        gap = replay.bias - found.bias
    else:
        gap = (replay.weight - found.weight).sum(1) / look(obs, x).features.sum(1).mean()
    return found.batch * gap if bool(torch.isfinite(gap).all()) else None


def simulated(rounds: int = 5, *, damping: float = 0.5) -> Simulated:
    """Counts for local training: the zero-shot rule, corrected by simulating the assumed client."""
    return Simulated(rounds, damping)
