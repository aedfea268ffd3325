"""Which of a batch's words an update names, and where: the exact attacks' rules, held against the truth."""

import dataclasses
from dataclasses import dataclass

import torch
from scipy.stats import chi2, ncx2
from torch import Tensor

from gradleak.errors import GradleakError, UnsupportedLayer
from gradleak.observe import Observation
from gradleak.text.architecture import Anatomy, anatomy
from gradleak.text.hearing import listen, refusal_of, slack
from gradleak.text.rows import bag_of_words, is_tied
from gradleak.text.span import Span
from gradleak.text.table import Table
from gradleak.trees import Tree

_MISS = 1e-4  # the share of true words that noise may cost, as dager has it
_RIVALS = 40  # words tried in the place of each true one, those first that the first layer likes best
_FALSE = 0.1  # words that noise alone may name, in all of the vocabulary
_AT_ONCE = 2**22  # numbers in one batch of exchanged texts


@dataclass(frozen=True, eq=False)
class Named:
    """Of each of the batch's words [B, T], how likely the update names it; ``false`` words come with them."""

    likely: Tensor
    false: int = 0

    @property
    def precision(self) -> float:
        """A list that is mostly false names nothing."""
        true = float(self.likely.sum())
        return true / max(true + self.false, 1e-12)


@dataclass(frozen=True, eq=False)
class Read:
    """What the spans of two layers tell: ``placed`` [B, T] words in their places, and ``named`` in any order.

    A word that other words could stand for has its share of their number. ``ranks`` count what was read.
    """

    placed: Tensor
    named: Named
    ranks: tuple[int, int]
    last: bool  # whether the last word of a text is read, which a decoder does not heed
    pairs: int


def words_of(obs: Observation, ids: Tensor) -> Tensor:
    """[B, T]: where there is a word, and not padding."""
    pad = getattr(obs.model, "pad", None)
    return torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad


def by_rows(obs: Observation, ids: Tensor, clean: Tree) -> Named | str:
    """By the gradient's rows in the word embeddings; or why they tell nothing.

    ``clean`` is the update without noise. Rows under noise are found by their χ².
    """
    table: str = getattr(obs.model, "table", "")
    if table not in obs.update:
        return "the word embeddings send no gradient"
    real = words_of(obs, ids)
    undisturbed = dataclasses.replace(obs, update=clean)
    if is_tied(obs) and not is_tied(undisturbed):
        return _under_noise(obs.uncertainty[table], clean[table], ids, real)
    if is_tied(undisturbed) and _is_noisy(obs, clean):
        return "the word embeddings' rows are the head's too, and noise lies on them"
    try:
        named = bag_of_words(obs)
    except GradleakError as unreadable:
        return str(unreadable)
    found = torch.isin(ids, named) & real
    true = torch.unique(ids[found])
    return Named(found.double(), len(named) - len(true))


def _under_noise(deviation: Tensor, rows: Tensor, ids: Tensor, real: Tensor) -> Named:
    """A row of width d is ‖row / deviation‖² ~ χ²_d where the word is none of the batch's."""
    width = (~deviation.isinf()).sum(1).double()
    size = (rows.double() / deviation).square().sum(1)
    bar = torch.from_numpy(chi2.isf(_FALSE / len(rows), width.clamp_min(1).cpu().numpy())).to(size)
    words = torch.unique(ids[real])
    likely = torch.zeros_like(size)
    power = ncx2.sf(
        *(t[words].cpu().numpy() for t in (bar, width.clamp_min(1), size.clamp_min(1e-12).to(bar)))
    )
    likely[words] = torch.from_numpy(power).to(size).nan_to_num(1.0)
    likely[width == 0] = 0
    return Named(torch.where(real, likely[ids], 0.0))


