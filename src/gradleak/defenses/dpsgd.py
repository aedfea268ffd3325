"""DP-SGD: each record's gradient is clipped, and their mean gets noise (Abadi et al. 2016)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Defense, number
from gradleak.defenses.clip import Clip
from gradleak.defenses.noise import blurred, plus
from gradleak.errors import InvalidInput
from gradleak.observe import Client, Task, Trained
from gradleak.trees import Tree


@dataclass(frozen=True)
class DPSGD(Defense):
    """The mean of the records' gradients, each clipped to length ``clip``, with noise on every entry.

    The noise is N(0, (``noise_multiplier`` · ``clip`` / records)²), which ``epsilon`` accounts for. The
    client inside sees one record at a time, and must send one gradient. Without dice, there is no noise.
    """

    clip: float = field(kw_only=True)
    noise_multiplier: float = field(kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("dp_sgd",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("clip", self.clip, 0, math.inf, open_ends="[")
        number("noise_multiplier", self.noise_multiplier, 0, math.inf)
        inner = self.client
        while isinstance(inner, Defense):
            inner = inner.client
        if isinstance(inner, Trained):
            raise InvalidInput(
                f"expected a client that sends one gradient, such as OneGradient(), since DPSGD clips each "
                f"record's; came {inner!r}, whose update is no single record's gradient. To clip and blur a "
                "whole update: GaussianNoise(Clip(client, norm=...), std=...)."
            )

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        rng = None if self.dice is None else Generator().manual_seed(self.dice)
        each = [self._clipped(rng, task, params, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        mean = {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
        if rng is None:
            return mean
        return plus(
            mean,
            self.deviation(len(x)),
            lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64),
        )

    def deviation(self, records: int) -> float:
        """Of the noise on each entry."""
        return self.noise_multiplier * self.clip / records

    def _clipped(
        self, rng: Generator | None, task: Task, params: Tree, x: Tensor, y: Tensor
    ) -> dict[str, Tensor]:
        client = self.client
        if rng is not None and isinstance(client, Trained):  # dropout, say, throws anew for each record
            client = client.drawn(1, rng)
        return Clip(client, norm=self.clip)(task, params, x, y)

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        """Nothing: the dice of single records are not seen in a mean with noise."""
        return self

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        return blurred(self.client, params, update, 1, self.deviation(records), hidden=True)
