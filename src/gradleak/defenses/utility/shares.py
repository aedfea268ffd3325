"""Whose records are whose: a data set split over participants, evenly mixed or skewed by label."""

from bisect import bisect
from itertools import accumulate

import torch
from torch import Generator, Tensor


def shares(y: Tensor, participants: int, alpha: float | None, rng: Generator) -> list[Tensor]:
    """The records of each participant: every record once, and shares that differ in size by one at most.

    Without ``alpha`` they are shuffled. With it, each participant's mix of labels is drawn from a Dirichlet
    distribution (Hsu et al. 2019): below 1 most of its records have a few labels, and from 100 on all mixes
    are nearly alike. What earlier participants have taken is gone, so that later ones take what is left.
    """
    order = torch.randperm(len(y), generator=rng)
    if alpha is None:
        return list(order.tensor_split(participants))
    labels = y.cpu()[order]
    pools = [order[labels == label].tolist() for label in sorted(set(labels.tolist()))]
    sizes = [len(part) for part in order.tensor_split(participants)]
    return [torch.tensor(share) for share in _skewed(pools, sizes, alpha, rng)]


def _skewed(pools: list[list[int]], sizes: list[int], alpha: float, rng: Generator) -> list[list[int]]:
    """Records drawn one by one from an urn, which is the same as drawing a mix and then records by it.

    A label comes with the weight of ``alpha``, scaled by how frequent it is in all, and 1 for each time that
    the participant has drawn it already. The urn needs no gamma variates, which underflow for a small alpha.
    """
    typical = sum(map(len, pools)) / len(pools)
    prior = [alpha * len(pool) / typical for pool in pools]
    found = []
    for size in sizes:
        weights, share = list(prior), []
        for chance in torch.rand(size, generator=rng, dtype=torch.float64).tolist():
            bounds = list(accumulate(w if pool else 0.0 for w, pool in zip(weights, pools, strict=True)))
            label = bisect(bounds, chance * bounds[-1])
            share.append(pools[label].pop())
            weights[label] += 1
        found.append(share)
    return found
