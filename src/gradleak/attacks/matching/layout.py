"""How a trial's unknowns lie in one vector: pictures | label logits | what is not known of the client."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    x: Tensor  # [B, ...] as the model takes it
    logits: Tensor | None = None  # [B, classes] where labels are learnt
    unknowns: Tensor | None = None  # of an open client


def pack(parts: Parts) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts if part is not None])


@dataclass(frozen=True)
class Layout:
    """``classes`` and ``unknowns`` are None where labels are settled and where the client is known."""

    x_shape: tuple[int, ...]
    classes: int | None = None
    unknowns: int | None = None

    @property
    def pixels(self) -> int:
        return math.prod(self.x_shape)

    @property
    def logits(self) -> int:
        return self.x_shape[0] * (self.classes or 0)

    @property
    def width(self) -> int:
        return self.pixels + self.logits + (self.unknowns or 0)

    def unpack(self, point: Tensor) -> Parts:
        x, logits, unknowns = torch.split(point, [self.pixels, self.logits, self.unknowns or 0])
        return Parts(
            x.reshape(self.x_shape),
            None if self.classes is None else logits.reshape(self.x_shape[0], self.classes),
            None if self.unknowns is None else unknowns,
        )
