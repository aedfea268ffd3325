"""One start of an attack, from its first guess to its outcome."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.matching.optimizers import Descent, Optimizer, Project
from gradleak.attacks.matching.problem import Problem
from gradleak.labels import LabelGuess


class Trial:
    """Keeps the best point that was *evaluated*, with the score that belongs to it."""

    def __init__(self, record: int, x: Tensor, guess: LabelGuess) -> None:
        self.record, self.guess = record, guess
        parts = [x.reshape(-1)] if guess.logits is None else [x.reshape(-1), guess.logits.reshape(-1)]
        self.question = self.best_point = torch.cat(parts)
        self.best_value = self.best_mismatch = math.inf
        self.spent = 0
        self.outcome = Outcome.RUNNING
        self.history: list[tuple[int, float]] = []
        self._descent: Descent

    @property
    def learnt(self) -> bool:
        """Whether the labels are optimised together with the pictures."""
        return self.guess.logits is not None

    def begin(self, optimizer: Optimizer, project: Project | None) -> None:
        start = self.question if project is None else project(self.question)
        self._descent = optimizer.descend(start, project)
        self.question = next(self._descent)

    def answer(self, value: float, mismatch: float, gradient: Tensor) -> None:
        """Pair the score with the point that it was asked for, then let the descent move on."""
        self.spent += 1
        if value < self.best_value:
            self.best_point, self.best_value, self.best_mismatch = self.question, value, mismatch
            self.history.append((self.spent, mismatch))
        try:
            self.question = self._descent.send((value, gradient))
        except StopIteration as ended:
            self.end(ended.value)

    def end(self, outcome: Outcome) -> None:
        """The first outcome stands."""
        if self.outcome is Outcome.RUNNING:
            self.outcome = outcome


def best_of(trials: Sequence[tuple[Problem, Trial]], seconds: float, dtype: torch.dtype) -> Reconstruction:
    """A trial that explained the update speaks for its record, or else the one with the lowest objective."""
    problem, best = min(
        trials, key=lambda pair: (pair[1].outcome is not Outcome.CONVERGED, pair[1].best_value)
    )
    x, logits = problem.unpack(best.best_point)
    probabilities = None if logits is None else logits.softmax(-1)
    settled = best.guess.y if probabilities is None else probabilities.argmax(-1)
    return Reconstruction(
        outcome=best.outcome,
        x=x.to(dtype),
        y=settled,
        score=best.best_mismatch,
        probabilities=None if probabilities is None else probabilities.to(dtype),
        cost=Cost(sum(t.spent for _, t in trials), seconds, len(trials)),
        history=tuple(best.history),
        trial_outcomes=tuple(t.outcome for _, t in trials),
    )
