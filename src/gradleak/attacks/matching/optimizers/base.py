"""What every optimizer is: a descent for one trial, which asks for one evaluation at a time.

``descend(start, space, rng)`` is a coroutine that yields a point and is sent its value and gradient. So
an optimizer knows one trial only and keeps no state between runs, while the loop answers the questions of
all trials at once. It ends with the outcome, when no step helps any more.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradleak.attacks.base import Outcome

Descent = Generator[Tensor, tuple[float, Tensor], Outcome]
Project = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Space:
    """Where a descent may go. The first ``pixels`` entries of a point are the pictures', of this ``shape``.

    What follows, label logits and what is not known of a client, lives on scales of its own. ``project``
    moves a point into the box; None where there is none.
    """

    pixels: int
    project: Project | None = None
    shape: tuple[int, ...] = ()  # [B, ...], for those who need to know neighbours


def is_count(value: object) -> bool:
    """Whether it is a whole number of 1 or more, as a bound on steps must be."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Optimizer(Protocol):
    """``rng`` is the trial's own generator: an optimizer that draws nothing ignores it."""

    @property
    def citations(self) -> tuple[str, ...]: ...

    def descend(self, start: Tensor, space: Space, rng: torch.Generator) -> Descent: ...
