"""How a client turns its batch into the update it sends: run by the victim, simulated by the attacker."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from gradleak.observe.task import Task
from gradleak.trees import Tree


@runtime_checkable
class Client(Protocol):
    """A pure function of its arguments, differentiable with respect to ``x`` and ``y``."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class OneGradient:
    """FedSGD: the gradient of one batch."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return task.gradient(params, x, y)


CLIENTS: dict[str, type] = {"OneGradient": OneGradient}
"""Clients that a capture on disk can name; their fields are what is written beside the name."""
