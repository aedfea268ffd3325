"""What a prior looks at: one candidate batch, and everything that is known beside it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe import Domain, Observation, Task
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Candidate:
    """``x`` [B, ...] and ``y`` (class indices [B] or probabilities [B, classes]) as the client takes them.

    ``progress`` is the share of the trial's budget that is spent, for penalties that change on the way.
    ``anchor`` is what the trials of this record agree on, without a graph and in the shape of ``x``; None
    before there is such a thing. ``evidence`` is what the prior itself gathered from the observation.
    """

    x: Tensor
    y: Tensor
    domain: Domain
    progress: Tensor
    task: Task
    params: Tree
    anchor: Tensor | None = None
    evidence: Tree = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        """The pictures with values in [0, 1]."""
        return self.domain.to_pixels(self.x)


Prior = Callable[[Candidate], Tensor]


@runtime_checkable
class Informed(Protocol):
    """A prior that reads something off the observation first: once for each trial, whose labels it is told.

    It finds the tensors again as ``candidate.evidence``. Where it cannot do without and there is nothing to
    read, it says why, and the attack is not applicable.
    """

    def gather(self, obs: Observation, guess: LabelGuess, rng: Generator) -> Tree | Unanswerable: ...

    def __call__(self, candidate: Candidate) -> Tensor: ...
