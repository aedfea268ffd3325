"""Sentences of a decoder, word by word: in the second layer a word depends on those before it alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.text.architecture import Anatomy
from gradleak.text.block import Heard
from gradleak.text.span import Span
from gradleak.text.table import Table

_AT_ONCE = 2**24  # numbers in one batch of continuations


@dataclass(frozen=True, eq=False)
class Grown:
    """Sentences that cannot be continued, the largest χ²/k of each, and how much was tested."""

    sentences: tuple[Tensor, ...]
    worst: tuple[float, ...]
    tests: int
    widest: int  # prefixes that were held at once
    cut: bool  # whether prefixes were given up, since there were too many
    tries: int = 1


def decode_causal(
    parts: Anatomy, table: Table, second: Span, pairs: Tensor, bound: float, most: int
) -> Grown:
    """Every sentence of ``pairs`` (word, position) all of whose words the second layer has read.

    A prefix is kept while its last word passes, since its other words passed before.
    """
    grower = _Grower(parts, table, second, bound, most)
    prefixes, ended, ended_worst = grower.start(pairs), [], []
    for position in range(1, int(pairs[:, 1].max()) + 2):
        words = pairs[pairs[:, 1] == position, 0]
        grown, parents = grower.longer(prefixes, words, position)
        alone = torch.ones(len(prefixes.words), dtype=torch.bool)
        alone[parents] = False
        ended += list(prefixes.words[alone])
        ended_worst += prefixes.worst[alone].tolist()
        prefixes = grown
        if not len(prefixes.words):
            break
    return Grown(tuple(ended), tuple(ended_worst), grower.tests, grower.widest, grower.cut)


@dataclass(frozen=True, eq=False)
class _Prefixes:
    words: Tensor  # [n, length]
    keys: Tensor  # [n, length, heads, d / heads]
    values: Tensor
    worst: Tensor  # [n]


class _Grower:
    """Counts what it tests."""

    def __init__(self, parts: Anatomy, table: Table, second: Span, bound: float, most: int) -> None:
        self.parts, self.table, self.second, self.bound, self.most = parts, table, second, bound, most
        self.tests, self.widest, self.cut = 0, 0, False

    def start(self, pairs: Tensor) -> _Prefixes:
        heads = self.parts.block.heads
        size = self.table.words.shape[1] // heads
        none = self.table.words.new_zeros(1, 0, heads, size)
        empty = _Prefixes(pairs.new_zeros(1, 0), none, none, none.new_zeros(1))
        return self.longer(empty, pairs[pairs[:, 1] == 0, 0], 0)[0]

    def longer(self, prefixes: _Prefixes, words: Tensor, position: int) -> tuple[_Prefixes, Tensor]:
        """The prefixes one word longer, and which prefix each has grown from."""
        heard = self.parts.hear(words, torch.full_like(words, position))
        rows = max(1, _AT_ONCE // max(1, heard.stream.numel() * 4))
        ratios = [self._ratios(prefixes, i, rows, heard) for i in range(0, len(prefixes.words), rows)]
        ratio = torch.cat(ratios) if ratios else prefixes.worst.new_zeros(0, len(words))
        self.tests += ratio.numel()
        found = (ratio <= self.bound).nonzero()
        if len(found) > self.most:
            self.cut = True
            found = found[ratio[tuple(found.T)].argsort()[: self.most]]
        self.widest = max(self.widest, len(found))
        parent, word = found.T
        worst = torch.maximum(prefixes.worst[parent], ratio[parent, word])
        grown = _Prefixes(
            torch.cat((prefixes.words[parent], words[word, None]), 1),
            torch.cat((prefixes.keys[parent], heard.key[word, None]), 1),
            torch.cat((prefixes.values[parent], heard.value[word, None]), 1),
            worst,
        )
        return grown, parent

    def _ratios(self, prefixes: _Prefixes, start: int, rows: int, heard: Heard) -> Tensor:
        some = slice(start, start + rows)
        out = self.parts.block.continued(prefixes.keys[some], prefixes.values[some], heard)
        return self.second.test(self.parts.reads(out))
