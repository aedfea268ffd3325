"""Exact recovery of texts from the gradients of a transformer's first two layers, without optimisation."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak.attacks.base import Cost, Outcome
from gradleak.errors import InvalidInput, UnsupportedLayer
from gradleak.observe import Observation
from gradleak.observe.uncertainty import Defended
from gradleak.randomness import Rng, generator
from gradleak.text.architecture import Anatomy, anatomy
from gradleak.text.causal import Grown, decode_causal, trimmed
from gradleak.text.encoder import Guessed, decode_encoder, evidence
from gradleak.text.hearing import listen, refusal_of, slack
from gradleak.text.rows import is_tied
from gradleak.text.shares import places, shares
from gradleak.text.span import Span
from gradleak.text.table import Table

_RIVAL = 2.0  # times the bound: what may have been read instead
_TRIED = 64  # words at each position, where noise may hide true ones from the first layer


@dataclass(frozen=True, eq=False)
class Texts:
    """What was read. Nothing in here was compared with the truth.

    A sentence is certified when the second layer has read every one of its words in the place where it
    stands. ``scores`` are the largest χ²/k of each sentence: about 1 for a true one, infinite for a guess.
    """

    outcome: Outcome
    sentences: tuple[Tensor, ...] = ()  # int64 [length] each, certified ones first
    certified: tuple[bool, ...] = ()
    scores: tuple[float, ...] = ()
    words: Tensor | None = None  # the bag of words: the set of all that were read
    pairs: int = 0  # of word and position that the first layer lets pass
    ranks: tuple[int, int] = (0, 0)  # of the two layers' gradients; the second counts words
    reason: str = ""
    cost: Cost = field(default_factory=Cost)
    tests: int = 0  # vectors that were held against a span

    def __repr__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return (
            f"Texts({self.outcome}{because}, {sum(self.certified)} of {len(self.sentences)} sentences "
            f"certified, {0 if self.words is None else len(self.words)} words, {self.cost.seconds:.1f} s)"
        )


@dataclass(frozen=True)
class Dager:
    """DAGER's span test (Petrov et al. 2024) with thresholds from noise, and a decoder for encoders too.

    The rows of a projection's gradient span what the layer has read. The first layer tells which words were
    read at which positions, up to aliases; the second, whose inputs depend on the text, tells which make
    sentences. ``miss`` is the share of true words that noise may cost. ``tries`` are guesses at each
    sentence of an encoder, and ``widest`` the prefixes that a decoder holds at once. ``end`` is the word that
    ends every text of an encoder, such as [SEP]; None: found out. What a defense is known to have done to
    the update is taken into account: entries that are missing are completed, since a gradient of few words
    is a matrix of low rank, and each weighs as much as is known of its noise.

    The paper sets its thresholds by hand and tries all combinations for encoders. Here the words' shares
    of the gradient place most of them and group them by sentence first.
    """

    miss: float = 1e-4
    tries: int = 12
    widest: int = 1024
    end: int | None = None
    name: str = "dager"

    def __post_init__(self) -> None:
        if not 0 < self.miss < 1 or min(self.tries, self.widest) < 1:
            raise InvalidInput(
                "expected miss between 0 and 1, and tries and widest of 1 or more; came "
                f"{self.miss}, {self.tries} and {self.widest}"
            )

    @property
    def budget(self) -> int:
        return 0  # nothing is differentiated twice

    @property
    def citations(self) -> tuple[str, ...]:
        return ("dager",)

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Texts]:
        """The final texts only."""
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Texts:
        clock = time.perf_counter()
        with torch.no_grad():
            found = self._read(obs.plainest, rng)
        cost = Cost(matching_gradients=0, seconds=time.perf_counter() - clock, trials=found.cost.trials)
        return Texts(**{**found.__dict__, "cost": cost})

    def _read(self, obs: Observation, rng: Rng) -> Texts:
        refusal = refusal_of(obs)
        if refusal:
            return _inapplicable(refusal)
        try:
            parts = anatomy(obs)
        except UnsupportedLayer as unsupported:
            return _inapplicable(str(unsupported))
        heard = listen(obs, parts, self.miss)
        if isinstance(heard, str):
            return _inapplicable(heard)
        parts, spans = heard
        first, second = spans
        table = Table.of(parts.words, parts.positions[: obs.x_shape[1]], parts.first)
        pairs = table.passing(first, first.bound(self.miss) * slack(first))
        if not len(pairs):
            return Texts(Outcome.STALLED, reason="no word at any position is in the span of the first layer")
        found = self._decoded(obs, parts, table, spans, pairs, rng)
        return Texts(
            **{
                **found.__dict__,
                "words": torch.unique(pairs[:, 0]),
                "pairs": len(pairs),
                "ranks": (first.rank, second.rank),
            }
        )

    def _decoded(
        self,
        obs: Observation,
        parts: Anatomy,
        table: Table,
        spans: tuple[Span, Span],
        pairs: Tensor,
        rng: Rng,
    ) -> Texts:
        bound = spans[1].bound(self.miss)
        taken = bound * slack(spans[1])
        if parts.causal:
            tried = table.likeliest(spans[0], _TRIED) if spans[0].noisy else pairs
            tried = torch.unique(torch.cat((pairs, tried)), dim=0)
            grown = decode_causal(parts, table, spans[1], tried, taken, self.widest, obs.batch_size)
            if spans[1].noisy:
                grown = trimmed(grown, bound, spans[1].rank)
            firm = pairs[spans[0].test(table.read(*pairs.T)) <= spans[0].bound(self.miss)]
            sure = _complete(grown, firm, spans[1], obs.batch_size, bound)
            return _judged(grown, (), obs.batch_size, bound if sure else 0.0)
        words, length = torch.unique(pairs[:, 0]), int(pairs[:, 1].max()) + 1
        own = shares(spans[0], table, words, length)
        estimates = [] if own is None else [places(own.words, own.positions)]
        if own is not None:
            estimates += _from_rows(obs, parts, words, length)
        known = evidence(pairs, estimates, own, self.end)
        # Without noise a part of a text does not pass for the whole, and rounding may pass for a word.
        least = max(span.rank for span in spans) if spans[1].noisy else 0
        count, longest, dice = obs.batch_size, obs.x_shape[1], generator(rng)
        guessed = decode_encoder(parts, spans[1], known, taken, count, self.tries, dice, least, longest)
        return _judged(guessed, guessed.guesses, obs.batch_size, bound)


def dager(miss: float = 1e-4, tries: int = 12, widest: int = 1024, end: int | None = None) -> Dager:
    """Whole texts, exactly, from the gradients of two layers (Petrov et al. 2024); see ``Dager``."""
    return Dager(miss, tries, widest, end)


def _inapplicable(reason: str) -> Texts:
    return Texts(Outcome.NOT_APPLICABLE, reason=reason)


def _from_rows(obs: Observation, parts: Anatomy, words: Tensor, positions: int) -> list[Tensor]:
    """C by the embeddings' own gradients, where they were sent as they are and hold nothing else."""
    if (
        isinstance(obs.client, Defended)
        or parts.table not in obs.update
        or parts.position_table not in obs.update
        or is_tied(obs)
    ):
        return []
    start = len(obs.update[parts.position_table]) - len(parts.positions)
    at = obs.update[parts.position_table][start : start + positions].double()
    return [places(obs.update[parts.table][words].double(), at)]


