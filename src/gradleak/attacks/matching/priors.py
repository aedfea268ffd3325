"""What a picture is likely to look like, as a penalty on a batch ``x`` [B, ...] that the model takes.

``progress`` is the share of the trial's budget that is spent, for penalties that change on the way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gradleak.errors import InvalidInput
from gradleak.observe import Domain

Prior = Callable[[Tensor, Domain, Tensor], Tensor]


@dataclass(frozen=True)
class TotalVariation:
    """weight · (mean |horizontal step| + mean |vertical step|), anisotropic (Geiping et al. 2020).

    With ``final`` the weight falls from the one to the other, by the same factor at every step: large
    forms settle first, fine ones later.
    """

    weight: float
    final: float | None = None

    def __post_init__(self) -> None:
        weights = (self.weight,) if self.final is None else (self.weight, self.final)
        if not all(isinstance(w, int | float) and 0 < w < math.inf for w in weights):
            raise InvalidInput(
                f"expected a weight of total variation above 0, or two to fall between; came {weights}"
            )

    def at(self, progress: Tensor) -> Tensor:
        final = self.weight if self.final is None else self.final
        return self.weight * (final / self.weight) ** progress

    def __call__(self, x: Tensor, domain: Domain, progress: Tensor) -> Tensor:
        if x.dim() < 4:
            return x.new_zeros(())
        return self.at(progress) * (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean())


@dataclass(frozen=True)
class Energy:
    """weight · mean (pixel − ½)²: the L2 prior, with its mean at mid-gray."""

    weight: float

    def __call__(self, x: Tensor, domain: Domain, progress: Tensor) -> Tensor:
        return self.weight * (domain.to_pixels(x) - 0.5).square().mean()


@dataclass(frozen=True)
class Box:
    """weight · mean squared distance to [0, 1]: a soft box, for optimizers that cannot project."""

    weight: float

    def __call__(self, x: Tensor, domain: Domain, progress: Tensor) -> Tensor:
        pixels = domain.to_pixels(x)
        return self.weight * (pixels - pixels.clamp(0, 1)).square().mean()
