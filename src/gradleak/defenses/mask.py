"""Random masking: every entry is dropped with the same chance (Kim and Park 2024)."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number
from gradleak.observe import Client
from gradleak.observe.uncertainty import both, told, uncertainty
from gradleak.trees import Tree, map_tree


@dataclass(frozen=True)
class Mask(Outgoing):
    """Each entry is 0 with chance ``rate``; ``rescaled`` divides what is kept by 1 − rate, so that the mean
    stays.

    What it drops is no secret: entries of exactly 0 are taken for dropped, whether they were or not.
    """

    rate: float = field(kw_only=True)
    rescaled: bool = field(default=False, kw_only=True)
    kept: Tree | None = field(default=None, kw_only=True, repr=False, compare=False)
    references: ClassVar[tuple[str, ...]] = ("masking",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("rate", self.rate, 0, 1, open_ends="]")

    @property
    def factor(self) -> float:
        return 1 / (1 - self.rate) if self.rescaled else 1.0

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        if not self.rate:
            return dict(update)

        def masked(leaf: Tensor) -> Tensor:
            stays = torch.rand(leaf.shape, generator=rng, dtype=torch.float64) >= self.rate
            return self.factor * leaf * stays.to(leaf)

        return map_tree(masked, update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        if self.kept is not None:
            return map_tree(lambda leaf, stays: self.factor * leaf * stays, update, self.kept)
        share = (1 - self.rate) * self.factor
        return dict(update) if share == 1 else map_tree(lambda leaf: share * leaf, update)

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        kept = map_tree(lambda leaf: (leaf != 0).to(leaf), update) if self.rate else None
        return replace(self, client=told(self.client, params, update, records), kept=kept)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """Of an entry that may have been dropped, nobody knows whether it was, the mean share is expected."""
        before = uncertainty(self.client, params, update, records, hidden=hidden)
        if not self.rate:
            return before
        if not hidden:
            seen = map_tree(lambda leaf: leaf != 0, update)
            return map_tree(lambda d, stays: torch.where(stays, self.factor * d, torch.inf), before, seen)
        share = self.rate**0.5  # of the size that was sent, which has lost this share of its squares
        size = map_tree(lambda leaf: leaf.double().square().mean().sqrt().expand(leaf.shape), update)
        return both(before, map_tree(lambda s: share * s, size))
