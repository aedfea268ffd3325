"""Pruning: only the largest entries go out (Lin et al. 2018 for bandwidth, Zhu et al. 2019 as a defense)."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number, one_of
from gradleak.observe import Client
from gradleak.observe.checks import check_fit
from gradleak.observe.uncertainty import told, uncertainty
from gradleak.trees import Tree, detached, flatten, map_tree, subtract


@dataclass(frozen=True)
class Prune(Outgoing):
    """The smallest ``fraction`` of the entries by magnitude are 0, of the whole update, or of each ``layer``.

    What is dropped is seen: it is 0. ``residual`` is what earlier rounds held back, which is added before
    pruning (error feedback): ``held_back`` is that of the next round. An attacker who assumes a client with
    one knows it; ``observe(..., assumed=...)`` takes the client without.
    """

    fraction: float = field(kw_only=True)
    per: str = field(default="update", kw_only=True)
    residual: Tree | None = field(default=None, kw_only=True, repr=False, compare=False)
    kept: Tree | None = field(default=None, kw_only=True, repr=False, compare=False)
    references: ClassVar[tuple[str, ...]] = ("dlg", "deep_gradient_compression")

    def __post_init__(self) -> None:
        super().__post_init__()
        number("fraction", self.fraction, 0, 1, open_ends="]")
        one_of("per", self.per, ("update", "layer"))

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return self.expected(update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        if self.residual is not None:
            check_fit("entries that were held back", self.residual, update)
            update = map_tree(lambda leaf, rest: leaf + rest.to(leaf), update, self.residual)
        kept = self.kept if self.kept is not None else self._largest(update)
        return dict(update) if kept is None else map_tree(lambda leaf, stays: leaf * stays, update, kept)

    def held_back(self, update: Tree) -> dict[str, Tensor]:
        """Of what the client would have sent unpruned, the residual of the next round."""
        whole = replace(self, fraction=0.0, kept=None).expected(update)
        return detached(subtract(whole, self.expected(update)))

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        kept = map_tree(lambda leaf: (leaf != 0).to(leaf), update) if self.fraction else None
        return replace(self, client=told(self.client, params, update, records), kept=kept)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """Dropped entries count as unseen: that they are small was never found to say more."""
        before = uncertainty(self.client, params, update, records, hidden=hidden)
        if not self.fraction or hidden:
            return before
        return map_tree(lambda d, leaf: torch.where(leaf != 0, d, torch.inf), before, update)

    def _largest(self, update: Tree) -> dict[str, Tensor] | None:
        if not self.fraction:
            return None
        if self.per == "layer":
            return map_tree(lambda leaf: self._above(leaf, leaf.flatten()), update)
        whole = flatten(update)
        return map_tree(lambda leaf: self._above(leaf, whole), update)

    def _above(self, leaf: Tensor, whole: Tensor) -> Tensor:
        """1 where the entry is larger than the smallest ``fraction`` of ``whole``."""
        dropped = round(self.fraction * whole.numel())
        if not dropped:
            return torch.ones_like(leaf)
        if dropped >= whole.numel():
            return (leaf.abs() >= whole.abs().max()).to(leaf)
        return (leaf.detach().abs() > whole.detach().abs().kthvalue(dropped).values).to(leaf)
