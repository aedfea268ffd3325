"""Sentences of an encoder, whose words depend on all others: guessed whole, and each certified or not."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.text.architecture import Anatomy
from gradleak.text.asking import Asking
from gradleak.text.block import Heard, cast_fields
from gradleak.text.shares import Shares, sentences_of, standing_once
from gradleak.text.span import Span

_ROUNDS = 12
_ENDS = 3  # words that are tried as the last one
_LENGTHS = 3  # that are tried of what one word names
_FAINT = 1e-6  # times the likeliest: no part of a text
_BEST = 4  # words tried at each position when a guess is polished
_ELSEWHERE = 0.02  # what is left of the weight of a word that seems to be of another sentence
_FOUND = -2  # the group of words that are of sentences found already
_BEHIND = 8  # words that are drawn to stand behind a text
_UNLIKELY = 1e-3  # the weight of a pair that the first layer lets pass and the shares do not


@dataclass(frozen=True, eq=False)
class Guessed:
    """The sentences that were found, with the largest χ²/k of each, and the best guesses at the others."""

    sentences: tuple[Tensor, ...]
    worst: tuple[float, ...]
    guesses: tuple[Tensor, ...]
    tests: int
    tries: int
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the pairs before any sentence is guessed."""

    pairs: Tensor  # [n, 2], word and position, that the first layer has read
    weight: Tensor  # [n], how likely each is to be no alias
    alone: Tensor  # [n], whether the word stands here and nowhere else
    values: Tensor | None  # [n, d], what the word shares in the gradient of the values
    asked: Tensor | None  # [n, 2, d], and in those of the queries and keys, where all were sent
    ends: tuple[int, ...]  # words that may end every sentence, likely ones first; -1: none does


def evidence(pairs: Tensor, estimates: list[Tensor], own: Shares | None, end: int | None = None) -> Evidence:
    """``estimates`` are some of C, of which the mean is taken; none where the shares could not be told."""
    words, index = torch.unique(pairs[:, 0], return_inverse=True)
    weight, alone = torch.ones(len(pairs), dtype=torch.float64), torch.zeros(len(pairs), dtype=torch.bool)
    breadth = torch.arange(len(words)).double()
    if estimates and own is not None:
        C = torch.stack(estimates).mean(0)
        once, where = standing_once(C), C.argmax(1)
        alone = once[index] & (where[index] == pairs[:, 1])
        weight = C[index, pairs[:, 1]].clamp(_UNLIKELY, 1)
        weight = torch.where(once[index] & ~alone, _UNLIKELY, weight)
        breadth = C.square().sum(1)
    last = index[pairs[:, 1] == pairs[:, 1].max()]
    likely = words[last[breadth[last].argsort()[:_ENDS]]].tolist()
    values = None if own is None else own.values[index]
    asked = None if own is None or own.asked is None else own.asked[index]
    return Evidence(pairs, weight, alone, values, asked, (*likely, -1) if end is None else (end,))


def decode_encoder(
    parts: Anatomy,
    second: Span,
    known: Evidence,
    bound: float,
    count: int,
    tries: int,
    rng: Generator,
    least: int = 0,
    longest: int | None = None,
) -> Guessed:
    """Up to ``count`` sentences, with ``tries`` guesses each: ``least`` words in all, ``longest`` in one."""
    return _Search(parts, second, known, bound, count, least, longest, rng).run(tries)


