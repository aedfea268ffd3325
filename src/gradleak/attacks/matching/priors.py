"""What a picture is likely to look like, as a penalty on a batch ``x`` [B, ...] that the model takes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gradleak.observe import Domain

Prior = Callable[[Tensor, Domain], Tensor]


@dataclass(frozen=True)
class TotalVariation:
    """weight · (mean |horizontal step| + mean |vertical step|), anisotropic (Geiping et al. 2020)."""

    weight: float

    def __call__(self, x: Tensor, domain: Domain) -> Tensor:
        if x.dim() < 4:
            return x.new_zeros(())
        return self.weight * (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean())


@dataclass(frozen=True)
class Energy:
    """weight · mean (pixel − ½)²: the L2 prior, with its mean at mid-gray."""

    weight: float

    def __call__(self, x: Tensor, domain: Domain) -> Tensor:
        return self.weight * (domain.to_pixels(x) - 0.5).square().mean()


@dataclass(frozen=True)
class Box:
    """weight · mean squared distance to [0, 1]: a soft box, for optimizers that cannot project."""

    weight: float

    def __call__(self, x: Tensor, domain: Domain) -> Tensor:
        pixels = domain.to_pixels(x)
        return self.weight * (pixels - pixels.clamp(0, 1)).square().mean()
