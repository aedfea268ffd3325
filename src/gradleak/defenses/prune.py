"""Pruning: only the largest entries go out (Lin et al. 2018 for bandwidth, Zhu et al. 2019 as a defense)."""

from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, number
from gradleak.errors import InvalidInput
from gradleak.observe import Client
from gradleak.observe.uncertainty import told, uncertainty
from gradleak.trees import Tree, flatten, map_tree


@dataclass(frozen=True)
class Prune(Outgoing):
    """The smallest ``fraction`` of the entries by magnitude are 0, of the whole update, or of each ``layer``.

    What is dropped is seen: it is 0.
    """

    fraction: float = field(kw_only=True)
    per: str = field(default="update", kw_only=True)
    kept: Tree | None = field(default=None, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("fraction", self.fraction, 0, 1, open_ends="]")
        if self.per not in ("update", "layer"):
            raise InvalidInput(f"expected per as 'update' or 'layer'; came {self.per!r}")

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return self.expected(update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        kept = self.kept if self.kept is not None else self._largest(update)
        return dict(update) if kept is None else map_tree(lambda leaf, stays: leaf * stays, update, kept)

    def told_by(self, params: Tree, update: Tree) -> Client:
        kept = map_tree(lambda leaf: (leaf != 0).to(leaf), update) if self.fraction else None
        return replace(self, client=told(self.client, params, update), kept=kept)

    def uncertainty(self, params: Tree, update: Tree, *, hidden: bool = False) -> dict[str, Tensor]:
        """Dropped entries count as unseen: that they are small was never found to say more."""
        before = uncertainty(self.client, params, update, hidden=hidden)
        if not self.fraction or hidden:
            return before
        return map_tree(lambda d, leaf: torch.where(leaf != 0, d, torch.inf), before, update)

    def _largest(self, update: Tree) -> dict[str, Tensor] | None:
        if not self.fraction:
            return None
        if self.per == "layer":
            return map_tree(lambda leaf: self._above(leaf, leaf), update)
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
