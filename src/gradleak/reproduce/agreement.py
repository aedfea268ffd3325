"""How well predictions agree with what attacks reached: correlations, the typical miss, and its reasons."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from scipy.stats import pearsonr, spearmanr

from gradleak.attacks import Outcome
from gradleak.reproduce.calibration import Point
from gradleak.reproduce.table import Column, Table, Value

Predictor = Callable[[Point], float | None]

PREDICTORS: dict[str, Predictor] = {"I2F": lambda p: p.influence, "decibels": lambda p: p.decibels}

_ENDS = {Outcome.BUDGET: "its budget ends", Outcome.STALLED: "stuck, at a kink or a local minimum,"}

MISS = 2.0
"""Decibels between predicted and reached, from which a point is among the failures."""


def agreement(
    points: Sequence[Point], title: str, of: Callable[[Point], str], *, every: bool = False
) -> Table:
    """By group and attack, on all points and on those where the attack arrived.

    Of ``every`` predictor, or of that which speaks of the kind of attacker that it is.
    """
    rows: list[tuple[Value, ...]] = []
    for group in dict.fromkeys(map(of, points)):
        for attack in dict.fromkeys(p.attack for p in points):
            chosen = [p for p in points if of(p) == group and p.attack == attack]
            for name, predicted in PREDICTORS.items():
                if not every and any(p.prior == (name == "I2F") for p in chosen):
                    continue
                pairs = _pairs(chosen, predicted)
                arrived = _pairs([p for p in chosen if p.arrived], predicted)
                if pairs:
                    rows.append((group, attack, name, *_agreement(pairs), *_agreement(arrived)))
    numbers = [
        Column(f"{which}{name}", form)
        for which in ("", "arrived: ")
        for name, form in (("points", ""), ("Pearson", ".3f"), ("Spearman", ".3f"), ("off, dB", ".2f"))
    ]
    return Table(title, (Column("of"), Column("attack"), Column("predictor"), *numbers), tuple(rows))


def strongest(points: Sequence[Point]) -> Table:
    """What a defender asks: the nearest answer of any attack, against the better of the two predictions."""
    updates: dict[tuple[object, ...], list[Point]] = {}
    for p in points:
        updates.setdefault((p.network, p.data, p.picture, p.defense, p.level), []).append(p)
    families: dict[str, list[tuple[float, float]]] = {}
    for tried in updates.values():
        predicted = min(value for p in tried for value in (p.influence, p.decibels) if value is not None)
        families.setdefault(tried[0].family, []).append((predicted, min(p.reached for p in tried)))
    rows = tuple((family, *_agreement(_finite(pairs))) for family, pairs in families.items())
    numbers = (
        Column("updates"),
        Column("Pearson", ".3f"),
        Column("Spearman", ".3f"),
        Column("off, dB", ".2f"),
    )
    notes = ("As gl.predict says it. Which attack is the nearest, only the truth tells.",)
    return Table("The best attack against the better prediction", (Column("of"), *numbers), rows, notes)


def failures(points: Sequence[Point]) -> Table:
    """What each attack's own predictor misses, counted by reason."""
    rows: list[tuple[Value, ...]] = []
    for network in dict.fromkeys(p.network for p in points):
        for attack in dict.fromkeys(p.attack for p in points):
            asked = [p for p in points if (p.network, p.attack) == (network, attack)]
            reasons = [why(p) for p in asked]
            for reason in sorted({r for r in reasons if r is not None}):
                found = [p for p, r in zip(asked, reasons, strict=True) if r == reason]
                expected = statistics.median(own(p) for p in found)
                levels = ", ".join(dict.fromkeys(p.defense for p in found))
                rows.append(
                    (
                        network,
                        attack,
                        reason,
                        levels,
                        len(found),
                        len(asked),
                        None if math.isinf(expected) else expected,
                        statistics.median(p.reached for p in found),
                    )
                )
    columns = (
        Column("of"),
        Column("attack"),
        Column("why"),
        Column("defenses"),
        Column("points"),
        Column("of so many"),
        Column("predicted", ".1e"),
        Column("reached", ".1e"),
    )
    notes = (
        f"Misses by {MISS:g} dB or more: DLG against I2F, attacks with a prior against decibels. Medians.",
    )
    return Table("Where it fails, and why", columns, tuple(rows), notes)


def own(point: Point) -> float:
    """What is predicted of the kind of attacker that it is."""
    return point.influence if point.decibels is None or not point.prior else point.decibels


def why(point: Point) -> str | None:
    """Why an attack did not reach what was predicted of it; None where it did, or nothing was changed."""
    predicted = own(point)
    if not predicted:
        return None
    if math.isinf(predicted):
        return "bound: directions are hidden, its error is infinite"
    if abs(_off(predicted, point.reached)) < MISS:
        return None
    if point.prior and point.reached < predicted:
        return "bound: the attack does better than a Gaussian prior and the noise's size allow"
    if not point.arrived:
        return f"attack: {_ENDS.get(point.outcome, point.outcome)} before the update is explained"
    if point.prior:
        return "bound: another picture explains the update as well"
    if predicted > point.gray:
        return "bound: worse than gray is predicted, beyond where the update is linear"
    if point.outcome is Outcome.BUDGET:
        return "attack: its budget ends before faint directions settle"
    return "bound: the update bends within the error"


def _pairs(points: Iterable[Point], predicted: Predictor) -> list[tuple[float, float]]:
    return _finite((predicted(p), p.reached) for p in points)


def _finite(pairs: Iterable[tuple[float | None, float]]) -> list[tuple[float, float]]:
    """Those that have logarithms."""
    return [(a, b) for a, b in pairs if a and math.isfinite(a) and b and math.isfinite(b)]


def _agreement(pairs: Sequence[tuple[float, float]]) -> tuple[Value, ...]:
    off = statistics.median(abs(_off(*pair)) for pair in pairs) if pairs else None
    predicted, reached = (
        ([math.log(value) for value in one] for one in zip(*pairs, strict=True)) if pairs else ([], [])
    )
    # Of fewer than three points, or of equal ones, there is no correlation to speak of.
    if len(pairs) < 3 or len(set(predicted)) < 2 or len(set(reached)) < 2:
        return len(pairs), None, None, off
    return (
        len(pairs),
        float(pearsonr(predicted, reached)[0]),
        float(spearmanr(predicted, reached)[0]),
        off,
    )


def _off(predicted: float, reached: float) -> float:
    return 20 * math.log10(reached / predicted)
