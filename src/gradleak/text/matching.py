"""Texts by matching gradients: a descent on word embeddings, and the words that these are nearest to."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations, islice

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.matching import LayerwiseSquaredError, Matching
from gradleak.attacks.matching.optimizers.base import is_count
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe import Client, Observation, Task
from gradleak.observe.task import attention_by_formula
from gradleak.observe.uncertainty import told
from gradleak.randomness import Rng, generator, spawn
from gradleak.text.adapter import without_table
from gradleak.text.reordering import Reordering
from gradleak.text.unsaid import Unsaid, unsaid
from gradleak.trees import norm

_PROVEN = 1e-6
"""A mismatch of words, mean over the tensors, that is rounding: one wrong word misses by far more."""
_APART = LayerwiseSquaredError()
_NEAR = (0, 4, 32, 200)  # how many of the nearest words are tried, once no nearer one helps


@dataclass(frozen=True, eq=False, repr=False)
class MatchedTexts(Reconstruction):
    """``x`` are the embeddings that were found, and ``tokens`` the words nearest to them.

    ``score`` is the words' own mismatch, not that of the embeddings: the mean over the tensors of each one's
    relative squared error. ``certified`` says that it is nothing but rounding, so that the words are proven.
    ``history`` is that of the embeddings.
    """

    tokens: Tensor | None = None  # int64 [B, T]
    certified: bool = False

    @property
    def sentences(self) -> tuple[Tensor, ...]:
        return () if self.tokens is None else tuple(self.tokens)

    def __repr__(self) -> str:
        shape = None if self.tokens is None else list(self.tokens.shape)
        because = f" ({self.reason})" if self.reason else ""
        sure = "certified" if self.certified else "not certified"
        return (
            f"MatchedTexts({self.outcome}{because}, score {self.score:.3g}, words {shape} {sure}, "
            f"{self.cost.matching_gradients} matching gradients in {self.cost.seconds:.1f} s)"
        )


@dataclass(frozen=True, eq=False)
class Start:
    """N(0, std²), and the embeddings of words that are known: ``given`` [B, T], -1 elsewhere."""

    table: Tensor
    std: float | None = None
    given: Tensor | None = None

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        table = self.table.detach().cpu().double()
        std = float(table.std()) if self.std is None else self.std
        drawn = std * torch.randn(shape, generator=rng, dtype=torch.float64)
        if self.given is None:
            return drawn
        known = self.given.cpu()
        return torch.where((known >= 0)[..., None], table[known.clamp_min(0)], drawn)


@dataclass(frozen=True, eq=False)
class TextMatching:
    """``matching`` on the word embeddings [B, T, width] of one gradient; then the nearest words, by cosine.

    Every few rounds, the words so far are held against the update: once they explain it, they are proven and
    the descent ends. Words that do not are changed, one at a time or two of them swapped, and kept changed
    where the mismatch falls: up to ``polish`` changes are tried, at a third of a matching gradient each. The
    next of ``rounds`` descends from these words.

    ``given`` are words that the server knows [B, T], such as those that begin and end a text, and padding,
    without which all texts count as equally long; -1 for those to be found. ``std`` is that of the start, by
    default the table's. The gradient of the word embeddings is not matched, since embeddings look up no rows;
    it is used to prove words. Tensors whose gradient is rounding, such as biases of keys, are left out.

    Labels that are words need not be told. Those of a decoder are the text itself, and follow the candidate.
    Those that were masked out are learnt, where ``masked`` [B, T] is True at their places.
    """

    matching: Matching
    given: Tensor | None = None
    std: float | None = None
    polish: int = 500
    rounds: int = 1
    masked: Tensor | None = None

    def __post_init__(self) -> None:
        if not is_count(self.rounds) or self.polish < 0:
            raise InvalidInput(
                f"expected rounds of 1 or more, polish of 0 or more; came {self.rounds!r}, {self.polish!r}"
            )

    @property
    def name(self) -> str:
        return self.matching.name

    @property
    def budget(self) -> int:
        return self.matching.budget * self.rounds

    @property
    def citations(self) -> tuple[str, ...]:
        return self.matching.citations

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> MatchedTexts:
        *_, last = self.iterate(obs, rng=rng)
        return last

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[MatchedTexts]:
        """The best candidate so far, with its words: stop when you like."""
        refusal = _refusal(obs)
        if refusal:
            yield MatchedTexts(Outcome.NOT_APPLICABLE, reason=refusal)
            return
        obs = obs.plainest
        self._check_places(obs)
        labels = unsaid(obs, _table(obs), self.masked)
        if isinstance(labels, Unanswerable):
            yield MatchedTexts(Outcome.NOT_APPLICABLE, reason=labels.reason)
            return
        words, facts = _Words(obs, _given(obs, self.given), labels), _without_rounding(without_table(obs))
        if labels is not None:
            facts = dataclasses.replace(facts, client=labels.around(facts.client))
        best: MatchedTexts | None = None
        for own in spawn(generator(rng), self.rounds):
            before, latest = best, None
            for step in self._from(words, before).iterate(facts, rng=own):
                latest = _after(words.read(step), before)
                best = _better(latest, before)
                yield best
                if best.certified or best.outcome is Outcome.NOT_APPLICABLE:
                    return
            if latest is not None and self.polish:
                best = _better(words.polished(latest, self.polish), before)
                yield best
            if best is None or best.certified:
                return

    def _from(self, words: "_Words", before: MatchedTexts | None) -> Matching:
        """A descent from random embeddings, or from the words of the one before, whose labels are kept."""
        optimizer, labels = self.matching.optimizer, self.matching.labels
        known = words.given
        if words.unsaid is not None:
            labels = _Settled(torch.zeros(words.free.shape, dtype=torch.int64, device=words.free.device))
        if before is not None and before.tokens is not None and before.y is not None:
            known, labels = before.tokens, _Settled(before.y)
        if isinstance(optimizer, Reordering):
            optimizer = dataclasses.replace(optimizer, table=words.table, free=words.free)
        start = Start(words.table, self.std, known)
        return dataclasses.replace(self.matching, init=start, optimizer=optimizer, labels=labels)

    def _check_places(self, obs: Observation) -> None:
        shape, masked = tuple(obs.x_shape[:2]), self.masked
        if masked is not None and (masked.dtype != torch.bool or masked.shape != shape or not masked.any()):
            raise InvalidInput(
                f"expected masked as True where a word was masked out, of shape {list(shape)}; came "
                f"{masked.dtype} of shape {list(masked.shape)}, {int(masked.sum())} of it not 0"
            )
        if self.given is None:
            return
        rows = len(_table(obs))
        whole = not self.given.is_floating_point() and tuple(self.given.shape) == shape
        if not whole or not -1 <= int(self.given.min()) <= int(self.given.max()) < rows:
            raise InvalidInput(
                f"expected given words as integers from -1 (to be found) to {rows - 1:,} of shape "
                f"{list(shape)}; came {self.given.dtype} of shape {list(self.given.shape)}"
            )


@dataclass(frozen=True, eq=False)
class _Words:
    """Which words are nearest to embeddings, and how well they explain the update of ``obs``."""

    obs: Observation
    given: Tensor | None
    unsaid: Unsaid | None = None

    @cached_property
    def facts(self) -> Observation:
        return _without_rounding(self.obs)

    @cached_property
    def task(self) -> Task:
        return self.facts.task

    @cached_property
    def table(self) -> Tensor:
        return _table(self.obs)

    @cached_property
    def free(self) -> Tensor:
        """[B, T]: the places whose words are to be found."""
        if self.given is None:
            return torch.ones(self.obs.x_shape[:2], dtype=torch.bool, device=self.table.device)
        return self.given.to(self.table.device) < 0

    def nearest(self, x: Tensor, k: int = 1) -> Tensor:
        """[B, T, k]: the words nearest to each embedding; first the nearest, or the one that is given."""
        likeness = normalize(x.double(), dim=-1) @ normalize(self.table.double(), dim=-1).T
        pad = getattr(self.obs.model, "pad", None)
        if pad is not None:
            likeness[..., pad] = -torch.inf
        found = likeness.topk(k, dim=-1).indices
        if self.given is not None:
            found[..., 0] = torch.where(self.free, found[..., 0], self.given.to(found))
        return found

    def mismatch(self, tokens: Tensor, y: Tensor) -> float:
        """Of the update that these words would have made, with the rows of the word embeddings."""
        obs = self.facts
        client = told(obs.client, obs.params, obs.update, obs.batch_size)
        with attention_by_formula():
            update = client(self.task, obs.params, tokens, y)
        return float(_APART(update, obs.update).detach())

    def read(self, step: Reconstruction) -> MatchedTexts:
        """A candidate's words, and their own score in the place of its embeddings'."""
        same = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
        if step.x is None or step.y is None or not bool(torch.isfinite(step.x).all()):
            return MatchedTexts(**same)
        tokens = self.nearest(step.x)[..., 0]
        y = self.labels(tokens, step.y, step.client)
        own = {"y": y, "client": None if self.unsaid is not None else step.client}
        return _scored(MatchedTexts(**{**same, **own}), tokens, self.mismatch(tokens, y))

    def labels(self, tokens: Tensor, y: Tensor, settled: Client | None = None) -> Tensor:
        """Those of a candidate whose labels were ``y`` before it had these words."""
        return y if self.unsaid is None else self.unsaid.labels(tokens, y, settled)

    def polished(self, found: MatchedTexts, tries: int) -> MatchedTexts:
        """Words exchanged for near ones and swapped in pairs, as long as the mismatch falls."""
        if found.tokens is None or found.x is None or found.y is None:
            return found
        clock = time.perf_counter()
        tokens, score, stage = found.tokens, found.score, 0
        near, places = self.nearest(found.x, min(_NEAR[-1], len(self.table))), self._doubtful(found.x)
        while stage < len(_NEAR) - 1 and tries > 0 and score > _PROVEN:
            before = score
            some = near[..., _NEAR[stage] : _NEAR[stage + 1]]
            for change in islice(_changes(some, places, swaps=not stage), tries):
                tries -= 1
                changed = change(tokens)
                same = torch.equal(changed, tokens)
                value = score if same else self.mismatch(changed, self.labels(changed, found.y))
                if value < score:
                    tokens, score = changed, value
                if score <= _PROVEN:
                    break
            stage = 0 if score < before else stage + 1
        cost = dataclasses.replace(found.cost, seconds=found.cost.seconds + time.perf_counter() - clock)
        y = self.labels(tokens, found.y)
        return _scored(dataclasses.replace(found, cost=cost, y=y), tokens, score)

    def _doubtful(self, x: Tensor) -> list[tuple[int, int]]:
        """The places whose words are to be found, those farthest from all words first."""
        likeness = (normalize(x.double(), dim=-1) @ normalize(self.table.double(), dim=-1).T).amax(-1)
        places = self.free.nonzero()
        order = likeness[places[:, 0], places[:, 1]].argsort()
        return [(text, place) for text, place in places[order].tolist()]


@dataclass(frozen=True, eq=False)
class _Settled:
    """The labels that an earlier round learnt, or the place of those that the client makes up itself."""

    y: Tensor

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        return LabelGuess(y=self.y, classes=obs.classes)


def _scored(found: MatchedTexts, tokens: Tensor, score: float) -> MatchedTexts:
    proven = score <= _PROVEN
    # A descent may match the update with embeddings that are no words, which explains nothing.
    spurious = found.outcome is Outcome.CONVERGED and not proven
    outcome = Outcome.CONVERGED if proven else Outcome.STALLED if spurious else found.outcome
    reason = "" if proven else found.reason
    return dataclasses.replace(
        found, tokens=tokens, score=score, certified=proven, outcome=outcome, reason=reason
    )


def _after(found: MatchedTexts, before: MatchedTexts | None) -> MatchedTexts:
    """With what the rounds before have cost."""
    if before is None:
        return found
    cost = Cost(
        found.cost.matching_gradients + before.cost.matching_gradients,
        found.cost.seconds + before.cost.seconds,
        max(found.cost.trials, before.cost.trials),
    )
    return dataclasses.replace(found, cost=cost)


def _better(found: MatchedTexts, before: MatchedTexts | None) -> MatchedTexts:
    """The words of the two that explain more, at the cost of both."""
    if before is None or found.score < before.score:
        return found
    return dataclasses.replace(before, cost=found.cost, outcome=found.outcome)


def _table(obs: Observation) -> Tensor:
    name = getattr(obs.model, "table", None)
    if name is None:
        raise MissingInformation("expected a model of words, wrapped by gradleak.text.wrap; came another")
    return {**obs.constants, **obs.params}[name].detach()


def _refusal(obs: Observation) -> str:
    if getattr(obs.model, "table", None) is None:
        return "the model is not of words: gradleak.text.wrap(model) makes one of transformers' so"
    if obs.steps != 1:
        return f"the update is the work of {obs.steps} steps, between which the word embeddings have moved"
    return ""


def _given(obs: Observation, given: Tensor | None) -> Tensor | None:
    """The words that the server knows; where a decoder's labels were revealed, these are words too."""
    if getattr(obs.model, "task", "") != "causal" or obs.labels is None:
        return given
    told = obs.labels.clamp_min(-1)
    return told if given is None else torch.where(given.to(told) < 0, told, given.to(told))


