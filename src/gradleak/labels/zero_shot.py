"""Counts with repeats (GDL, Geng et al. 2021): made-up pictures stand in for the batch's probabilities."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput
from gradleak.labels.allocate import allocate, records
from gradleak.labels.dummies import Seen, look, smooth, uniform
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.sent import drift_of, weights_after
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator

Form = Literal["auto", "bias", "features"]
Pictures = Literal["smooth", "uniform"]
Path = Literal["auto", "start", "two-point"]

_STILL = 0.1  # the drift below which the network is the same before and after
_HALF = 0.25  # a count further than so many halves from a whole number is not read off, but rounded


@dataclass(frozen=True)
class ZeroShot:
    """λ_n = K (p̄_n − db_n), or without a bias λ_n = K (p̄_n − Σ_m dW_nm / Ō), with p̄ and Ō from dummies.

    Σ_k (p_k − e_{y_k}) / K is the bias's gradient, and the weight's row sum is the same with each record
    weighted by the sum O_k of its features. Under local training the network moves while p̄ and Ō are
    averaged over the steps: "two-point" takes the mean of before and after (the interpolation of Dimitrov
    et al. 2022, whose straight line has that mean); "start" takes the weights as they were sent.
    """

    form: Form = "auto"
    pictures: Pictures = "smooth"
    path: Path = "auto"
    dummies: int = 128
    citations: tuple[str, ...] = ("gdl", "fedavg_leakage")

    def __post_init__(self) -> None:
        for name, value, known in (
            ("form", self.form, ("auto", "bias", "features")),
            ("pictures", self.pictures, ("smooth", "uniform")),
            ("path", self.path, ("auto", "start", "two-point")),
        ):
            if value not in known:
                raise InvalidInput(f"{name} must be one of {', '.join(known)}; came {value!r}")
        if not isinstance(self.dummies, int) or self.dummies < 1:
            raise InvalidInput(f"dummies must be a whole number of 1 or more; came {self.dummies!r}")

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        estimate = self.estimate(obs, found, rng)
        if isinstance(estimate, Unanswerable):
            return estimate
        counts = allocate(estimate, found.batch)
        return LabelGuess(
            y=records(counts, obs.like.device), classes=found.classes, confidence=trust(estimate, found.batch)
        )

    def estimate(self, obs: Observation, found: Evidence, rng: Generator) -> Tensor | Unanswerable:
        """[classes]: the counts, not yet whole."""
        if self.form == "bias" and found.bias is None:
            return Unanswerable("expected a head whose bias was sent; came none. Use form='features'.")
        seen = self.seen(obs, rng)
        if found.bias is not None and self.form != "features":
            return found.batch * (seen.p.mean(0) - found.bias)
        size = seen.features.sum(1).mean()
        if float(size.abs()) < 1e-3 * float(seen.features.abs().sum(1).mean()) or not bool(size != 0):
            return Unanswerable(
                "expected features of one sign, whose sum says how large a record is; came such that cancel"
            )
        return found.batch * (seen.p.mean(0) - found.weight.sum(1) / size)

    def seen(self, obs: Observation, rng: Generator) -> Seen:
        """What the network says to the dummies, on its way from first to last."""
        make = smooth if self.pictures == "smooth" else uniform
        x = make(obs, self.dummies, rng)
        first = look(obs, x)
        drift = drift_of(obs)
        if self.path == "start" or (self.path == "auto" and drift < _STILL):
            return first
        last = look(obs, x, weights_after(obs))
        if not bool(torch.isfinite(last.p).all() & torch.isfinite(last.features).all()):
            return first
        return Seen((first.features + last.features) / 2, (first.p + last.p) / 2)


def trust(estimate: Tensor, total: int) -> float:
    """The share that is likely right, by how near to whole numbers the estimates are, and none below 0.

    Right counts are whole: what is left over is the error, of which every second record is one too many
    somewhere and one too few elsewhere.
    """
    off = float((estimate - estimate.round().clamp_min(0)).abs().max())
    if off < _HALF:
        return 0.99
    wrong = float((estimate - estimate.clamp_min(0)).abs().sum()) + len(estimate) * 0.25
    return max(0.05, min(0.95, 1 - wrong / total))


def zero_shot(
    form: Form = "auto", *, pictures: Pictures = "smooth", path: Path = "auto", dummies: int = 128
) -> ZeroShot:
    """Counts of each class with repeats, without data (Geng et al. 2021)."""
    return ZeroShot(form, pictures, path, dummies)