class _Search:
    """Guesses in float32, and certifies in float64."""

    def __init__(
        self,
        parts: Anatomy,
        second: Span,
        known: Evidence,
        bound: float,
        count: int,
        least: int,
        longest: int | None,
        rng: Generator,
    ) -> None:
        self.exact, self.second, self.known, self.bound, self.rng = parts, second, known, bound, rng
        heard = parts.hear(*known.pairs.T)
        self.parts: Anatomy = cast_fields(parts, torch.float32)
        self.heard: Heard = cast_fields(heard, torch.float32)
        self.null = second.null.float()
        self.asking = None if known.asked is None else Asking.of(known.asked, heard)
        self.found: dict[tuple[int, ...], float] = {}
        self.missed: dict[tuple[int, ...], float] = {}
        # An orthonormal basis of the found ones.
        self.read = second.null.new_zeros(second.null.shape[0], 0).float()
        self.tests, self.asks, self.count = 0, 0, count
        self.least, self.longest = least, longest
        self.group = self._grouped()

    def run(self, tries: int) -> Guessed:
        if self.second.noisy:  # words name fewer texts then
            spent = self._look(tries)
            self._ask()
        else:
            self._ask()
            spent = self._look(tries)
        best = sorted(self.missed.keys() - self.found, key=self.missed.__getitem__)
        sentences = tuple(torch.tensor(words) for words in self.found)
        guesses = tuple(torch.tensor(words) for words in best[: self.count - len(self.found)])
        return Guessed(sentences, tuple(self.found.values()), guesses, self.tests, spent + self.asks)

    def _look(self, tries: int) -> int:
        """Guesses at the sentences that are left; how many."""
        count, spent = self.count, 0
        while len(self.found) < count and spent < count * tries:
            ends = self._ends()
            group = self._next(spent // len(ends))
            end = ends[spent % len(ends)]
            heat = spent / (count * tries)
            for length in self._lengths(group, end)[: 3 + spent // count]:
                if self._accepted(*self._settled(group, length, end, heat), end):
                    break
            spent += 1
        return spent

    def _ask(self) -> None:
        """Each word that stands at one place for its text, and again while more are known to be of others."""
        before = -1
        while self.asking is not None and before < len(self.found):
            before = len(self.found)
            for pair in self.known.alone.nonzero().flatten().tolist():
                if len(self.found) < self.count and self.group[pair] != _FOUND:
                    elsewhere = torch.where(self.group == _FOUND, _ELSEWHERE, 1)
                    self._answer(self.asking.company(pair, self.known.weight * elsewhere))
                    self.asks += 1

    def _answer(self, company: Tensor) -> None:
        """Keeps the text that is named, at some length, or one near it, if it is one."""
        texts = self._named(company)
        ends = [self._likely_end(text) for text in texts]
        scores = [float(self._sums(text[None])[0]) for text in texts]
        if not any(self._accepted(*one) for one in zip(texts, scores, ends, strict=True)):
            inside, _ = self._choices(-1, len(texts[0]), ends[0], heat=0.0)
            self._accepted(*self._polished(texts[0], inside), ends[0])

    def _named(self, company: Tensor) -> list[Tensor]:
        """The likeliest pair at each place, up to where most of the company ends."""
        places = self.known.pairs[:, 1]
        likely = company + _FAINT * self.known.weight * company.max()
        held = [(places == place).nonzero().flatten() for place in range(int(places.max()) + 1)]
        held = held[: next((place for place, here in enumerate(held) if not len(here)), len(held))]
        text = torch.stack([here[likely[here].argmax()] for here in held])
        most = likely[text]
        behind = most.flip(0).cummax(0).values.flip(0)[1:]
        fall = most / torch.cat((behind, _FAINT * most.max()[None]))
        return [text[: int(last) + 1] for last in fall.argsort(descending=True)[:_LENGTHS]]

    def _accepted(self, text: Tensor, score: float, end: int) -> bool:
        """Whether it is a sentence that was not found before, which is kept then."""
        words = tuple(self.known.pairs[text, 0].tolist())
        if words in self.found:
            return False
        worst = self._certified(words)
        if worst > self.bound or not self._leaves_none(words):
            self.missed[words] = score
            return False
        ambiguous = self.second.noisy and self._has_double(text, len(text), end)
        self._keep(words, math.inf if ambiguous else worst)
        return True

    def _ends(self) -> tuple[int, ...]:
        """Words that may end the sentences that are left: that of the found ones, if they share it."""
        ends, last = self.known.ends, {words[-1] for words in self.found}
        if not last or len(ends) == 1:
            return ends
        return tuple(last) if len(last) == 1 and last <= set(ends) else (-1,)

    def _likely_end(self, text: Tensor) -> int:
        last = int(self.known.pairs[text[-1], 0])
        return last if last in self.known.ends else -1

    def _leaves_none(self, words: tuple[int, ...]) -> bool:
        """Whether the last sentence has the words that the others leave.

        Where noise hides what a word owes to the others, a part of a sentence passes for the whole.
        """
        last = len(self.found) + 1 == self.count
        return not last or sum(map(len, (*self.found, words))) >= self.least

    def _keep(self, words: tuple[int, ...], worst: float) -> None:
        self.found[words] = worst
        texts = [self.exact.second_reading(torch.tensor(one)) for one in self.found]
        self.read = torch.linalg.qr(torch.cat(texts).T).Q.float()
        self.group = self._grouped()

    def _certified(self, words: tuple[int, ...]) -> float:
        return float(self.second.test(self.exact.second_reading(torch.tensor(words))).max())

    def _grouped(self) -> Tensor:
        """For each pair, the sentence that its word seems to be of: -1 unknown."""
        known, held = self.known, torch.zeros(len(self.known.pairs), dtype=torch.bool)
        for one in self.found:
            words, places = known.pairs.T
            inside = places < len(one)
            held[inside] |= torch.tensor(one)[places[inside]] == words[inside]
        group = torch.full((len(held),), -1)
        left = known.alone & ~held
        if known.values is not None and bool(left.any()):
            count = max(self.count - len(self.found), 1)
            group[left] = sentences_of(known.values[left], known.pairs[left, 1], count)
        group[known.alone & held] = _FOUND
        return group

    def _has_double(self, text: Tensor, length: int, end: int) -> bool:
        """Whether noise hides what parts it from a text with one word exchanged, or with one less or more."""
        inside, _ = self._choices(-1, length, end, heat=1.0)
        behind = (self.known.pairs[:, 1] == length).nonzero()
        longer = torch.cat((text.expand(len(behind), -1), behind), 1)
        others = [self._exchanges(text, inside), longer]
        if self._leaves_none(tuple(self.known.pairs[text[:-1], 0].tolist())):
            others.append(text[None, :-1])
        hidden = any(bool((self._worst(some) <= self.bound).any()) for some in others if some.numel())
        return hidden or self._heeds_nothing_behind(text)

    def _heeds_nothing_behind(self, text: Tensor) -> bool:
        """Whether its words pass whatever stands behind them: noise may have drowned the rest of the text."""
        if len(text) == self.longest:
            return False
        words = self.known.pairs[text, 0].expand(_BEHIND, -1)
        drawn = torch.randint(len(self.exact.words), (_BEHIND, 1), generator=self.rng)
        read = self.exact.second_reading(torch.cat((words, drawn.to(words)), 1))[:, :-1]
        return bool((self.second.test(read).amax(-1) <= self.bound).any())

    def _worst(self, texts: Tensor) -> Tensor:
        """The largest χ²/k of each."""
        return self.second.test(self.exact.second_reading(self.known.pairs[texts, 0])).amax(-1)

    def _next(self, turn: int) -> int:
        """The groups in turn, those with most words first; -1 where there are none."""
        groups, sizes = torch.unique(self.group[self.group >= 0], return_counts=True)
        return int(groups[sizes.argsort(descending=True)[turn % len(groups)]]) if len(groups) else -1

    def _lengths(self, group: int, end: int) -> list[int]:
        """Likely lengths of a group's sentence: it ends soon behind its last word."""
        pairs, known = self.known.pairs, self.known
        last = int(pairs[self.group == group, 1].max()) if group >= 0 else 0
        ends = (pairs[:, 0] == end) | (end < 0)
        places = pairs[ends, 1]
        if group < 0:
            order = torch.multinomial(known.weight[ends], len(places), generator=self.rng)
        else:
            behind = torch.where(places > last, 1.0, 0.01) / (1 + (places - last).abs())
            order = (known.weight[ends] * behind).argsort(descending=True)
        lengths = dict.fromkeys((places[order] + 1).tolist())
        read = set(pairs[:, 1].tolist())
        return [length for length in lengths if read.issuperset(range(length))]

    def _settled(self, group: int, length: int, end: int, heat: float) -> tuple[Tensor, float]:
        """One guess, from a start that the evidence suggests to where no single word helps."""
        inside, weight = self._choices(group, length, end, heat)
        text = self._drawn(inside, weight, length)
        for turn in range(_ROUNDS):
            text = self._resampled(text, inside, weight, self._field(text, inside), turn)
        return self._polished(text, inside)

    def _choices(self, group: int, length: int, end: int, heat: float) -> tuple[Tensor, Tensor]:
        """The pairs that may stand in it, and their weights."""
        known, places = self.known, self.known.pairs[:, 1]
        ends = known.pairs[:, 0] == end
        inner = places < length - 1
        if len(torch.unique(places[inner & ~ends])) == length - 1:
            inner = inner & ~ends
        inside = inner | ((places == length - 1) & (ends | (end < 0)))
        weight = known.weight
        if group >= 0:
            weight = torch.where(self.group == group, 1.0, weight)
            weight = torch.where((self.group != -1) & (self.group != group), weight * _ELSEWHERE, weight)
        if heat < 0.5:  # aliases as long as every place has another
            likely = inside & (known.weight > _UNLIKELY)
            if len(torch.unique(places[likely])) == length:
                inside = likely
        index = inside.nonzero().flatten()
        return index, weight[index] ** (1 - heat)

    def _drawn(self, inside: Tensor, weight: Tensor, length: int) -> Tensor:
        """One pair for each position, by weight."""
        text = []
        for place in range(length):
            here = (self.known.pairs[inside, 1] == place).nonzero().flatten()
            text.append(inside[here[torch.multinomial(weight[here], 1, generator=self.rng)[0]]])
        return torch.stack(text)

    def _score(self, read: Tensor) -> Tensor:
        """How far outside the second layer's span, relative to what found sentences leave of it."""
        outside = (read @ self.null).norm(dim=-1)
        left = (read.square().sum(-1) - (read @ self.read).square().sum(-1)).clamp_min(1e-12).sqrt()
        score: Tensor = outside / left
        return score

    def _field(self, text: Tensor, inside: Tensor) -> Tensor:
        """The score that each pair would have in the place of the text's word there."""
        self.tests += len(inside)
        out = self.parts.block.exchanged(self.heard[text], self.heard[inside], self.known.pairs[inside, 1])
        return self._score(self.parts.reads(out))

    def _resampled(self, text: Tensor, inside: Tensor, weight: Tensor, field: Tensor, turn: int) -> Tensor:
        text = text.clone()
        power = 2 + 2 * turn
        final = turn >= _ROUNDS - 4
        places = self.known.pairs[inside, 1]
        moved = torch.rand(len(text), generator=self.rng) < 0.6
        for place in range(len(text)):
            here = (places == place).nonzero().flatten()
            if final:
                text[place] = inside[here[field[here].argmin()]]
            elif moved[place]:
                odds = weight[here] * (field[here].min() / field[here]).double() ** power
                text[place] = inside[here[torch.multinomial(odds, 1, generator=self.rng)[0]]]
        return text

    def _polished(self, text: Tensor, inside: Tensor) -> tuple[Tensor, float]:
        """Single words exchanged while the sum of squares falls."""
        best = float(self._sums(text[None])[0])
        while True:
            others = self._exchanges(text, inside)
            if not len(others):
                return text, best
            sums = self._sums(others)
            if not float(sums.min()) < best:
                return text, best
            text, best = others[sums.argmin()], float(sums.min())

    def _exchanges(self, text: Tensor, inside: Tensor) -> Tensor:
        field, places = self._field(text, inside), self.known.pairs[inside, 1]
        others = []
        for place in range(len(text)):
            here = (places == place).nonzero().flatten()
            for one in inside[here[field[here].argsort()[:_BEST]]]:
                if one != text[place]:
                    others.append(torch.where(torch.arange(len(text)) == place, one, text))
        return torch.stack(others) if others else text[:0]

    def _sums(self, texts: Tensor) -> Tensor:
        self.tests += texts.numel()
        read = self.parts.reads(self.parts.block.whole(self.heard[texts]))
        return self._score(read).square().sum(-1)