def _without_rounding(obs: Observation) -> Observation:
    """The same facts without tensors whose gradient is 0 but for rounding, such as the biases of keys.

    An objective that weighs all tensors alike would have them explained as well.
    """
    bar = torch.finfo(obs.like.dtype).eps * float(norm(obs.update))
    still = {name for name, leaf in obs.update.items() if float(leaf.norm()) <= bar}
    if len(still) == len(obs.update):
        return obs
    return dataclasses.replace(
        obs,
        params={name: leaf for name, leaf in obs.params.items() if name not in still},
        update={name: leaf for name, leaf in obs.update.items() if name not in still},
        constants={**obs.constants, **{name: obs.params[name] for name in still}},
    )


def _changes(
    near: Tensor, places: list[tuple[int, int]], *, swaps: bool
) -> Iterator[Callable[[Tensor], Tensor]]:
    """One word exchanged for one of ``near`` [B, T, k], or two swapped, of one text or of one place."""
    for text, place in places:
        for word in near[text, place].tolist():
            yield partial(_exchanged, text=text, place=place, word=word)
    for here, there in combinations(places, 2):
        if swaps and (here[0] == there[0] or here[1] == there[1]):
            yield partial(_swapped, here=here, there=there)


def _swapped(tokens: Tensor, here: tuple[int, int], there: tuple[int, int]) -> Tensor:
    changed = tokens.clone()
    changed[here], changed[there] = tokens[there], tokens[here]
    return changed


def _exchanged(tokens: Tensor, text: int, place: int, word: int) -> Tensor:
    changed = tokens.clone()
    changed[text, place] = word
    return changed
