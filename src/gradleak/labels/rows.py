"""The published rules for batches in which no label is twice: which rows of the gradient stand out."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.observe import Observation
from gradleak.randomness import Rng


@dataclass(frozen=True)
class RowMinimum:
    """GradInversion (Yin et al. 2021, Eq. 8): the classes whose rows have the lowest entries."""

    citations: tuple[str, ...] = ("gradinversion",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        return _lowest(obs, lambda found: found.weight.amin(1))


@dataclass(frozen=True)
class RowSum:
    """iDLG's sign rule for more than one record: the classes whose rows, or biases, have the lowest sums.

    The features are taken to be positive, so that a row's sum has the sign of its bias's gradient.
    """

    citations: tuple[str, ...] = ("idlg",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        return _lowest(obs, lambda found: found.weight.sum(1) if found.bias is None else found.bias)


def _lowest(obs: Observation, score: Callable[[Evidence], Tensor]) -> LabelGuess | Unanswerable:
    found = evidence(obs)
    if isinstance(found, Unanswerable):
        return found
    if found.batch > found.classes:
        return Unanswerable(
            f"expected labels that differ; came {found.batch} records of {found.classes} classes, some of "
            "which repeat. Use gradleak.labels.best() or zero_shot(), which count."
        )
    y = score(found).argsort(stable=True)[: found.batch].sort().values
    return LabelGuess(y=y.to(obs.like.device), classes=found.classes)


def row_minimum() -> RowMinimum:
    """Distinct labels, from the lowest entry of each class's row (Yin et al. 2021)."""
    return RowMinimum()


def row_sum() -> RowSum:
    """Distinct labels, from each class's sum (Zhao et al. 2020, for K records)."""
    return RowSum()
