"""One start of an attack, from its first guess to its outcome."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.matching.layout import Parts, pack
from gradleak.attacks.matching.optimizers import Descent, Optimizer, Space
from gradleak.attacks.matching.problem import Problem
from gradleak.labels import LabelGuess
from gradleak.trees import Tree

_HARDLY = 0.5
"""A mismatch from which on an update counts as not explained at all."""


class Trial:
    """Keeps the best point that was *evaluated*, with the score that belongs to it.

    ``evidence`` is what each prior gathered for this trial.
    """

    def __init__(
        self,
        record: int,
        start: Parts,
        guess: LabelGuess,
        rng: Generator,
        evidence: tuple[Tree, ...] = (),
    ) -> None:
        self.record, self.guess, self.rng, self.evidence = record, guess, rng, evidence
        self.question = self.best_point = pack(start)
        self.best_value = self.best_mismatch = math.inf
        self.anchor: Tensor | None = None
        self.outdated = False
        self.spent = 0
        self.outcome = Outcome.RUNNING
        self.history: list[tuple[int, float]] = []
        self._descent: Descent

    @property
    def learnt(self) -> bool:
        """Whether the labels are optimised together with the pictures."""
        return self.guess.logits is not None

    @property
    def kind(self) -> tuple[object, ...]:
        """Trials of one kind have points and evidence of one shape, and are solved together."""
        return (self.learnt, *(tuple(sorted(tree)) for tree in self.evidence))

    def begin(self, optimizer: Optimizer, space: Space) -> None:
        start = self.question if space.project is None else space.project(self.question)
        self._descent = optimizer.descend(start, space, self.rng)
        self.question = next(self._descent)

    def answer(self, value: float, mismatch: float, gradient: Tensor) -> bool:
        """Pair the score with the point that it was asked for, then let the descent move on.

        Says whether the point is the best so far.
        """
        self.spent += 1
        improved = value < self.best_value
        if improved:
            self.best_point, self.best_value, self.best_mismatch = self.question, value, mismatch
            self.history.append((self.spent, mismatch))
        try:
            self.question = self._descent.send((value, gradient))
        except StopIteration as ended:
            self.end(ended.value)
        return improved

    def forget(self) -> None:
        """The objective has changed: what was best by the old one is kept only until something is evaluated.

        Otherwise an early point, from before a term was added, would stay the best for ever.
        """
        if self.outcome is Outcome.RUNNING:
            self.best_value = math.inf
        else:
            self.outdated = True

    def end(self, outcome: Outcome) -> None:
        """The first outcome stands."""
        if self.outcome is Outcome.RUNNING:
            self.outcome = outcome


def best_of(trials: Sequence[tuple[Problem, Trial]], seconds: float, dtype: torch.dtype) -> Reconstruction:
    """A trial that explained the update speaks for its record, or else the one with the lowest objective."""
    problem, best = min(trials, key=lambda pair: _rank(pair[1]))
    parts = problem.layout.unpack(best.best_point)
    probabilities = None if parts.logits is None else parts.logits.softmax(-1)
    settled = best.guess.y if probabilities is None else probabilities.argmax(-1)
    client = problem.settled_client(best.best_point)
    # What is handed back is judged: an open client's last word, not its relaxation on the way.
    score = best.best_mismatch if client is None else settled_mismatch(problem, best)
    doubts = (best.guess.note, _unexplained(best.outcome, score))
    return Reconstruction(
        outcome=best.outcome,
        x=parts.x.to(dtype),
        y=settled,
        score=score,
        reason="; ".join(filter(None, doubts)),
        probabilities=None if probabilities is None else probabilities.to(dtype),
        cost=Cost(sum(t.spent for _, t in trials), seconds, len(trials)),
        history=tuple(best.history),
        trial_outcomes=tuple(t.outcome for _, t in trials),
        client=client,
    )


def _unexplained(outcome: Outcome, score: float) -> str:
    """Said of an attack that has ended nearer to an update of zeros than to a match."""
    if outcome in (Outcome.RUNNING, Outcome.CONVERGED) or not _HARDLY <= score < math.inf:
        return ""
    return (
        f"no batch was found that explains the update (mismatch {score:.2f}, and 1 for an update of zeros): "
        "is it of another client, batch size or scale than was said, or was it changed on the way?"
    )


def settled_mismatch(problem: Problem, trial: Trial) -> float:
    return problem.settled_mismatch(trial.best_point, trial.record, trial.guess.y)


def _rank(trial: Trial) -> tuple[bool, bool, float]:
    return (trial.outcome is not Outcome.CONVERGED, trial.outdated, trial.best_value)
