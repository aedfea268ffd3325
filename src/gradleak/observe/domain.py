"""Which values a picture can take: [0, 1] as the model sees them, after its normalisation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Domain:
    """The model sees (pixel − mean) / std with pixels in [0, 1]; one value per channel, or one for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not finite or len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise InvalidInput(
                "expected a normalisation of as many finite means as standard deviations, the latter above "
                f"0; came {self.mean} and {self.std}"
            )

    @classmethod
    def of(cls, normalization: tuple[Sequence[float], Sequence[float]] | None) -> "Domain":
        if normalization is None:
            return cls()
        try:
            mean, std = (tuple(map(float, values)) for values in normalization)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(
                "expected a normalisation (mean, std) of one number per channel each, like "
                f"((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)); came {normalization}"
            ) from error
        return cls(mean, std)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        mean, std = self._like(pixels)
        return (pixels - mean) / std

    def to_pixels(self, x: Tensor) -> Tensor:
        mean, std = self._like(x)
        return x * std + mean

    def clamp(self, x: Tensor) -> Tensor:
        """The nearest batch whose pixels lie in [0, 1]."""
        mean, std = self._like(x)
        return torch.maximum(torch.minimum(x, (1 - mean) / std), -mean / std)

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # Channels are the first axis after the batch: [B, C, ...].
        shape = (-1,) + (1,) * max(x.dim() - 2, 0)
        return x.new_tensor(self.mean).reshape(shape), x.new_tensor(self.std).reshape(shape)
