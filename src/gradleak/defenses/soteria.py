"""Soteria: the classifier's gradient is pruned where features give pictures away (Sun et al. 2021)."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from gradleak.defenses.altered import altered, classifier, weight_of
from gradleak.defenses.base import Defense, number
from gradleak.errors import InvalidInput
from gradleak.observe import Client, Task
from gradleak.observe.uncertainty import told
from gradleak.trees import Tree

_AT_ONCE = 64  # features whose slopes are taken side by side


@dataclass(frozen=True)
class Soteria(Defense):
    """Of the classifier's weight gradient, the columns of a ``fraction`` of its features are 0.

    They are the features with the largest |r| / ‖dr/dx‖, on average over the batch: those in which a small
    change of the representation is a large one of the picture. Only this layer's gradient is changed; after
    local training, by the features as they were at the weights that came. Which columns are gone is seen.
    ``layer`` is the classifier unless it is named. It throws no dice: where something hides which columns are
    gone, whoever simulates it computes them, for the price of one backward pass for each feature.
    """

    fraction: float = field(kw_only=True)
    layer: str | None = field(default=None, kw_only=True)
    kept: Tensor | None = field(default=None, kw_only=True, repr=False, compare=False)
    references: ClassVar[tuple[str, ...]] = ("soteria",)

    def __post_init__(self) -> None:
        super().__post_init__()
        number("fraction", self.fraction, 0, 1, open_ends="]")

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        update = self.client(task, params, x, y)
        if not self.fraction:
            return update
        name = self.weight(update)
        kept = self.largest_gone(task, params, x) if self.kept is None else self.kept
        return update | {name: update[name] * kept.to(update[name])}

    def weight(self, update: Tree) -> str:
        """The name of the matrix whose columns are features."""
        name = weight_of(classifier(update) if self.layer is None else self.layer)
        if name not in update or update[name].dim() != 2:
            raise InvalidInput(
                f"expected the path of a linear layer whose weight is trained; came {self.layer!r}"
            )
        return name

    def largest_gone(self, task: Task, params: Tree, x: Tensor) -> Tensor:
        """1 for the features whose column stays."""
        ratio = self.exposure(task, params, x.detach())
        place = ratio.argsort(descending=True, stable=True).argsort()
        return (place >= round(self.fraction * len(ratio))).to(ratio)

    def exposure(self, task: Task, params: Tree, x: Tensor) -> Tensor:
        """|r| / ‖dr/dx‖ of every feature, its mean over the batch."""
        path = self.weight(params).removesuffix("weight").removesuffix(".")

        def features(x: Tensor) -> Tensor:
            found: list[Tensor] = []

            def look(r: Tensor) -> Tensor:
                found.append(r)
                return r

            altered(task, path, look).forward(params, x)
            return found[-1]

        r, back, *_ = torch.func.vjp(features, x)
        if r.dim() != 2:
            raise InvalidInput(
                f"expected one row of features per record in front of the layer; came shape {list(r.shape)}"
            )
        every = torch.eye(r.shape[1], dtype=r.dtype, device=r.device)

        def length(one: Tensor) -> Tensor:
            """‖dr/dx‖ of each record for one feature: no record's features depend on another's picture."""
            slope: Tensor = back(one.expand(r.shape))[0]
            lengths: Tensor = slope.flatten(1).norm(dim=1)
            return lengths

        slopes = torch.func.vmap(length, chunk_size=_AT_ONCE)(every).T
        # A dead feature has neither a value nor a slope, and hides nothing.
        return torch.where(r == 0, 0, r.abs() / slopes.clamp_min(torch.finfo(r.dtype).tiny)).mean(0)

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        inner = told(self.client, params, update, records)
        kept = (update[self.weight(update)] != 0).any(0) if self.fraction else None
        return replace(self, client=inner, kept=kept)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """A column of zeros counts as unseen, where columns are seen."""
        before = super().uncertainty(params, update, records, hidden=hidden)
        if not self.fraction or hidden:
            return before
        name = self.weight(update)
        return before | {name: torch.where((update[name] != 0).any(0), before[name], torch.inf)}
