"""Who is exposed: the same noise hides some pictures and not others (I2F's second insight)."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe import Client
from gradleak.randomness import Rng, spawn
from gradleak.risk.influence import influence


@dataclass(frozen=True, eq=False)
class Fairness:
    """Every picture's own risk under the same noise, each as a batch of its own.

    ``psnr`` [n] is what an unbiased attacker without a prior reaches, and ``null_psnr`` what mid-gray does.
    """

    noise: float
    psnr: Tensor
    null_psnr: Tensor
    labels: Tensor

    @property
    def order(self) -> list[int]:
        """Pictures by their place, the most exposed first."""
        return [int(i) for i in self.psnr.argsort(descending=True)]

    @property
    def spread(self) -> float:
        """Decibels between the picture at the upper tenth and the one at the lower."""
        tenth, most = torch.quantile(self.psnr, torch.tensor([0.1, 0.9], dtype=self.psnr.dtype)).tolist()
        return float(most - tenth)

    @property
    def by_class(self) -> dict[int, float]:
        """The median picture of each class, in decibels, the most exposed class first."""
        classes = sorted(set(self.labels.tolist()))
        found = {c: statistics.median(self.psnr[self.labels == c].tolist()) for c in classes}
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    @property
    def verdict(self) -> str:
        first, last = self.order[0], self.order[-1]
        most, least = (f"picture {i} ({float(self.psnr[i]):.1f} dB)" for i in (first, last))
        return (
            f"At noise {self.noise:.3g}, {most} is the most exposed and {least} the least; between the upper "
            f"and the lower tenth lie {self.spread:.1f} dB."
        )


def fairness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    noise: float,
    client: Client | None = None,
    rng: Rng = 0,
    tell: Callable[[int, int], None] | None = None,
) -> Fairness:
    """Predict every picture's risk apart, and rank them. ``tell`` is told how many of all are done."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or len(x) != len(y) or len(x) < 2:
        came = f"{len(x)} pictures" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(f"expected two pictures or more with one label each, to compare them; came {came}")
    if y.is_floating_point():
        raise InvalidBatch("expected class indices, to compare classes; came soft labels")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 < noise < float("inf"):
        raise InvalidInput(f"expected noise as a std above 0; came {noise!r}")
    found, null = [], []
    for i, own in enumerate(spawn(rng, len(x))):
        if tell is not None:
            tell(i, len(x))
        one = influence(model, x[i : i + 1], y[i : i + 1], noise=float(noise), client=client, rng=own)
        found.append(one.psnr[0])
        null.append(one.null_psnr[0])
    return Fairness(float(noise), torch.stack(found), torch.stack(null), y.detach().cpu())
