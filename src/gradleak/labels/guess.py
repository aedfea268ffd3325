"""What an attacker believes about the labels before it looks for the pictures."""

from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor

from gradleak.observe import Observation


@dataclass(frozen=True, eq=False)
class LabelGuess:
    """Settled labels, or a start for labels that are to be learnt together with the pictures."""

    y: Tensor | None = None  # [B] class indices
    logits: Tensor | None = None  # [B, classes]
    certain: bool = False  # the update itself proves them


@dataclass(frozen=True)
class Unanswerable:
    """A strategy cannot say anything about this observation, and why."""

    reason: str


class LabelStrategy(Protocol):
    """``rng`` belongs to one trial: strategies that draw nothing ignore it."""

    def __call__(self, obs: Observation, *, rng: Generator) -> LabelGuess | Unanswerable: ...
