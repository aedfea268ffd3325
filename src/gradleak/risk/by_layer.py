"""Which layer leaks: how near an attacker would come to each sample who sees one layer's part alone.

The other way would be to ask what is lost when a layer is left out. In most networks several layers tell
enough, so that this would be near nothing for each of them. A layer that is at the null tells nothing by
itself; one that is far above it has to be hidden, whatever is done about the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradleak.observe import Client, Observation, Task
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.prior import prior_of
from gradleak.observe.seen import Seen
from gradleak.randomness import Rng
from gradleak.risk.decibels import Decibels, from_products, from_the_gram
from gradleak.trees import Tree

LEAK = 6.0
"""Decibels above a guess without the update from which something is recoverable: a quarter of its error."""
MOST = 24  # rows
_STEPS = 40  # of Lanczos: enough for a hundred directions, and an upper end for more


@dataclass(frozen=True, eq=False)
class Alone:
    """One layer's row: the decibels of every sample, and how many directions the layer shows.

    ``at_most``: the few steps that were taken did not settle the row, which errs towards too much leakage;
    NaN is a sample of which they say no more than the whole update does. ``kind`` is the layer's class.
    """

    path: str
    psnr: Tensor
    dimensions: float
    at_most: bool = False
    kind: str = ""

    @property
    def name(self) -> str:
        """The path, with the kind of a layer that has a number for its name."""
        return titled(self.path, self.kind)

    @property
    def open(self) -> list[bool]:
        """Of which samples the number is an upper end, or none at all."""
        return [self.at_most or psnr != psnr for psnr in self.psnr.tolist()]

    def leaking(self, nulls: Sequence[float]) -> list[bool]:
        """Of which samples the layer alone tells more than a guess without it does, for sure."""
        pairs = zip(self.psnr.tolist(), nulls, strict=True)
        return [not self.at_most and psnr - null >= LEAK for psnr, null in pairs]

    def to_dict(self) -> dict[str, Any]:
        psnr = [v if abs(v) < inf else str(v) for v in self.psnr.tolist()]
        facts = {"path": self.path, "kind": self.kind, "psnr": psnr, "dimensions": self.dimensions}
        return facts | {"at_most": self.at_most}


@dataclass(frozen=True)
class _Part:
    """What ``client`` sends of some parameters."""

    client: Client
    names: frozenset[str]

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {n: leaf for n, leaf in self.client(task, params, x, y).items() if n in self.names}


def alone(
    obs: Observation, x: Tensor, y: Tensor, weights: Tree, whole: Decibels, *, dense: bool, rng: Rng
) -> tuple[Alone, ...]:
    """A row per layer, in the update's order.

    No row goes above what the ``whole`` update gives away: no part tells more.
    """
    obs, x, y = in_double(obs, x, y)
    prior = prior_of(obs.x_shape, obs.domain, obs.like)
    rows = []
    for path, names in layers_of(obs.update).items():
        part = replace(obs, client=_Part(obs.told_client, frozenset(names)))
        if not reached(part, x, y).any():
            rows.append(Alone(path, whole.null_psnr, 0.0, kind=kind_of(obs.model, path)))
            continue
        seen = Seen(Jacobian(part, x, y, {name: weights[name] for name in names}), prior)
        found = (
            from_the_gram(seen, (1.0,)) if dense else from_products(seen, (1.0,), rng, draws=1, steps=_STEPS)
        )
        psnr, most, bound = best(found), best(whole), not found.converged
        if bound:
            psnr = torch.where(psnr < most, psnr, torch.nan)
        seen_of, kind = float(found.dimensions[0]), kind_of(obs.model, path)
        rows.append(Alone(path, torch.minimum(psnr, most), seen_of, bound, kind))
    return tuple(rows)


def titled(path: str, kind: str) -> str:
    """What to call a layer: a number alone, as in nn.Sequential, says nothing."""
    return f"{path} ({kind})" if kind and path.rpartition(".")[2].isdigit() else path


def kind_of(model: nn.Module, path: str) -> str:
    module = dict(model.named_modules()).get(path)
    return "" if module is None else type(module).__name__


def best(found: Decibels) -> Tensor:
    """By sample, of the attacker who knows how pictures are made and the one who does not, the better."""
    return torch.fmax(found.psnr[0], found.unbiased[0])


def layers_of(update: Tree) -> dict[str, list[str]]:
    """The parameters' names by the path of the layer that has them, or of its block where layers are many."""
    paths = {name: name.split(".")[:-1] or ["the model"] for name in update}
    for depth in range(max(map(len, paths.values())), 0, -1):
        found: dict[str, list[str]] = {}
        for name, path in paths.items():
            found.setdefault(".".join(path[:depth]), []).append(name)
        if len(found) <= MOST:
            return found
    return {}


def reached(obs: Observation, x: Tensor, y: Tensor) -> Tensor:
    """Which entries of the batch the update answers to, as a random mixture of its entries shows."""
    rng = Generator().manual_seed(0)
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        mixed = [
            (part * torch.randn(part.shape, generator=rng, dtype=torch.float64).to(part)).sum()
            for part in obs.simulate(leaf, y).values()
        ]
        total = torch.stack(mixed).sum()
        if not total.requires_grad:
            return torch.zeros_like(x, dtype=torch.bool)
        (slope,) = torch.autograd.grad(total, leaf, allow_unused=True, materialize_grads=True)
    return slope != 0


def in_double(obs: Observation, x: Tensor, y: Tensor) -> tuple[Observation, Tensor, Tensor]:
    obs = obs.to(torch.float64)
    like = obs.like
    return (
        obs,
        x.detach().to(like),
        y.detach().to(like.device, like.dtype if y.is_floating_point() else y.dtype),
    )