def _complete(grown: Grown, pairs: Tensor, second: Span, count: int, bound: float) -> bool:
    """Whether a decoder's sentences explain all that was read, and no more.

    The second layer has read one vector for each different prefix: where fewer pass, one was broken off;
    where more do under noise, one of them is not needed. More sentences than the batch has texts are
    ambiguous, and so are others that would nearly pass: noise hides how little a word owes to those
    before it.
    """
    used = {word for sentence in grown.sentences for word in sentence.tolist()}
    read = len(grown.read(bound))
    explained = read == second.rank or (read > second.rank and not second.noisy)
    explained &= len(grown.sentences) <= count
    alone = grown.rival > _RIVAL * bound and not grown.cut
    return explained and alone and used >= set(pairs[:, 0].tolist())


def _judged(found: Grown | Guessed, guesses: tuple[Tensor, ...], count: int, bound: float) -> Texts:
    certified = [worst <= bound for worst in found.worst] + [False] * len(guesses)
    # Texts of a decoder that are the same, or the beginning of another, are one.
    whole = bool(certified) and all(certified) and (isinstance(found, Grown) or len(certified) >= count)
    reason = "" if whole else f"{sum(certified)} of {count} sentences certified"
    return Texts(
        Outcome.CONVERGED if whole else Outcome.BUDGET,
        sentences=(*found.sentences, *guesses),
        certified=tuple(certified),
        scores=(*found.worst, *[float("inf")] * len(guesses)),
        reason=reason + (", and prefixes were given up: raise widest" if found.cut else ""),
        cost=Cost(trials=found.tries),
        tests=found.tests,
    )
