"""Sentences of a decoder, word by word: in the second layer a word depends on those before it alone."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.text.architecture import Anatomy
from gradleak.text.block import Heard
from gradleak.text.span import Span
from gradleak.text.table import Table

_AT_ONCE = 2**24  # numbers in one batch of continuations
_UNLIKELIER = 60.0  # in χ²: a prefix for which a word is so much likelier behind another one


@dataclass(frozen=True, eq=False)
class Grown:
    """Sentences that cannot be continued, χ²/k of each of their words, and how much was tested."""

    sentences: tuple[Tensor, ...]
    ratios: tuple[Tensor, ...]
    tests: int
    widest: int  # prefixes that were held at once
    cut: bool  # whether prefixes were given up, since there were too many
    rival: float = math.inf  # the smallest such of a sentence that was passed over for others
    tries: int = 1

    @property
    def worst(self) -> tuple[float, ...]:
        return tuple(float(one.max()) for one in self.ratios)

    def read(self, bound: float) -> set[tuple[int, ...]]:
        """The different beginnings whose last word passes."""
        pairs = zip(self.sentences, self.ratios, strict=True)
        return {
            start
            for words, ratios in pairs
            for start, ratio in zip(_beginnings(words), ratios.tolist(), strict=True)
            if ratio <= bound
        }


def trimmed(grown: Grown, bound: float, rank: int) -> Grown:
    """Without last words that do not pass, where those that do fill the span already."""
    if len(grown.read(bound)) < rank:
        return grown
    ends = [_end(ratios, bound) for ratios in grown.ratios]
    return replace(
        grown,
        sentences=tuple(words[:end] for words, end in zip(grown.sentences, ends, strict=True) if end),
        ratios=tuple(ratios[:end] for ratios, end in zip(grown.ratios, ends, strict=True) if end),
    )


def _end(ratios: Tensor, bound: float) -> int:
    """Behind the last word that passes, or that is in doubt for another reason."""
    kept = ((ratios <= bound) | ratios.isinf()).nonzero()
    return int(kept.max()) + 1 if len(kept) else 0


def decode_causal(
    parts: Anatomy, table: Table, second: Span, pairs: Tensor, bound: float, most: int, count: int
) -> Grown:
    """Every sentence of ``pairs`` (word, position) all of whose words the second layer has read.

    A prefix is kept while its last word passes, since its other words passed before. Noise lets a word pass
    behind several prefixes, so that those are then left out that another is far likelier than, and the
    ``count`` sentences chosen that explain most.
    """
    grower = _Grower(parts, table, second, bound, most)
    prefixes, ended = grower.start(pairs), []
    for position in range(1, int(pairs[:, 1].max()) + 2):
        words = pairs[pairs[:, 1] == position, 0]
        grown, parents = grower.longer(prefixes, words, position)
        alone = torch.ones(len(prefixes.words), dtype=torch.bool)
        alone[parents] = False
        ended += list(zip(prefixes.words[alone], prefixes.ratios[alone], strict=True))
        prefixes = grown
        if not len(prefixes.words):
            break
    chosen = _chosen(ended, bound, count) if second.noisy else list(range(len(ended)))
    passed = [float(one.max()) for i, (_, one) in enumerate(ended) if i not in chosen]
    sentences = [ended[i][0] for i in chosen]
    ratios = [ended[i][1] for i in chosen]
    if second.noisy:
        ratios = [_doubted(parts, second, bound, i, sentences, one) for i, one in enumerate(ratios)]
    return Grown(
        tuple(sentences),
        tuple(ratios),
        grower.tests,
        grower.widest,
        grower.cut,
        min(passed, default=math.inf),
    )


def _chosen(ended: list[tuple[Tensor, Tensor]], bound: float, count: int) -> list[int]:
    """One sentence after another, each that which explains most of what is left."""
    listed = [list(zip(_beginnings(words), ratios.tolist(), strict=True)) for words, ratios in ended]
    explained: set[tuple[int, ...]] = set()
    chosen: list[int] = []
    for _ in range(min(count, len(ended))):
        gains = [sum(bound - z for start, z in one if start not in explained) for one in listed]
        best = max(range(len(gains)), key=gains.__getitem__)
        if gains[best] <= 0:
            break
        chosen.append(best)
        explained.update(start for start, _ in listed[best])
    return chosen


def _doubted(
    parts: Anatomy, second: Span, bound: float, i: int, sentences: list[Tensor], ratios: Tensor
) -> Tensor:
    """No trust in a last word that another sentence has in the same place, where noise hides whose it is."""
    last = len(ratios) - 1
    own = parts.second_reading(sentences[i])[last]
    for j, other in enumerate(sentences):
        same = j != i and len(other) > last and bool(other[last] == sentences[i][last])
        if same and second.without(own, parts.second_reading(other[: last + 1])[last]) <= bound:
            return torch.cat((ratios[:-1], ratios.new_tensor([math.inf])))
    return ratios


def _beginnings(words: Tensor) -> list[tuple[int, ...]]:
    return [tuple(words[: i + 1].tolist()) for i in range(len(words))]


@dataclass(frozen=True, eq=False)
class _Prefixes:
    words: Tensor  # [n, length]
    keys: Tensor  # [n, length, heads, d / heads]
    values: Tensor
    ratios: Tensor  # [n, length]: χ²/k of each word


class _Grower:
    """Counts what it tests."""

    def __init__(self, parts: Anatomy, table: Table, second: Span, bound: float, most: int) -> None:
        self.parts, self.table, self.second, self.bound, self.most = parts, table, second, bound, most
        self.tests, self.widest, self.cut = 0, 0, False

    def start(self, pairs: Tensor) -> _Prefixes:
        heads = self.parts.block.heads
        size = self.table.words.shape[1] // heads
        none = self.table.words.new_zeros(1, 0, heads, size)
        empty = _Prefixes(pairs.new_zeros(1, 0), none, none, none.new_zeros(1, 0))
        return self.longer(empty, pairs[pairs[:, 1] == 0, 0], 0)[0]

    def longer(self, prefixes: _Prefixes, words: Tensor, position: int) -> tuple[_Prefixes, Tensor]:
        """The prefixes one word longer, and which prefix each has grown from."""
        heard = self.parts.hear(words, torch.full_like(words, position))
        rows = max(1, _AT_ONCE // max(1, heard.stream.numel() * 4))
        ratios = [self._ratios(prefixes, i, rows, heard) for i in range(0, len(prefixes.words), rows)]
        ratio = torch.cat(ratios) if ratios else prefixes.ratios.new_zeros(0, len(words))
        self.tests += ratio.numel()
        parent, word = self._kept(prefixes, ratio).T
        self.widest = max(self.widest, len(parent))
        grown = _Prefixes(
            torch.cat((prefixes.words[parent], words[word, None]), 1),
            torch.cat((prefixes.keys[parent], heard.key[word, None]), 1),
            torch.cat((prefixes.values[parent], heard.value[word, None]), 1),
            torch.cat((prefixes.ratios[parent], ratio[parent, word, None]), 1),
        )
        return grown, parent

    def _kept(self, prefixes: _Prefixes, ratio: Tensor) -> Tensor:
        passing = ratio <= self.bound
        if self.second.noisy and len(ratio):
            passing &= self.second.free * (ratio - ratio.amin(0)) <= _UNLIKELIER
        found = passing.nonzero()
        if len(found) > self.most:
            self.cut = True
            total = prefixes.ratios.sum(1)[:, None] + ratio
            found = found[total[tuple(found.T)].argsort()[: self.most]]
        return found

    def _ratios(self, prefixes: _Prefixes, start: int, rows: int, heard: Heard) -> Tensor:
        some = slice(start, start + rows)
        out = self.parts.block.continued(prefixes.keys[some], prefixes.values[some], heard)
        return self.second.test(self.parts.reads(out))
