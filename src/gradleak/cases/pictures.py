"""Pictures as private records."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.cases.done import Facts
from gradleak.cases.kind import Batch, Found
from gradleak.cases.sharing import run_within_memory
from gradleak.examination import Findings, Progress
from gradleak.examination.scale import PICTURES, Scale
from gradleak.metrics import label_agreement, mean_picture, null_label_agreement
from gradleak.observe import Client, Loss, Observation
from gradleak.observe.domain import Domain
from gradleak.risk import Forecast, predict
from gradleak.risk.decibels import STEPS

_SMALL = 1100  # numbers in a batch, up to which a matrix of them takes a second
_KEPT = ("verdict", "client", "samples", "dimensions", "way", "notes", "seconds", "label_confidence")


@dataclass(frozen=True, eq=False)
class Pictures:
    """``reference`` holds public ones, for the null; private ones went through ``normalization``."""

    reference: Tensor | None = None
    normalization: Any = None

    @property
    def scale(self) -> Scale:
        return PICTURES

    @property
    def null(self) -> str:
        return "mid-gray" if self.reference is None else f"the mean of {len(self.reference)} public pictures"

    @property
    def vocabulary(self) -> None:
        return None

    def truth_of(self, x: Tensor) -> Tensor:
        return Domain.of(self.normalization).to_pixels(x.cpu()).clamp(0, 1)

    def null_of(self, x: Tensor) -> Tensor:
        return mean_picture(self.reference, x.shape).cpu()

    def forecast(
        self, model: nn.Module, batch: Batch, *, client: Client, loss: Loss | None, steps: int, rng: int
    ) -> Facts:
        x, y = batch
        forecast = predict(
            model,
            x,
            y,
            client=client,
            loss=loss,
            normalization=self.normalization,
            layers=False,
            steps=steps,
            exact=False if steps < STEPS and x.numel() > _SMALL else None,
            rng=rng,
        )
        found = forecast.to_dict()
        return {name: found[name] for name in _KEPT} | _labels_read(forecast, y)

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
        found, shared = run_within_memory(
            seen, truth, attack, rng=rng, reference=self.reference, names=names, progress=progress
        )
        if found.interrupted:
            raise KeyboardInterrupt
        guesses = [one.guess for one in found.findings if one.guess is not None]
        return _told(seen, found, shared), torch.stack(guesses) if guesses else None


def _told(seen: Observation, found: Findings, shared: str) -> Facts:
    rows = [{"guessed": one.guess is not None, **one.to_dict()} for one in found.findings]
    first = found.findings[0]
    return {
        "outcome": first.outcome,
        "reason": first.reason,
        "score": rows[0]["score"],
        "rows": rows,
        "label_agreement": found.label_agreement,
        "null_label_agreement": found.null_label_agreement,
        "labels_given": seen.labels is not None,
        "assumptions": list(found.assumptions),
        "trials": found.trials,
        "matching_gradients": first.matching_gradients,
        "seconds": first.seconds,
        **({"note": shared} if shared else {}),
    }


def _labels_read(forecast: Forecast, y: Tensor) -> Facts:
    """How many labels are read off the update, without an attack."""
    guess, classes = forecast.guess, forecast.classes
    if guess is None or guess.y is None or classes is None or y.is_floating_point() or y.dim() != 1:
        return {}
    return {
        "label_agreement": label_agreement(guess.y.cpu(), y.cpu()),
        "null_label_agreement": null_label_agreement(y.cpu(), classes),
        "labels_given": False,
    }
