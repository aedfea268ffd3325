"""Masking against DLG (Kim and Park 2024): where DLG fails, and what training loses that far."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from gradleak.defenses import Clip, GaussianNoise, Mask, Prune, Utility
from gradleak.observe import Client
from gradleak.reproduce.defended import (
    ACCURACY,
    ATTACKERS,
    COSTS,
    DLG,
    HIDDEN,
    NULL,
    TOLD,
    Victims,
    accuracies,
    between,
    cost,
)
from gradleak.reproduce.table import Column, Table, Told, Value

_SHARES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
_TRAINING = 0.85  # where it begins, about

_COLUMNS = (
    Column("data"),
    Column("defense"),
    Column("hides from"),
    Column("from"),
    Column("tried"),
    Column("pictures"),
    Column("SSIM, " + DLG, ".2f"),
    Column("SSIM, " + TOLD, ".2f"),
    Column("null SSIM", ".2f"),
    *COSTS,
    Column("paper's cost"),
)


@dataclass(frozen=True)
class Grid:
    """A defense at its strengths, weakest first."""

    name: str
    levels: tuple[float, ...]
    make: Callable[[float], Client]
    paper: str


@dataclass(frozen=True)
class Found:
    """The smallest strength of a grid that hides, or else its last, and what is reached there."""

    grid: Grid
    data: str
    whom: str
    level: float
    hides: bool
    untold: float
    told: float
    null: float

    @property
    def label(self) -> str:
        return f"{self.grid.name} {self.level:g}"


GRIDS = (
    Grid("masking", _SHARES, lambda rate: Mask(rate=rate), "near to none"),
    Grid("clipping", (30, 10, 3, 1, 0.3, 0.1, 0.01, 0.001), lambda length: Clip(norm=length), "near to none"),
    Grid("pruning", _SHARES, lambda share: Prune(fraction=share), "degrades"),
    Grid(
        "noise",
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
        lambda std: GaussianNoise(std=std),
        "degrades",
    ),
)


def masking(n: int, data: Sequence[str], tell: Told) -> Table:
    """The smallest strength of each defense that hides from each attacker, and the accuracy at it."""
    found: list[Found] = []
    for i, name in enumerate(data):
        victims = Victims.of(name, n)
        for k, grid in enumerate(GRIDS):
            tell(f"{grid.name}, {name}", _TRAINING * (i + k / len(GRIDS)) / len(data))
            found += thresholds(victims, grid)
    clients = {one.label: one.grid.make(one.level) for one in found}
    spent = accuracies(clients, between(tell, _TRAINING, 1))
    plain = spent.courses[spent.baseline].final.mean
    return Table(
        "Where each defense begins to hide a picture, and what training loses there",
        _COLUMNS,
        tuple(_row(one, n, spent) for one in found),
        (
            f"from: the smallest strength at which the median SSIM is below {HIDDEN:g}, our choice; found by "
            "bisection, as if what hides at one strength hid at all greater ones. 'none' hides nowhere on "
            "the grid, and its last strength is shown. masking and pruning: the share of entries that are "
            "dropped, kept ones as they were; clipping: the norm; noise: the standard deviation.",
            ATTACKERS,
            NULL,
            f"{ACCURACY} That is {spent.null:.3f}, and without a defense they reach {plain:.3f}.",
            "paper: thresholds for MNIST, CIFAR-10 and LFW by SSIM, and accuracy at them. We have its claims "
            "and not its figures, so they stand in words. Its attacker is not told, and its detour around "
            "BatchNorm is not here, since our networks have none.",
            "Clipping takes nothing away: an attacker who is told divides the factor out, as one does who "
            "compares directions. Norms and noise are absolute, and mean another thing to the network that "
            "is trained: LeNet's gradients here are some 23 long.",
        ),
    )


def thresholds(victims: Victims, grid: Grid) -> list[Found]:
    """One for each attacker; both are scored at both strengths."""
    untold = cache(lambda at: victims.untold(grid.make(grid.levels[at])).ssim)
    told = cache(lambda at: victims.told(grid.make(grid.levels[at])).ssim)
    found = []
    for whom, ssim in ((DLG, untold), (TOLD, told)):
        place = first(len(grid.levels), lambda at, ssim=ssim: ssim(at) < HIDDEN)  # type: ignore[misc]
        at = len(grid.levels) - 1 if place is None else place
        scores = untold(at), told(at), victims.null.ssim
        found.append(Found(grid, victims.private.name, whom, grid.levels[at], place is not None, *scores))
    return found


def first(count: int, hides: Callable[[int], bool]) -> int | None:
    """The first of so many places that hides, if those behind it do too; None where the last does not."""
    return bisect_left(range(count - 1), True, key=hides) if hides(count - 1) else None


def _row(one: Found, n: int, spent: Utility) -> tuple[Value, ...]:
    levels = one.grid.levels
    return (
        one.data,
        one.grid.name,
        one.whom,
        f"{one.level:g}" if one.hides else f"none, until {one.level:g}",
        f"{levels[0]:g} to {levels[-1]:g}",
        n,
        one.untold,
        one.told,
        one.null,
        *cost(spent, one.label),
        one.grid.paper,
    )
