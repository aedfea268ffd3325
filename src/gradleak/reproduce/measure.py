"""One attack on many pictures, held against the truth."""

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from gradleak import metrics
from gradleak.attacks import Attack, Outcome, Reconstruction
from gradleak.randomness import spawn
from gradleak.reproduce.sample import Case
from gradleak.reproduce.table import Column, Value

RECOVERED = 30.0
"""Decibels from which a picture counts as recovered, where a paper speaks of success and gives no number."""

MEASURED = (
    Column("pictures"),
    Column("MSE", ".1e"),
    Column("±", ".1e"),
    Column("PSNR", ".1f"),
    Column("recovered"),
    Column("converged"),
    Column("gradients", ".0f"),
    Column("seconds", ".1f"),
)
"""What ``measured`` says: means of MSE, medians of the last two and of PSNR."""


def measured(attack: Attack, cases: Sequence[Case]) -> tuple[Value, ...]:
    """Attack every case and hold the answers, clamped to [0, 1], against the truth."""
    generators = spawn(0, len(cases))
    found = [attack(case.obs, rng=own) for case, own in zip(cases, generators, strict=True)]
    errors = [error(one, case) for one, case in zip(found, cases, strict=True)]
    decibels = [psnr(one) for one in errors]
    return (
        len(cases),
        statistics.mean(errors),
        statistics.stdev(errors) if len(errors) > 1 else None,
        statistics.median(decibels),
        sum(value >= RECOVERED for value in decibels),
        sum(one.outcome is Outcome.CONVERGED for one in found),
        statistics.median(one.cost.matching_gradients for one in found),
        statistics.median(one.cost.seconds for one in found),
    )


def error(found: Reconstruction, case: Case) -> float:
    """The mean squared error over a batch in its best order; no picture counts as mid-gray, a free guess."""
    x = torch.full_like(case.x, 0.5) if found.x is None else _clamped(found.x)
    return float(metrics.mse(x[metrics.pair(x, case.x)], case.x).mean())


def recovered(found: Reconstruction, case: Case) -> bool:
    """Whether every picture of the batch is."""
    if found.x is None:
        return False
    x = _clamped(found.x)
    return float(metrics.psnr(x[metrics.pair(x, case.x)], case.x).min()) >= RECOVERED


def psnr(mse: float) -> float:
    return float(-10 * torch.tensor(max(mse, 1e-30)).log10())


def _clamped(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=0.5, posinf=1, neginf=0).clamp(0, 1)
