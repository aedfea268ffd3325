"""Dropout masks, learnt together with the pictures (Scheliga et al. 2022)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gradleak.defenses.dropout import Dropout
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.observe import Observation, Task
from gradleak.observe.layers import trace
from gradleak.observe.task import noise_batch
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class LearntMask:
    """An open client: for every record and feature, how far it was kept, from 0 to 1.

    All start near the share that is kept; whole columns that the update shows to be dropped stay at 0. A
    record whose mean leaves 1 − rate is charged ``weight`` times the square of that. ``scale`` is the masks'
    pace beside that of the pixels, and they are ``sharper`` at the end.
    """

    client: Dropout
    shape: tuple[int, ...]  # of what enters the layer
    seen: Tensor | None = None
    weight: float = 1.0
    scale: float = 2.0
    sharper: float = 3.0

    @property
    def citations(self) -> tuple[str, ...]:
        return ("dropout_inversion", *self.client.citations)

    @classmethod
    def of(cls, dropout: Dropout, obs: Observation) -> "LearntMask":
        """For the layer and the batch of this observation."""
        if dropout.steps(obs.batch_size) != 1:
            raise InvalidInput(
                "expected dropout around one gradient, since every local step has masks of its own; came "
                f"{dropout!r}"
            )
        path = dropout.path(obs.params)
        calls = trace(obs.task, obs.params, noise_batch(obs.like, obs.x_shape))
        entered = next((call.input for call in calls if call.path == path), None)
        if entered is None:
            raise MissingInformation(f"the layer '{path}' does not run, or is handed no tensor to mask")
        return cls(dropout, tuple(entered.shape), dropout.shown(obs.params, obs.update))

    def start(self, batch_size: int, rng: Generator) -> Tensor:
        near = 0.1 / self.scale * torch.randn(math.prod(self.shape), generator=rng, dtype=torch.float64)
        return near + self._level / self.scale

    def settled(self, unknowns: Tensor, progress: Tensor) -> tuple[Dropout, Tensor]:
        kept = self.kept(unknowns, progress)
        off = kept.flatten(1).mean(1) - (1 - self.client.rate)
        mask = kept / (1 - self.client.rate) if self.client.rate else torch.ones_like(kept)
        return replace(self.client, mask=mask), self.weight * off.square().mean()

    def kept(self, unknowns: Tensor, progress: Tensor) -> Tensor:
        """How far each feature of each record is kept."""
        logits = self.scale * unknowns.reshape(self.shape)
        kept = torch.sigmoid(logits * (1 + self.sharper * progress))
        return kept if self.seen is None else kept * self.seen.to(kept)

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """With nothing learnt yet, nothing is dropped."""
        return self.client(task, params, x, y)

    def steps(self, records: int) -> int:
        return self.client.steps(records)

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        return self.client.gradient_of(params, update, records)

    def drawn(self, records: int, rng: Generator) -> Dropout:
        return self.client.drawn(records, rng)

    @property
    def _level(self) -> float:
        """The logit of the share that is kept."""
        rate = min(max(self.client.rate, 1e-3), 1 - 1e-3)
        return math.log((1 - rate) / rate)
