"""Dropout in front of the classifier, as a defense (Zheng 2021)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.altered import Change, altered, classifier, layer_of, weight_of
from gradleak.defenses.base import Defense, number
from gradleak.errors import InvalidInput
from gradleak.observe import Client, Observation, Task, Trained
from gradleak.observe.uncertainty import both, told
from gradleak.trees import Tree, map_tree

if TYPE_CHECKING:
    from gradleak.defenses.learnt_mask import LearntMask


@dataclass(frozen=True)
class Dropout(Defense):
    """Each feature of each record is dropped with chance ``rate``, and what stays is divided by 1 − rate.

    The mask falls on the input of ``layer``, by default of the classifier: the layer whose weight is the
    last matrix that is trained. Every step throws anew. Without dice nothing is dropped, which is the mean.

    A linear layer's weight gradient has a column of zeros for a feature that all records dropped, in all
    steps. Of one record in one step that is the whole mask; of a batch, only those columns. A feature that
    is itself 0, as behind a ReLU, looks the same and makes no difference. Where something else sets
    entries to 0 afterwards, a column of zeros is still taken for a dropped feature.
    """

    rate: float = field(kw_only=True)
    layer: str | None = field(default=None, kw_only=True)
    mask: Tensor | None = field(default=None, kw_only=True, repr=False, compare=False)
    references: ClassVar[tuple[str, ...]] = ("dropout",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("rate", self.rate, 0, 1, open_ends="]")

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if not self.rate:
            return self.client(task, params, x, y)
        path, change = self.path(params), self._change()
        layer_of(task.model, path)
        return self.client(altered(task, path, change) if change else task, params, x, y)

    def path(self, params: Tree) -> str:
        return classifier(params) if self.layer is None else self.layer

    def learnt(self, seen: Observation) -> "LearntMask":
        """The open client of an attacker who learns what the update does not show of the masks."""
        from gradleak.defenses.learnt_mask import LearntMask

        return LearntMask.of(self, seen)

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        """With the mean of the masks that are possible, unless the mask is known, or has been learnt."""
        inner, mask = told(self.client, params, update, records), self.mask
        shown = self.shown(params, update)
        if mask is None and shown is not None:
            mean = shown.to(params[self._weight(params)]) / (1 - self.rate ** self._masks(records))
            mask = torch.where(shown.any(), mean, 1)  # a layer that was not sent shows nothing
        return replace(self, client=inner, mask=mask)

    def shown(self, params: Tree, update: Tree) -> Tensor | None:
        """1 for the features that somebody kept, as the update shows it; None where it does not."""
        weight = update.get(self._weight(params)) if self.rate else None
        return None if weight is None or weight.dim() != 2 else (weight != 0).any(0)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """The scatter of the masks that are not seen, as a share of each tensor's size.

        A rough figure: entries differ in how much they depend on the mask.
        """
        before = super().uncertainty(params, update, records, hidden=hidden)
        masks = self._masks(records)
        kept = 1.0 if hidden or self.shown(params, update) is None else 1 - self.rate**masks
        share = max(kept / (1 - self.rate) - 1, 0.0) ** 0.5
        if share < 1e-6:
            return before
        size = map_tree(lambda leaf: leaf.double().square().mean().sqrt().expand(leaf.shape), update)
        return both(before, map_tree(lambda s: share * s, size))

    def _change(self) -> Change | None:
        if self.dice is not None:
            rng = Generator().manual_seed(self.dice)
            return lambda features: features * self._thrown(features, rng)
        mask = self.mask
        return None if mask is None else lambda features: features * mask.to(features)

    def _weight(self, params: Tree) -> str:
        return weight_of(self.path(params))

    def _masks(self, records: int) -> int:
        """How many masks fall on one feature, which all have to drop it for a column of zeros."""
        return max(records, self.client.steps(records) if isinstance(self.client, Trained) else 1)

    def _thrown(self, features: Tensor, rng: Generator) -> Tensor:
        stays = torch.rand(features.shape, generator=rng, dtype=torch.float64) >= self.rate
        if not bool(stays.any()):
            raise InvalidInput(
                f"dropout of rate {self.rate:g} dropped all {stays.numel()} features, so that the update "
                "says nothing of the pictures. Take a smaller rate."
            )
        return stays.to(features) / (1 - self.rate)
