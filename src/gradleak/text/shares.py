"""What each word and each position contributes to a gradient, where only sums over a batch were sent.

A layer reads x = g (c_w + c_p) / s_wp + b of each word, so its gradient Σ_t δ_t x_tᵀ is a sum of as many
outer products as there are words and positions. Their second factors are known and independent, so that
the first ones follow: Σ δ_t / s_t over the places where a word stands, and over the words at a position.
"""

from dataclasses import dataclass

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from gradleak.text.span import Span
from gradleak.text.table import Table

_ALONE = 0.8  # of a word's share that one position must hold, for it to stand there and nowhere else
_SAME_PLACE = 4.0  # the distance of two words at one position, which no sentence holds; others are up to 2


@dataclass(frozen=True, eq=False)
class Shares:
    words: Tensor  # [W, rows]
    positions: Tensor  # [P, rows]
    values: Tensor  # [W, d]: those of the words in the gradient of the values alone
    asked: Tensor | None  # [W, 2, d]: and in those of the queries and keys, where all three are whole


def shares(span: Span, table: Table, words: Tensor, length: int) -> Shares | None:
    """None where there are more words and positions than dimensions, or no whole gradient."""
    if not span.blocks:
        return None
    known = torch.cat((table.words[words], table.positions[:length])) * table.norm.weight
    known = torch.cat((known, table.norm.bias[None])) * span.basis.any(1)
    if len(known) > known.shape[1]:
        return None
    dual = span.basis @ (span.basis.T @ torch.linalg.pinv(known))  # noise beside the span is left out
    each = [block @ dual / torch.linalg.matrix_norm(block) for block in span.blocks]
    every, n = torch.cat(each), len(words)
    whole = [block.shape for block in span.blocks] == [known.shape[1:] * 2] * 3
    asked = torch.stack([one[:, :n].T for one in each[:2]], 1) if whole else None
    return Shares(every[:, :n].T, every[:, n:-1].T, each[-1][:, :n].T, asked)


def places(words: Tensor, positions: Tensor) -> Tensor:
    """C [W, P], 1 where a word stands once and 0 elsewhere; a word that stands twice smears.

    One vector per place goes into the share of its word and into that of its position, so that the
    positions' shares are sums of the words': positions = Cᵀ words, by least squares.
    """
    scale = words.norm(dim=1, keepdim=True).clamp_min(torch.finfo(words.dtype).tiny)
    C: Tensor = torch.linalg.lstsq((words / scale).T, positions.T, driver="gelsd").solution / scale
    return C


def standing_once(C: Tensor) -> Tensor:
    """The words [W] of which all is at one position."""
    top = C.abs().topk(min(2, C.shape[1]), dim=1).values
    once = (top[:, 0] > _ALONE) & (top[:, 0] < 2 - _ALONE)
    return once & (top[:, -1] < 1 - _ALONE) if C.shape[1] > 1 else once


def sentences_of(values: Tensor, positions: Tensor, count: int) -> Tensor:
    """Which of ``count`` sentences each word belongs to, by the gradient of its value.

    That is Σ_t a_ts δ_t over the sentence, and attention a is broad in a first layer: words of one sentence
    have much the same. Words at one position are of different sentences.
    """
    if len(values) < 2:
        return torch.zeros(len(values), dtype=torch.int64)
    directions = torch.nn.functional.normalize(values, dim=1)
    apart = 1 - directions @ directions.T
    apart = apart.masked_fill(positions[:, None] == positions, _SAME_PLACE).clamp_min(0).fill_diagonal_(0)
    tree = linkage(squareform(apart.cpu().numpy(), checks=False), method="average")
    return torch.from_numpy(fcluster(tree, count, criterion="maxclust")).long() - 1
