"""Guessed texts beside the true ones, once an attack has ended."""

import math
from collections.abc import Collection
from typing import Any, Protocol

import torch
from torch import Tensor

from gradleak.examination.scale import TEXTS
from gradleak.metrics.text import Texts, TextScores, score_text

NOTHING = -1
"""In the place of a word that was not guessed."""


class Read(Protocol):
    """What an attack on texts hands back."""

    @property
    def sentences(self) -> tuple[Tensor, ...]: ...

    @property
    def certified(self) -> bool | tuple[bool, ...]: ...


def compared(
    found: Read,
    truth: Tensor,
    y: Tensor,
    *,
    vocabulary: int,
    public: Texts = (),
    without: Collection[int] = (),
) -> tuple[list[dict[str, Any]], Tensor | None]:
    """Plain facts on every text, in percent, and the guesses [B, T], in the order of the truth.

    ``truth`` is [B, T], and ``without`` are padding and other words that nobody has to guess.
    """
    scores = score_text(found.sentences, truth, vocabulary=vocabulary, public=public, without=without)
    rows = [_row(found, scores, i, y) for i in range(len(truth))]
    return rows, _guesses(found, scores)


def _row(found: Read, scores: TextScores, i: int, y: Tensor) -> dict[str, Any]:
    place = int(scores.pairing[i])
    frequent = scores.frequent
    null = -math.inf if frequent is None else 100 * float(frequent.rouge_l[i])
    best = max(null, 100 * float(scores.random.rouge_l[i]))
    value = 100 * float(scores.rouge_l[i]) if place >= 0 else -math.inf
    return {
        "guessed": place >= 0,
        "rouge_l": _plain(value),
        "null_rouge_l": _plain(null),
        "random_rouge_l": 100 * float(scores.random.rouge_l[i]),
        "tokens": 100 * float(scores.tokens[i]),
        "null_tokens": 100
        * max(float(one.tokens[i]) for one in (scores.random, frequent) if one is not None),
        "rouge_1": 100 * float(scores.rouge_1[i]),
        "rouge_2": 100 * float(scores.rouge_2[i]),
        "exact": bool(scores.exact[i]),
        "edits": int(scores.edits[i]),
        "certified": _sure(found, place),
        "leak": _plain(value - best),
        "leaked": value - best >= TEXTS.leak,
        "label": int(y[i]) if y.dim() == 1 else None,
        "label_guess": _label(found, place),
    }


def _sure(found: Read, place: int) -> bool:
    if place < 0:
        return False
    return found.certified if isinstance(found.certified, bool) else found.certified[place]


def _label(found: Read, place: int) -> int | None:
    y = getattr(found, "y", None)
    return int(y[place]) if isinstance(y, Tensor) and y.dim() == 1 and 0 <= place < len(y) else None


def _guesses(found: Read, scores: TextScores) -> Tensor | None:
    if not found.sentences:
        return None
    width = max(len(sentence) for sentence in found.sentences)
    guesses = torch.full((len(scores.pairing), width), NOTHING)
    for row, place in zip(guesses, scores.pairing.tolist(), strict=True):
        if place >= 0:
            sentence = found.sentences[place].cpu()
            row[: len(sentence)] = sentence
    return guesses


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
