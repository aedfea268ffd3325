"""A table of a paper beside ours."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gradleak import metrics, zoo
from gradleak.attacks import Attack, Outcome
from gradleak.observe import Observation
from gradleak.randomness import spawn

Told = Callable[[str, float], None]
"""Told what is being done, and which share of the whole is done."""

RECOVERED = 30.0
"""Decibels from which a picture counts as recovered, where a paper speaks of success and gives no number."""


@dataclass(frozen=True)
class Row:
    """One attack on one network. ``paper`` is the published figure, or says that there is none."""

    network: str
    attack: str
    pictures: int
    mse_mean: float
    mse_deviation: float
    psnr_median: float
    recovered: int
    converged: int
    matching_gradients: float
    seconds: float
    paper: str


@dataclass(frozen=True)
class Table:
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Case:
    x: Tensor
    y: Tensor
    obs: Observation


def pictures(n: int, size: int = 32) -> list[Tensor]:
    """Faces and photographs in turn; no default of gradleak was chosen on them."""
    sets = [zoo.pictures(name, size=size, n=60)[0] for name in ("faces", "photos")]
    both = [one for pair in zip(*sets, strict=True) for one in pair]
    return [one[None] for one in both[:n]]


def measure(network: str, attack: Attack, cases: Sequence[Case], paper: str) -> Row:
    """Attack every case and hold the answers, clamped to [0, 1], against the truth."""
    generators = spawn(0, len(cases))
    found = [attack(case.obs, rng=own) for case, own in zip(cases, generators, strict=True)]
    errors = [
        float("inf") if one.x is None else float(metrics.mse(_clamped(one.x), case.x))
        for one, case in zip(found, cases, strict=True)
    ]
    # An attack that gave no picture is scored as mid-gray: what anybody could have handed in.
    errors = [
        error if error != float("inf") else float(metrics.mse(torch.full_like(case.x, 0.5), case.x))
        for error, case in zip(errors, cases, strict=True)
    ]
    decibels = sorted(float(-10 * torch.tensor(max(error, 1e-30)).log10()) for error in errors)
    return Row(
        network=network,
        attack=attack.name,
        pictures=len(cases),
        mse_mean=statistics.mean(errors),
        mse_deviation=statistics.stdev(errors) if len(errors) > 1 else 0.0,
        psnr_median=statistics.median(decibels),
        recovered=sum(value >= RECOVERED for value in decibels),
        converged=sum(one.outcome is Outcome.CONVERGED for one in found),
        matching_gradients=statistics.median(one.cost.matching_gradients for one in found),
        seconds=statistics.median(one.cost.seconds for one in found),
        paper=paper,
    )


def _clamped(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=0.5, posinf=1, neginf=0).clamp(0, 1)
