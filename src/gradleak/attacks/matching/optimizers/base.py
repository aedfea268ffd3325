"""What every optimizer is: a descent for one trial, which asks for one evaluation at a time.

``descend(start)`` is a coroutine that yields a point and is sent its value and gradient. So an optimizer
knows one trial only and keeps no state between runs, while the loop answers the questions of all trials
at once. It ends with the outcome, when no step helps any more.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from torch import Tensor

from gradleak.attacks.base import Outcome

Descent = Generator[Tensor, tuple[float, Tensor], Outcome]
Project = Callable[[Tensor], Tensor]


def is_count(value: object) -> bool:
    """Whether it is a whole number of 1 or more, as a bound on steps must be."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Optimizer(Protocol):
    @property
    def citations(self) -> tuple[str, ...]: ...

    def descend(self, start: Tensor, project: Project | None) -> Descent: ...
