"""The order of local batches, learnt together with the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from gradleak.observe import LocalTraining, Task
from gradleak.trees import Tree

_ROUNDS = 8  # of scaling rows and columns by turns, after which both sums are right to a percent


@dataclass(frozen=True)
class LearntOrder:
    """An open client: every record's share in every local batch of an epoch, from anywhere to all or nothing.

    A shuffled batch leaves its order in the update once the rate is large, and then a wrong order is
    worse than no attack at all. Shares start almost even, are held for ``hold`` of the budget, while the
    pictures take shape, and are ``sharper`` at the end. ``scale`` is their pace beside that of the pixels.
    """

    client: LocalTraining
    records: int
    scale: float = 2.0
    hold: float = 1 / 6
    sharper: float = 3.0

    @property
    def sizes(self) -> list[int]:
        """Of the batches of one epoch."""
        size = self.client.batch_size
        return [min(size, self.records - start) for start in range(0, self.records, size)]

    @property
    def unknowns(self) -> int:
        return self.client.epochs * len(self.sizes) * self.records

    def steps(self, records: int) -> int:
        return self.client.steps(records)

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        return self.client.gradient_of(params, update, records)

    def drawn(self, records: int, rng: Generator) -> LocalTraining:
        return self.client.drawn(records, rng)

    def start(self, batch_size: int, rng: Generator) -> Tensor:
        return 0.1 / self.scale * torch.randn(self.unknowns, generator=rng, dtype=torch.float64)

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """With nothing learnt yet, every record has an even share in every batch."""
        even = x.new_zeros(self.unknowns)
        return Blended(self.client, self.shares(even, x.new_zeros(())))(task, params, x, y)

    def settled(self, unknowns: Tensor, progress: Tensor) -> tuple["Blended", Tensor]:
        held = torch.where(progress < self.hold, unknowns.detach(), unknowns)
        return Blended(self.client, self.shares(held, progress)), unknowns.new_zeros(())

    def shares(self, unknowns: Tensor, progress: Tensor) -> Tensor:
        """[epochs, batches, records]; over the batches they sum to 1, over the records to a batch's size."""
        logits = self.scale * unknowns.reshape(self.client.epochs, len(self.sizes), self.records)
        logits = logits * (1 + self.sharper * progress)
        sizes = unknowns.new_tensor(self.sizes)[:, None]
        for _ in range(_ROUNDS):
            logits = logits - logits.logsumexp(2, keepdim=True) + sizes.log()
            logits = logits - logits.logsumexp(1, keepdim=True)
        return logits.exp()

    def whole(self, order: Sequence[Sequence[int]], like: Tensor) -> "Blended":
        """Every record all in one batch of each epoch, by this order."""
        shares = like.new_zeros(self.client.epochs, len(self.sizes), self.records)
        for epoch, records in enumerate(order):
            for place, record in enumerate(records):
                shares[epoch, place // self.client.batch_size, record] = 1
        return Blended(self.client, shares)

    def order(self, shares: Tensor) -> tuple[tuple[int, ...], ...]:
        """The likeliest order: whole records, by the shares' best assignment to the batches' places."""
        batch_of_place = [batch for batch, size in enumerate(self.sizes) for _ in range(size)]
        found = []
        for epoch in shares.detach().cpu():
            gain = epoch.clamp(min=1e-12).log()[batch_of_place]
            _, records = linear_sum_assignment(gain.numpy(), maximize=True)
            found.append(tuple(int(record) for record in records))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Blended:
    """The client with every step taken on all records, each by its share."""

    client: LocalTraining
    shares: Tensor

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        steps = [share for epoch in self.shares for share in epoch]
        return self.client.trained_on(steps, task, params, x, y)
