"""What an attacker believes about the labels before it looks for the pictures."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradleak.errors import InvalidInput
from gradleak.observe import Observation
from gradleak.randomness import Rng


@dataclass(frozen=True, eq=False)
class LabelGuess:
    """Settled labels, or a start for labels that are to be learnt together with the pictures.

    ``confidence`` is the attacker's own estimate of the share of the labels that are right, made without
    them; 1.0 is kept for what is certain. ``note`` is a remark for whoever reads the result.
    """

    y: Tensor | None = None  # [B] class indices
    logits: Tensor | None = None  # [B, classes]
    certain: bool = False  # the update itself proves them
    classes: int | None = None
    confidence: float | None = None
    note: str = ""

    @property
    def counts(self) -> Tensor:
        """[classes]: how often each class is guessed, a soft label as its likeliest class."""
        settled = self.y if self.logits is None else self.logits.argmax(-1)
        classes = self.classes if self.logits is None else self.logits.shape[-1]
        if settled is None or settled.is_floating_point() or classes is None:
            raise InvalidInput(
                "expected a guess of class indices together with the number of classes; came one without. "
                "Pass LabelGuess(y=..., classes=...)."
            )
        return torch.bincount(settled, minlength=classes)


@dataclass(frozen=True)
class Unanswerable:
    """A strategy cannot say anything about this observation, and why."""

    reason: str


class LabelStrategy(Protocol):
    """``rng`` belongs to one trial: strategies that draw nothing ignore it."""

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable: ...
