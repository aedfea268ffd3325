"""Texts as private records."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.cases.done import Facts
from gradleak.cases.kind import Batch, Found
from gradleak.examination import Progress
from gradleak.examination.scale import TEXTS, Scale
from gradleak.examination.texts import compared
from gradleak.metrics import label_agreement, null_label_agreement
from gradleak.metrics.text import null_texts, score_text
from gradleak.observe import Client, Loss, Observation
from gradleak.text import TextMatching, TextModel, Vocabulary, forecast


@dataclass(frozen=True, eq=False)
class Texts:
    """``known`` are the words by their numbers; ``public`` texts of the same kind [N, T] make the null."""

    known: Vocabulary
    public: Tensor | None = None

    @property
    def scale(self) -> Scale:
        return TEXTS

    @property
    def normalization(self) -> None:
        return None

    @property
    def null(self) -> str:
        if self.public is None:
            return "words at random"
        return f"words at random, or the most frequent ones of {len(self.public)} public texts"

    @property
    def vocabulary(self) -> Vocabulary:
        return self.known

    def truth_of(self, x: Tensor) -> Tensor:
        return x.cpu()

    def null_of(self, x: Tensor) -> Tensor:
        """The most frequent words in the place of those that were written."""
        return torch.tensor(null_texts(x.cpu(), **self._scored))

    def forecast(
        self, model: nn.Module, batch: Batch, *, client: Client, loss: Loss | None, steps: int, rng: int
    ) -> Facts:
        x, y = batch
        if not isinstance(model, TextModel):
            raise TypeError(f"expected a model of words; came {type(model).__name__}")
        found = forecast(model, x, y, client=client, loss=loss, steps=steps, rng=rng)
        said = found.to_dict()
        null = self._null_words(x)
        # Words in their places are a run in order too, so that ROUGE-L is at least their share.
        said["samples"] = [
            one | {"rouge_l": max(100 * one["words"], null[i]), "null_rouge_l": null[i]}
            for i, one in enumerate(said["samples"])
        ]
        return said | _labels_read(found.guess, found.classes, y)

    def attacked(
        self,
        seen: Observation,
        truth: Batch,
        attack: Attack,
        *,
        rng: int,
        names: Callable[[int], str],
        progress: Progress | None,
    ) -> Found:
        ids, y = truth
        told = self._told(attack, seen, ids)
        for found in told.iterate(seen, rng=rng):
            if progress is not None:
                progress([found], found.cost.matching_gradients / max(told.budget, 1))
        rows, guess = compared(found, ids.cpu(), y.cpu(), **self._scored)
        guessed = getattr(found, "y", None)
        agreement = None
        if seen.labels is None and guessed is not None and y.dim() == 1:
            agreement = label_agreement(guessed.cpu(), y.cpu())
        assumptions = list(seen.knows)
        if told is not attack:
            assumptions.append("how long each text is, and where its special words stand")
        facts = {
            "outcome": found.outcome.value,
            "reason": found.reason,
            "rows": rows,
            "certified": sum(row["certified"] for row in rows),
            "label_agreement": agreement,
            "null_label_agreement": None if agreement is None else _by_chance(y, seen.classes),
            "labels_given": seen.labels is not None,
            "assumptions": assumptions,
            "trials": found.cost.trials,
            "matching_gradients": found.cost.matching_gradients,
            "seconds": found.cost.seconds,
        }
        return facts, guess

    def _told(self, attack: Attack, seen: Observation, ids: Tensor) -> Any:
        """A server that knows the labels knows the texts' lengths as well, which descents ask for."""
        if not isinstance(attack, TextMatching) or attack.given is not None or seen.labels is None:
            return attack
        special = torch.isin(ids, torch.tensor(self.known.special, device=ids.device))
        return dataclasses.replace(attack, given=ids.where(special, -1))

    @property
    def _scored(self) -> dict[str, Any]:
        public = () if self.public is None else self.public
        return {"vocabulary": len(self.known), "public": public, "without": self.known.special}

    def _null_words(self, x: Tensor) -> list[float]:
        """What guesses at these texts are held against: the better null."""
        scores = score_text((), x.cpu(), **self._scored)
        nulls = [one.rouge_l for one in (scores.random, scores.frequent) if one is not None]
        return [100 * float(max(values)) for values in zip(*nulls, strict=True)]


def _labels_read(guess: Any, classes: int | None, y: Tensor) -> Facts:
    """How many labels are read off the update, without an attack."""
    if guess is None or getattr(guess, "y", None) is None or y.dim() != 1:
        return {}
    return {
        "label_agreement": label_agreement(guess.y.cpu(), y.cpu()),
        "null_label_agreement": _by_chance(y, classes),
        "labels_given": False,
    }


def _by_chance(y: Tensor, classes: int | None) -> float | None:
    return None if classes is None else null_label_agreement(y.cpu(), classes)
