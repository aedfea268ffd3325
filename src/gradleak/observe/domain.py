"""Which values a picture can take: [0, 1] as the model sees them, after its normalisation."""

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
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise InvalidInput(
                "expected a normalisation of as many means as standard deviations, the latter above 0; "
                f"came {self.mean} and {self.std}"
            )

    @classmethod
    def of(cls, normalization: tuple[Sequence[float], Sequence[float]] | None) -> "Domain":
        if normalization is None:
            return cls()
        mean, std = normalization
        return cls(tuple(map(float, mean)), tuple(map(float, std)))

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
