"""How often each class can be in the batch: candidates, the likeliest first."""

import heapq
from collections.abc import Iterator

import torch
from torch import Tensor

from gradleak.attacks.closed_form.batch.descent import Head

_SURE = 8.0  # standard deviations of the noise


def present(head: Head) -> Tensor:
    """[classes]: True where the gradient proves that the class is in the batch.

    Row n of dW is Σ_k δ_kn h_k, features are not negative, and δ_kn < 0 only if y_k = n: a negative entry
    proves the class. The same holds for db, whatever the features are.
    """
    G = head.f.G if head.positive else head.f.G[:, -1:]
    return G.amin(1) < -_SURE * head.f.noise


def estimate(head: Head) -> Tensor:
    """[classes]: λ = B (p̄ − db), with p̄ the mean probabilities at the classes' mean features.

    Σ_k (p_k − e_{y_k}) / B = db. A class's row of dW over its entry of db is the mean of its records'
    features, where nobody else gives that class any probability.
    """
    f = head.f
    G, db = f.G[:, :-1], f.G[:, -1]
    proven = present(head) & (db < 0)
    plain = head.b.softmax(0)
    if not bool(proven.any()):
        return head.batch * (plain - db)
    H = G[proven] / db[proven, None]
    if head.positive:
        H = H.clamp_min(0)
    p = (H @ head.W.T + head.b).softmax(-1)
    weight = -db[proven]
    return head.batch * ((weight[:, None] * p).sum(0) / weight.sum() - db)


def multisets(wanted: Tensor, least: Tensor, total: int) -> Iterator[list[int]]:
    """Counts of sum ``total``, at least ``least``, by their distance to ``wanted``; every one in the end.

    Moving one record from a class to another leads from the nearest to all others.
    """
    first = tuple(_nearest(wanted, least, total))
    if sum(first) != total:
        return
    price = wanted.tolist()
    floor = least.tolist()

    def cost(counts: tuple[int, ...]) -> float:
        return float(sum((c - w) ** 2 for c, w in zip(counts, price, strict=True)))

    queue, known = [(cost(first), first)], {first}
    while queue:
        _, counts = heapq.heappop(queue)
        yield list(counts)
        for i, j in ((i, j) for i in range(len(counts)) if counts[i] > floor[i] for j in range(len(counts))):
            if i == j:
                continue
            moved = list(counts)
            moved[i], moved[j] = moved[i] - 1, moved[j] + 1
            fresh = tuple(moved)
            if fresh not in known:
                known.add(fresh)
                heapq.heappush(queue, (cost(fresh), fresh))


def _nearest(wanted: Tensor, least: Tensor, total: int) -> list[int]:
    counts = least.clone().long()
    while int(counts.sum()) < total:  # each record goes where it is missed most
        counts[int((wanted - counts).argmax())] += 1
    return [int(c) for c in counts]


def labels_of(counts: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
