"""How a client turns its batch into the update it sends: run by the victim, simulated by the attacker."""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe.local import LocalAdam, LocalSGD, LocalTraining
from gradleak.observe.task import Task
from gradleak.trees import Tree

_MOST = 100_000  # clients in one sum


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


@runtime_checkable
class Trained(Protocol):
    """A client whose update is the work of many gradients, and what is known of them all the same."""

    def steps(self, records: int) -> int:
        """How many gradients stand one upon another."""
        ...

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        """The mean gradient, as far as the update tells; None where it does not."""
        ...

    def drawn(self, records: int, rng: Generator) -> "Client":
        """The client with the dice thrown, such as the order in which it takes the records."""
        ...


@dataclass(frozen=True)
class Summed:
    """The mean of what several clients send, as secure aggregation hands it to the server.

    The batch is all of theirs, in equal shares one after another. ``each`` is what every one of them does,
    or one client for each.
    """

    clients: int
    each: Client | tuple[Client, ...] = field(default_factory=OneGradient)

    def __post_init__(self) -> None:
        if not isinstance(self.clients, int) or isinstance(self.clients, bool) or self.clients < 1:
            raise InvalidInput(f"expected clients as a whole number of 1 or more; came {self.clients!r}")
        if self.clients > _MOST:
            raise InvalidInput(f"expected at most {_MOST:,} clients in a sum; came {self.clients:,}")
        if isinstance(self.each, list):
            object.__setattr__(self, "each", tuple(self.each))
        if isinstance(self.each, tuple) and len(self.each) != self.clients:
            raise InvalidInput(f"expected {self.clients} clients, or one for all; came {len(self.each)}")
        if not all(map(callable, self.all)):
            raise InvalidInput(
                f"expected a client, such as LocalSGD(...), or one for each; came {self.each!r}"
            )

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        parts = self.parts(len(x))
        sent = [client(task, params, x[part], y[part]) for client, part in zip(self.all, parts, strict=True)]
        return {name: torch.stack([one[name] for one in sent]).mean(0) for name in sent[0]}

    @property
    def all(self) -> tuple[Client, ...]:
        return self.each if isinstance(self.each, tuple) else (self.each,) * self.clients

    def parts(self, records: int) -> list[slice]:
        """Whose records are whose."""
        if records % self.clients:
            raise InvalidBatch(
                f"expected a batch that {self.clients} clients can share evenly; came {records} records"
            )
        share = records // self.clients
        return [slice(i * share, (i + 1) * share) for i in range(self.clients)]

    def steps(self, records: int) -> int:
        share = max(records // self.clients, 1)
        return max(one.steps(share) if isinstance(one, Trained) else 1 for one in set(self.all))

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        """None where the clients are of several kinds, whose steps have several lengths."""
        share = max(records // self.clients, 1)
        first, *others = self.all
        if any(not _alike(first, other) for other in others):
            return None
        return first.gradient_of(params, update, share) if isinstance(first, Trained) else dict(update)

    def drawn(self, records: int, rng: Generator) -> "Summed":
        share = records // self.clients
        thrown = [one.drawn(share, rng) if isinstance(one, Trained) else one for one in self.all]
        return Summed(self.clients, tuple(thrown))


def _alike(a: Client, b: Client) -> bool:
    """Whether two clients do the same, in whatever order they take their records."""
    if isinstance(a, LocalTraining) and isinstance(b, LocalTraining):
        return replace(a, order="given") == replace(b, order="given")
    return a == b


CLIENTS: dict[str, type] = {
    "OneGradient": OneGradient,
    "LocalSGD": LocalSGD,
    "LocalAdam": LocalAdam,
    "Summed": Summed,
}
"""Clients that a capture on disk can name; their fields are what is written beside the name."""
