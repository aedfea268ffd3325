"""The labels by the surest way that this observation allows."""

from dataclasses import dataclass

from gradleak.labels.best import Best
from gradleak.labels.guess import LabelGuess, LabelStrategy, Unanswerable
from gradleak.labels.joint import Joint
from gradleak.labels.known import Known
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator


@dataclass(frozen=True)
class FirstThatAnswers:
    strategies: tuple[LabelStrategy, ...]

    @property
    def citations(self) -> tuple[str, ...]:
        keys = (key for strategy in self.strategies for key in getattr(strategy, "citations", ()))
        return tuple(dict.fromkeys(keys))

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        reasons = []
        for strategy in self.strategies:
            guess = strategy(obs, rng=rng)
            if isinstance(guess, LabelGuess):
                return guess
            reasons.append(guess.reason)
        return Unanswerable("; ".join(reasons))


def inferred() -> FirstThatAnswers:
    """Known where revealed, else read off the update, else learnt with the pictures."""
    return FirstThatAnswers((Known(), Best(), Joint()))
