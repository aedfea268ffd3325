"""How a client turns its batch into the update it sends: run by the victim, simulated by the attacker."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

from gradleak.observe.local import LocalAdam, LocalSGD
from gradleak.observe.task import Task
from gradleak.trees import Tree


@runtime_checkable
class Client(Protocol):
    """A pure function of its arguments, differentiable with respect to ``x`` and ``y``."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]: ...


@runtime_checkable
class OpenClient(Protocol):
    """A client of which the attacker does not know everything, and learns the rest with the pictures.

    What is unknown is one vector of plain numbers, which an optimizer may move.
    """

    def start(self, batch_size: int, rng: Generator) -> Tensor:
        """The first guess at the unknowns of one trial, in float64 on the CPU."""
        ...

    def settled(self, unknowns: Tensor, progress: Tensor) -> tuple[Client, Tensor]:
        """The client that these unknowns describe, and a penalty that is 0 where they are possible.

        ``progress`` is the share of the trial's budget that is spent.
        """
        ...


@dataclass(frozen=True)
class OneGradient:
    """FedSGD: the gradient of one batch."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return task.gradient(params, x, y)


CLIENTS: dict[str, type] = {"OneGradient": OneGradient, "LocalSGD": LocalSGD, "LocalAdam": LocalAdam}
"""Clients that a capture on disk can name; their fields are what is written beside the name."""
