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
    def best_null_psnr(self) -> float:
        """Of the better of the two nulls."""
        return max(self.null_psnr, self.random_psnr)

    @property
    def leak(self) -> float:
        """As in ``Scores.leak``: decibels above the better null; at or below 0 nothing was given away."""
        return 0.0 if self.psnr == self.best_null_psnr else self.psnr - self.best_null_psnr

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
    """A whole examination. ``assumptions`` are what the attacker was given, in words; ``null`` is the
    picture that one guesses without the gradient. Medians are over the pictures that have a guess."""

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
    null: str = "mid-gray"

    @property
    def leaked(self) -> int:
        return sum(finding.leaked for finding in self.findings)

    @property
    def scored(self) -> tuple[Finding, ...]:
        """Those with a guess; the others were compared with nothing, and their numbers mean nothing."""
        return tuple(finding for finding in self.findings if finding.guess is not None)

    @property
    def median_psnr(self) -> float:
        return statistics.median([f.psnr for f in self.scored] or [-math.inf])

    @property
    def median_null_psnr(self) -> float:
        return statistics.median([f.best_null_psnr for f in self.scored] or [-math.inf])

    @property
    def verdict(self) -> str:
        """One sentence, with the null baseline in it, and with what was left undone."""
        total, missing = len(self.findings), len(self.findings) - len(self.scored)
        pictures = "picture" if total == 1 else "pictures"
        if all(f.guess is None and f.outcome == "running" for f in self.findings):
            return f"The attack {self.attack} was stopped before it had a first candidate."
        if all(f.outcome == "not_applicable" for f in self.findings):
            return f"The attack {self.attack} cannot be run here: {self.findings[0].reason}."
        if not self.scored:
            ends = ", ".join(dict.fromkeys(f.reason or f.outcome for f in self.findings))
            return f"The attack {self.attack} ended without a guess: {ends}."
        none = "No attacked picture" if missing else "No picture"
        head = f"{self.leaked} of {total} {pictures}" if self.leaked else none
        undone = f"; {missing} of {total} {'was' if missing == 1 else 'were'} not attacked" if missing else ""
        early = "; the run was stopped early" if self.interrupted else ""
        return (
            f"{head} leaked: {self.attack} reaches {decibels(self.median_psnr)} in the median, "
            f"and a guess without the gradient {decibels(self.median_null_psnr)}{undone}{early}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain JSON."""
        return {
            "title": self.title,
            "verdict": self.verdict,
            "leaked": self.leaked,
            "pictures": len(self.findings),
            "scored": len(self.scored),
            "median_psnr": _plain(self.median_psnr),
            "median_null_psnr": _plain(self.median_null_psnr),
            "label_agreement": _plain(self.label_agreement),
            "null_label_agreement": self.null_label_agreement,
            "model": self.model,
            "attack": self.attack,
            "assumptions": list(self.assumptions),
            "null": self.null,
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
