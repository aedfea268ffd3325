"""What a picture is likely to look like, as a penalty on a candidate."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.matching.candidate import Candidate
from gradleak.attacks.matching.optimizers.base import is_number
from gradleak.errors import InvalidInput


def require_weight(weight: float) -> None:
    if not is_number(weight) or not 0 <= weight < math.inf:
        raise InvalidInput(f"expected the weight of a prior as a finite number of 0 or more; came {weight!r}")


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

    def __call__(self, candidate: Candidate) -> Tensor:
        x = candidate.x
        if x.dim() < 4:
            return x.new_zeros(())
        return self.at(candidate.progress) * (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean())


@dataclass(frozen=True)
class Energy:
    """weight · mean (pixel − ½)²: the L2 prior, with its mean at mid-gray."""

    weight: float

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, candidate: Candidate) -> Tensor:
        return self.weight * (candidate.pixels - 0.5).square().mean()


@dataclass(frozen=True)
class Box:
    """weight · mean squared distance to [0, 1]: a soft box, for optimizers that cannot project."""

    weight: float

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, candidate: Candidate) -> Tensor:
        pixels = candidate.pixels
        return self.weight * (pixels - pixels.clamp(0, 1)).square().mean()


@dataclass(frozen=True)
class Stretch:
    """weight · mean squared distance to the picture stretched over [0, 1], as general deep leakage has it.

    Geng et al. (2021) name the term and leave open what is scaled: here every picture of the batch by itself.
    """

    weight: float

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, candidate: Candidate) -> Tensor:
        pixels = candidate.pixels
        flat = pixels.detach().flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        shape = (-1,) + (1,) * (pixels.dim() - 1)
        stretched = (pixels.detach() - low.reshape(shape)) / (high - low).clamp(min=1e-6).reshape(shape)
        return self.weight * (pixels - stretched).square().mean()


@dataclass(frozen=True)
class Agreement:
    """weight · mean over the records of ‖softmax(F(x)) − y‖²: the pictures look like their labels (CPL).

    Wei et al. (2020) write ‖F(x) − y‖² and do not say whether F ends in logits or in probabilities: here
    it is probabilities, the only ones that can reach a one-hot label.
    """

    weight: float

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, candidate: Candidate) -> Tensor:
        probabilities = candidate.task.forward(candidate.params, candidate.x).softmax(-1)
        y = candidate.y
        if not y.is_floating_point():
            classes = torch.arange(probabilities.shape[-1], device=y.device)
            y = (y[:, None] == classes).to(probabilities)
        return self.weight * (probabilities - y).square().sum(-1).mean()
