"""What an examination found: one entry per private picture, and the facts that they rest on."""

import math
import statistics
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

LEAK = 6.0
"""Decibels above the best null from which a picture counts as leaked: a quarter of the null's error."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One private picture, the best guess at it, and what guesses without the gradient score.

    Pictures are [C, H, W] with pixels in [0, 1]; ``guess`` is None where the attack could not be run.
    """

    name: str
    truth: Tensor
    guess: Tensor | None
    null: Tensor
    psnr: float
    null_psnr: float
    random_psnr: float
    ssim: float | None
    null_ssim: float | None
    label: int | None
    label_guess: int | None
    score: float
    outcome: str
    reason: str
    matching_gradients: int
    seconds: float

    @property
    def leak(self) -> float:
        """Decibels above the better of the two nulls; at or below 0 the update gave nothing away."""
        null = max(self.null_psnr, self.random_psnr)
        return 0.0 if self.psnr == null else self.psnr - null

    @property
    def leaked(self) -> bool:
        return self.leak >= LEAK

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, as plain JSON."""
        pictures = ("truth", "guess", "null")
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in pictures}
        return {key: _plain(value) for key, value in facts.items()} | {
            "leak": _plain(self.leak),
            "leaked": self.leaked,
        }


@dataclass(frozen=True, eq=False)
class Findings:
    """A whole examination. ``assumptions`` are what the attacker was given, in words."""

    title: str
    model: str
    attack: str
    assumptions: tuple[str, ...]
    findings: tuple[Finding, ...]
    label_agreement: float | None
    null_label_agreement: float | None
    seed: int
    trials: int
    versions: dict[str, str]
    bibtex: str
    interrupted: bool = False

    @property
    def leaked(self) -> int:
        return sum(finding.leaked for finding in self.findings)

    @property
    def median_psnr(self) -> float:
        return statistics.median(finding.psnr for finding in self.findings)

    @property
    def median_null_psnr(self) -> float:
        return statistics.median(max(f.null_psnr, f.random_psnr) for f in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence, with the null baseline in it."""
        total = len(self.findings)
        pictures = "picture" if total == 1 else "pictures"
        if all(f.guess is None and f.outcome == "running" for f in self.findings):
            return f"The attack {self.attack} was stopped before it had a first candidate."
        refused = [f for f in self.findings if f.outcome == "not_applicable"]
        if len(refused) == total:
            return f"The attack {self.attack} cannot be run here: {refused[0].reason}."
        head = "No picture" if not self.leaked else f"{self.leaked} of {total} {pictures}"
        return (
            f"{head} leaked: {self.attack} reaches {decibels(self.median_psnr)} in the median, "
            f"and a guess without the gradient {decibels(self.median_null_psnr)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain JSON."""
        return {
            "title": self.title,
            "verdict": self.verdict,
            "leaked": self.leaked,
            "pictures": len(self.findings),
            "median_psnr": _plain(self.median_psnr),
            "median_null_psnr": _plain(self.median_null_psnr),
            "label_agreement": _plain(self.label_agreement),
            "null_label_agreement": self.null_label_agreement,
            "model": self.model,
            "attack": self.attack,
            "assumptions": list(self.assumptions),
            "seed": self.seed,
            "trials": self.trials,
            "interrupted": self.interrupted,
            "versions": self.versions,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def decibels(value: float) -> str:
    return "an exact copy" if value == math.inf else "no picture" if value == -math.inf else f"{value:.1f} dB"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
