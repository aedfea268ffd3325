"""Labels that are words and that nobody told: a text's own next words, or those that were masked out."""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from gradleak.errors import MissingInformation
from gradleak.labels import Unanswerable
from gradleak.observe import Client, Observation, Task
from gradleak.text.losses import IGNORED, words_as_labels
from gradleak.text.rows import label_words
from gradleak.trees import Tree

_SHARE = 0.9  # of a word's own embedding that counts as this word


class Unsaid(Protocol):
    """How an attacker simulates a client whose labels it does not know."""

    def around(self, client: Client) -> Client:
        """The client with labels that are part of the candidate."""
        ...

    def labels(self, tokens: Tensor, y: Tensor, settled: Client | None) -> Tensor:
        """[B, T]: those of these words, once the candidate's client has settled; else ``y``, as before."""
        ...


def unsaid(obs: Observation, table: Tensor, masked: Tensor | None) -> Unsaid | Unanswerable | None:
    """None where labels are classes, or were told."""
    task, pad = getattr(obs.model, "task", ""), getattr(obs.model, "pad", None)
    if task == "causal":
        return TextItself(table, pad)
    if task != "masked" or obs.labels is not None:
        return None
    if masked is None:
        return Unanswerable(
            "which words were masked out is not learnt; masked=..., True at their places, tells it, "
            "observe(..., reveal=('labels',)) grants the labels too, and gradleak.text.dager() needs neither"
        )
    try:
        words = label_words(obs)
    except MissingInformation as missing:
        return Unanswerable(f"the masked words are learnt among those that the update shows: {missing}")
    return MaskedOut(masked.to(words.device), words, len(table))


@dataclass(frozen=True, eq=False)
class TextItself:
    """A decoder's labels are the text: as each embedding moves, so does the word that it stands for.

    A label is the softmax of how near all words are, so sharp that a word's own embedding is the word at
    ``_SHARE``. Softer ones never end in a word, and harder ones do not say where to go.
    """

    table: Tensor
    pad: int | None

    def around(self, client: Client) -> Client:
        return _Itself(client, self)

    def labels(self, tokens: Tensor, y: Tensor, settled: Client | None) -> Tensor:
        return words_as_labels(tokens, self.pad)

    @cached_property
    def directions(self) -> Tensor:
        return normalize(self.table.double(), dim=-1)

    def soft(self, x: Tensor) -> Tensor:
        """[B, T, vocabulary], rows that sum to 1, and to 0 for padding."""
        likeness = normalize(x, dim=-1) @ self.directions.to(x).T
        sharpness = math.log(len(self.table) * _SHARE / (1 - _SHARE))
        if self.pad is None:
            return (sharpness * likeness).softmax(-1)
        own = torch.arange(len(self.table), device=x.device) == self.pad
        real = (x != self.table[self.pad].to(x)).any(-1)
        chosen = (sharpness * likeness).masked_fill(own, -torch.inf).softmax(-1)
        return chosen * real[..., None]


@dataclass(frozen=True, eq=False)
class _Itself:
    client: Client
    text: TextItself

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self.client(dataclasses.replace(task, loss=next_soft), params, x, self.text.soft(x))


@dataclass(frozen=True, eq=False)
class MaskedOut:
    """Words at the ``places`` [B, T] that were masked out, learnt among ``words``."""

    places: Tensor
    words: Tensor
    vocabulary: int

    def around(self, client: Client) -> Client:
        return _Masked(client, self)

    def labels(self, tokens: Tensor, y: Tensor, settled: Client | None) -> Tensor:
        if not isinstance(settled, _Predicted):
            return y
        learnt = torch.full_like(tokens, IGNORED)
        learnt[self.places] = self.words[settled.chances.argmax(-1)]
        return learnt

    def soft(self, chances: Tensor) -> Tensor:
        """[B, T, vocabulary], from [places, words]: zeros elsewhere."""
        text, place = self.places.nonzero(as_tuple=True)
        at = (text[:, None], place[:, None], self.words[None])
        return chances.new_zeros(*self.places.shape, self.vocabulary).index_put(at, chances)


@dataclass(frozen=True, eq=False)
class _Masked:
    """Open: which word belongs to which place is not known of it."""

    client: Client
    out: MaskedOut

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self.client(task, params, x, y)

    def start(self, batch_size: int, rng: Generator) -> Tensor:
        shape = (int(self.out.places.sum()), len(self.out.words))
        return torch.randn(shape, generator=rng, dtype=torch.float64).flatten()

    def settled(self, unknowns: Tensor, progress: Tensor) -> tuple[Client, Tensor]:
        chances = unknowns.reshape(-1, len(self.out.words)).softmax(-1)
        return _Predicted(self.client, self.out, chances), unknowns.new_zeros(())


@dataclass(frozen=True, eq=False)
class _Predicted:
    client: Client
    out: MaskedOut
    chances: Tensor  # [places, words]

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        soft = self.out.soft(self.chances.to(x))
        return self.client(dataclasses.replace(task, loss=_soft), params, x, soft)


def _soft(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy over the words that have a label, which is shares of all words."""
    return -(y * logits.log_softmax(-1)).sum() / y.sum()


def next_soft(logits: Tensor, y: Tensor) -> Tensor:
    """The same of each word after the first, given those before."""
    return _soft(logits[:, :-1], y[:, 1:])
