"""How likely a row of words is as language, by a model of the attacker's own."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gradleak.errors import InvalidInput
from gradleak.text.adapter import TextModel

Fluency = Callable[[Tensor], Tensor]
"""From words [B, T] to nats per word [B]: the lower, the more like language."""


@dataclass(frozen=True, eq=False)
class Causal:
    """By a causal model, wrapped, that shares the vocabulary: its own loss for each text."""

    model: TextModel

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        logits = self.model(tokens)[:, :-1].transpose(1, 2)
        return cross_entropy(logits, tokens[:, 1:], reduction="none").mean(1)


@dataclass(frozen=True, eq=False)
class Bigrams:
    """By how often words followed each other in public texts; ``bigrams`` counts them.

    p(b | a) = trust · n(a, b) / n(a) + (1 − trust) · (n(b) + 1) / (N + V): a pair that was never seen counts
    as two words that stand together by chance.
    """

    pairs: Tensor  # a · V + b, ascending
    counts: Tensor
    words: Tensor  # n(b) [V]
    trust: float = 0.7

    def __call__(self, tokens: Tensor) -> Tensor:
        size = len(self.words)
        tokens = tokens.to(self.words.device)
        first, second = tokens[:, :-1], tokens[:, 1:]
        key = first * size + second
        at = torch.searchsorted(self.pairs, key).clamp_max(len(self.pairs) - 1)
        seen = torch.where(self.pairs[at] == key, self.counts[at], 0).double()
        after = seen / self.words[first].clamp_min(1)
        chance = (self.words[second] + 1) / (self.words.sum() + size)
        return -(self.trust * after + (1 - self.trust) * chance).log().mean(1)


def bigrams(texts: Iterable[Tensor], vocabulary: int, trust: float = 0.7) -> Bigrams:
    """The pairs of neighbours in public texts, each a row of words of ``vocabulary``, padding left out."""
    rows = [row.long().flatten() for row in texts]
    if not any(len(row) > 1 for row in rows) or not 0 < trust < 1:
        raise InvalidInput(
            "expected texts of two words or more and a trust between 0 and 1; came "
            f"{len(rows)} texts and {trust!r}"
        )
    every = torch.cat(rows)
    if not 0 <= int(every.min()) <= int(every.max()) < vocabulary:
        raise InvalidInput(
            f"expected words from 0 to {vocabulary - 1:,}; came {int(every.min())} to {int(every.max())}"
        )
    keys = torch.cat([row[:-1] * vocabulary + row[1:] for row in rows])
    pairs, counts = torch.unique(keys, return_counts=True)
    return Bigrams(pairs, counts, torch.bincount(every, minlength=vocabulary).double(), trust)
