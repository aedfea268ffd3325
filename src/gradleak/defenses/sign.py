"""Signs: of every entry, only whether it goes up or down (signSGD, Bernstein et al. 2018)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, straight_through
from gradleak.trees import Tree, map_tree

_STEP = 2.0  # from −1 to 1


@dataclass(frozen=True)
class Sign(Outgoing):
    """Sends 1, −1 or 0 for every entry, and no magnitude at all.

    The sign is a rounding to one bit. What it rounds is where an entry stands among those of its tensor,
    erf(g / √2σ) from −1 to 1, which is even if they are normal, and then off by one step of 2, evenly.
    That smooth number is what an attacker simulates; σ is read off the mean magnitude of what he simulates,
    since none is sent. Entries with heavier tails are off by more.
    """

    references: ClassVar[tuple[str, ...]] = ("signsgd",)

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return map_tree(lambda leaf: straight_through(leaf.sign(), leaf), update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        def standing(leaf: Tensor) -> Tensor:
            mean = leaf.abs().mean()
            # √2 σ of normal entries; where all are 0, so is what is divided.
            return torch.erf(leaf / (math.sqrt(math.pi) * torch.where(mean > 0, mean, 1)))

        return map_tree(standing, update)

    def gradient_of(self, params: Tree, update: Tree, records: int) -> None:
        """None: signs are no gradient."""
        return

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """One step, evenly, for what is seen; noise that was added before is not counted on top."""
        before = super().uncertainty(params, update, records, hidden=hidden)
        return map_tree(lambda d: torch.where(d.isfinite(), _STEP / math.sqrt(12), d), before)
