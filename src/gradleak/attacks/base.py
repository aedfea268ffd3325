"""What an attack is, and what it hands back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from gradleak.observe import Client, Observation
from gradleak.randomness import Rng


class Outcome(StrEnum):
    """How an attack ended. Failure is data, so that a sweep of a thousand attacks goes on."""

    CONVERGED = "converged"  # the update is explained, as far as the attacker can see
    BUDGET = "budget"  # the steps were used up first
    STALLED = "stalled"  # no step helps any more, and the update is not explained
    DIVERGED = "diverged"  # the numbers left the finite ones
    NOT_APPLICABLE = "not_applicable"  # this attack cannot be run on this observation
    SPARED = "spared"  # stopped, since another trial had explained the update
    RUNNING = "running"  # a candidate on the way


@dataclass(frozen=True)
class Cost:
    """``matching_gradients`` counts double backward passes, the unit that holds on every machine."""

    matching_gradients: int = 0
    seconds: float = 0.0
    trials: int = 0


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What an attacker ends with. Nothing in here was compared with the truth.

    ``score`` is the mismatch that the attacker itself can see: 0 explains the update in full, 1 no
    better than an update of zeros. ``probabilities`` are the soft labels where they were learnt.

    ``history`` is that of the trial which is returned, one entry whenever it lowered its objective: how
    many matching gradients it had spent, and the mismatch there. With priors the objective falls at every
    entry, and the mismatch need not.
    """

    outcome: Outcome
    x: Tensor | None = None  # [B, ...] as the model takes it
    y: Tensor | None = None  # [B] class indices
    score: float = float("inf")
    reason: str = ""
    probabilities: Tensor | None = None  # [B, classes]
    cost: Cost = field(default_factory=Cost)
    history: tuple[tuple[int, float], ...] = ()  # of the best trial, see below
    trial_outcomes: tuple[Outcome, ...] = ()
    decisions: tuple[str, ...] = ()  # of a router: what it tried, and why it went on
    client: Client | None = None  # what was learnt of a client that the attacker did not know in full

    def __repr__(self) -> str:
        shape = None if self.x is None else list(self.x.shape)
        because = f" ({self.reason})" if self.reason else ""
        return (
            f"Reconstruction({self.outcome}{because}, score {self.score:.3g}, x {shape}, "
            f"{self.cost.matching_gradients} matching gradients in {self.cost.seconds:.1f} s)"
        )


class Attack(Protocol):
    """Hyper-parameters are an attack's fields; the observation and the randomness are its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def citations(self) -> tuple[str, ...]: ...

    @property
    def budget(self) -> int:
        """How many matching gradients it may spend on one observation."""
        ...

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction: ...

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]: ...
