"""Which words stand in one text with a given word, by what the first layer's attention asks of it.

A query's gradient is a sum of its own text's keys, and a key's is one of its queries. Both are known of all
pairs of word and position that may stand. So a word's gradients are sums of few known vectors: in every head
other sums, but of the same words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.text.block import Heard

_ROUNDS = 40
_UNEXPLAINED = 1e-3  # of a gradient
_GONE = 1e-6  # times the likeliest: a pair that weighs less is given up


@dataclass(frozen=True, eq=False)
class Asking:
    asked: Tensor  # [n, 2 heads, d / heads], gradients of the queries and the keys of each pair's word
    heard: Tensor  # [2 heads, d / heads, n], keys and queries of the pairs

    @classmethod
    def of(cls, gradients: Tensor, heard: Heard) -> "Asking":
        """``gradients`` [n, 2, d] of the queries and keys."""
        both = torch.cat((heard.key, heard.query), 1)
        scale = both.square().sum(-1).mean(0).sqrt()[:, None]
        asked = gradients.reshape(both.shape)
        return cls(
            _unit(asked, asked.norm(dim=-1, keepdim=True)),
            _unit(both, scale).permute(1, 2, 0),
        )

    def company(self, pair: int, prior: Tensor) -> Tensor:
        """How much each pair [n] takes part in the text of one whose word stands nowhere else; most do not.

        Sparse Bayesian learning: each pair has a variance for what it adds, the same in all heads, and those
        variances are learnt under which the gradients are likeliest. ``prior`` is where they start.
        """
        left, heard, target = (
            prior.nonzero().flatten(),
            self.heard[..., prior > 0],
            self.asked[pair, ..., None],
        )
        variance = prior[left] / prior.sum()
        noise = _UNEXPLAINED**2 * torch.eye(len(target[0])).to(heard)
        for _ in range(_ROUNDS):
            root = torch.linalg.cholesky((heard * variance) @ heard.mT + noise)
            white = torch.linalg.solve_triangular(root, heard, upper=False)
            wanted = torch.linalg.solve_triangular(root, target, upper=False)
            agreement = (white * wanted).sum(1).square().sum(0) / white.square().sum((0, 1))
            variance = variance * agreement.sqrt()
            stay = variance > _GONE * variance.max()
            left, heard, variance = left[stay], heard[..., stay], variance[stay]
        return torch.zeros_like(prior).index_put((left,), variance)


def _unit(x: Tensor, scale: Tensor) -> Tensor:
    return x / scale.clamp_min(torch.finfo(x.dtype).tiny)