def _is_noisy(obs: Observation, clean: Tree) -> bool:
    """Whether the words' rows differ by more than rounding from what is expected."""
    table: str = getattr(obs.model, "table", "")
    off, size = (obs.update[table] - clean[table]).double().norm(), clean[table].double().norm()
    return bool(off > 1e3 * torch.finfo(clean[table].dtype).eps * size)


def by_span(obs: Observation, ids: Tensor) -> Read | str:
    """By the first two layers' spans, as ``dager`` reads them; or why that way is closed."""
    obs = obs.plainest
    if refusal := refusal_of(obs):
        return refusal
    real = words_of(obs, ids)
    if not bool((real.long().diff(dim=1) <= 0).all()):
        return "padding stands before words, which the two layers are not computed for"
    try:
        parts = anatomy(obs)
    except UnsupportedLayer as unsupported:
        return str(unsupported)
    with torch.no_grad():
        heard = listen(obs, parts, _MISS)
        return heard if isinstance(heard, str) else _Reader(*heard, ids.shape[1]).read(ids, real)


class _Reader:
    """Holds the true words against both spans, and other words in their places."""

    def __init__(self, parts: Anatomy, spans: tuple[Span, Span], length: int) -> None:
        self.parts, self.first, self.second = parts, *spans
        self.bounds = tuple(span.bound(_MISS) * slack(span) for span in spans)
        table = Table.of(parts.words, parts.positions[:length], parts.first)
        self.pairs = table.passing(self.first, self.bounds[0])
        order = self.first.test(table.read(*self.pairs.T)).argsort()
        self.pairs = self.pairs[order]

    def read(self, ids: Tensor, real: Tensor) -> Read:
        placed, named = torch.zeros(2, *ids.shape, dtype=torch.float64, device=ids.device)
        for i, row in enumerate(ids):
            words = row[real[i]]
            seen, passed = self._first(words), self._second(words[None])[0]
            # What comes last in a decoder's text is read by nothing behind it.
            passed[-1] |= self.parts.causal
            named[i, : len(words)] = seen.double()
            share = 1 / (1 + self._rivals(words)) if bool((seen & passed).any()) else 0.0
            placed[i, : len(words)] = (seen & passed) * share
        passing = torch.unique(self.pairs[:, 0])
        false = int((~torch.isin(passing, ids[real])).sum())
        ranks = (self.first.rank, self.second.rank)
        return Read(placed, Named(named, false), ranks, not self.parts.causal, len(self.pairs))

    def _first(self, words: Tensor) -> Tensor:
        places = torch.arange(len(words), device=words.device)
        _, read = self.parts.streams(self.parts.words[words] + self.parts.positions[places])
        return self.first.test(read) <= self.bounds[0]

    def _second(self, texts: Tensor) -> Tensor:
        """Of texts [n, T], which of their words the second layer may have read."""
        return self.second.test(self.parts.second_reading(texts)) <= self.bounds[1]

    def _rivals(self, words: Tensor) -> Tensor:
        """[T]: how many other words could stand in each one's place, all else being as it is."""
        count = torch.zeros(len(words), dtype=torch.float64, device=words.device)
        changed, places = self._exchanged(words)
        rows = max(1, _AT_ONCE // (len(words) * self.parts.words.shape[1]))
        for start in range(0, len(changed), rows):
            passed = self._second(changed[start : start + rows])
            passed = passed[:, :-1] if self.parts.causal else passed
            count.index_add_(0, places[start : start + rows], passed.all(1).double())
        return count

    def _exchanged(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """The texts with one word exchanged for one that the first layer lets pass there, and where."""
        texts, places = [words.new_zeros(0, len(words))], [words.new_zeros(0)]
        for place in range(len(words) - self.parts.causal):
            others = self.pairs[self.pairs[:, 1] == place, 0]
            others = others[others != words[place]][:_RIVALS]
            some = words.repeat(len(others), 1)
            some[:, place] = others
            texts.append(some)
            places.append(torch.full_like(others, place))
        return torch.cat(texts), torch.cat(places)
