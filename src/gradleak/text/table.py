"""Every word at every position against a span, without writing one of these vectors down."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.text.block import Norm
from gradleak.text.span import Span


@dataclass(frozen=True, eq=False)
class Table:
    """Word and position embeddings, centred, and the LayerNorm of their sums.

    LN(e_w + e_p) = g (c_w + c_p) / s_wp + b, whose square under a matrix needs products of words with
    positions only: two of [V, d] with [d, P] in all.
    """

    words: Tensor  # c_W [V, d]
    positions: Tensor  # c_P [P, d]
    norm: Norm

    @classmethod
    def of(cls, words: Tensor, positions: Tensor, norm: Norm) -> "Table":
        return cls(_centred(words), _centred(positions), norm)

    def read(self, words: Tensor, positions: Tensor) -> Tensor:
        """The vectors of some pairs [..., d], as the first layer reads them."""
        return self.norm(self.words[words] + self.positions[positions])

    def scale(self, words: Tensor, positions: Tensor) -> Tensor:
        """1 / s of some pairs."""
        summed = self.words[words] + self.positions[positions]
        return (summed.square().mean(-1) + self.norm.eps).rsqrt()

    def ratios(self, span: Span) -> Tensor:
        """χ²/k of every pair [V, P].

        Sums of large terms that cancel leave an error of 1e-16 of them, so the ratio of a pair that passes
        is to be computed again from its vector.
        """
        inverse = self._inverse_scales()
        outside, inside, length = (self._squares(B, inverse) for B in (span.null.T, span.weighted.T, None))
        slack = torch.finfo(outside.dtype).eps * 64 * length
        return span.ratio((outside - slack).clamp_min(0), inside.clamp_min(0), length)

    def passing(self, span: Span, bound: float) -> Tensor:
        """The pairs [n, 2] of word and position whose vectors the span may hold."""
        pairs = (self.ratios(span) <= bound).nonzero()
        return pairs[span.test(self.read(*pairs.T)) <= bound]

    def likeliest(self, span: Span, count: int) -> Tensor:
        """The ``count`` pairs at each position that are nearest to the span."""
        nearest = self.ratios(span).topk(min(count, len(self.words)), dim=0, largest=False).indices
        places = torch.arange(len(self.positions), device=nearest.device).expand(nearest.shape)
        return torch.stack((nearest.flatten(), places.flatten()), 1)

    def _inverse_scales(self) -> Tensor:
        d = self.words.shape[1]
        squares = self.words.square().sum(1)[:, None] + self.positions.square().sum(1)
        squares = squares + 2 * self.words @ self.positions.T
        return (squares.clamp_min(0) / d + self.norm.eps).rsqrt()

    def _squares(self, B: Tensor | None, inverse: Tensor) -> Tensor:
        """‖B v‖² of every pair; without B, ‖v‖²."""
        A, Q, n = (self._seen(B, x) for x in (self.words, self.positions, None))
        cross = A.square().sum(1)[:, None] + Q.square().sum(1) + 2 * A @ Q.T
        line = (A @ n)[:, None] + Q @ n
        return cross * inverse.square() + 2 * line * inverse + n.square().sum()

    def _seen(self, B: Tensor | None, x: Tensor | None) -> Tensor:
        vectors = self.norm.bias if x is None else x * self.norm.weight
        return vectors if B is None else vectors @ B.T


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)
