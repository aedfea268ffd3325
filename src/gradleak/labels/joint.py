"""DLG (Zhu, Liu and Han 2019): labels start random and are learnt together with the pictures."""

from dataclasses import dataclass

import torch

from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator


@dataclass(frozen=True)
class Joint:
    """The classes' probabilities are softmax(logits), with logits that start as N(0, 1)."""

    citations: tuple[str, ...] = ("dlg",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        if obs.classes is None:
            return Unanswerable("labels can only be learnt for a model that ends in logits [batch, classes]")
        start = torch.randn(
            obs.batch_size, obs.classes, generator=rng, dtype=obs.like.dtype, device=rng.device
        )
        return LabelGuess(logits=start.to(obs.like.device), classes=obs.classes)


def joint() -> Joint:
    """Learn soft labels together with the pictures (Zhu et al. 2019)."""
    return Joint()
