"""The chart of PSNR against the nulls, as places that the page's template draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradleak.examination.findings import LEAK, Finding, Findings
from gradleak.report import wording

# Pixels; across, everything is in percent, so that the chart fits a phone without shrinking its text.
HEIGHT = 280
ABOVE = -22  # where an exact copy is drawn: infinity lies above the axis
MOST_TICKS = 6
MOST_DIGITS = 32  # below the axis, on a phone


@dataclass(frozen=True)
class Point:
    """What one column shows, in decibels: a picture, or the median of many."""

    number: int
    title: str
    psnr: float
    base: float
    leaked: bool
    weaker: float = math.nan
    name: str = ""


@dataclass(frozen=True)
class Tick:
    y: float
    value: int


@dataclass(frozen=True)
class Column:
    """One point in its place. A ``y`` that is None has no place on the axis."""

    number: int
    shows_number: bool
    title: str
    x: float
    y: float | None
    base: float | None
    weaker: float | None
    threshold: float | None
    exact: bool
    leaked: bool
    lines: tuple[str, ...] = ()  # its name, where there is room below the axis


@dataclass(frozen=True)
class Chart:
    columns: tuple[Column, ...]
    ticks: tuple[Tick, ...]
    band: float
    height: int = HEIGHT
    above: int = ABOVE

    @property
    def any_exact(self) -> bool:
        return any(column.exact for column in self.columns)

    @property
    def any_missing(self) -> bool:
        return any(column.y is None for column in self.columns)

    @property
    def most_lines(self) -> int:
        return max(len(column.lines) for column in self.columns)


def chart(ordered: list[tuple[int, Finding]]) -> Chart | None:
    """A column per picture."""
    return drawn(
        [
            Point(
                number=number,
                title=_title(number, f),
                psnr=f.psnr,
                base=f.best_null_psnr,
                leaked=f.leaked,
                weaker=min(f.null_psnr, f.random_psnr),
            )
            for number, f in ordered
        ]
    )


def chart_of_rungs(attacked: Sequence[tuple[int, str, Findings]]) -> Chart | None:
    """A column per rung, with its number and its name."""
    return drawn(
        [
            Point(
                number=number,
                title=_rung_title(number, name, f),
                psnr=f.median_psnr,
                base=f.median_null_psnr,
                leaked=f.leaked > 0,
                name=name,
            )
            for number, name, f in attacked
        ]
    )


def drawn(points: Sequence[Point]) -> Chart | None:
    """None where not one value can be placed on an axis."""
    places = [v for p in points for v in (p.psnr, p.weaker, p.base, p.base + LEAK)]
    finite = [v for v in places if math.isfinite(v)]
    if not finite:
        return None
    ticks = _ticks(min(finite), max(finite))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float | None:
        return round(HEIGHT * (high - value) / (high - low), 1) if math.isfinite(value) else None

    wide = 100 / len(points)
    every = math.ceil(len(points) * len(str(len(points))) / MOST_DIGITS)
    columns = tuple(
        Column(
            number=p.number,
            shows_number=i % every == 0,
            title=p.title,
            x=round(wide * (i + 0.5), 3),
            y=ABOVE if p.psnr == math.inf else y(p.psnr),
            base=y(p.base),
            weaker=y(p.weaker),
            threshold=y(p.base + LEAK),
            exact=p.psnr == math.inf,
            leaked=p.leaked,
            lines=_two_lines(p.name),
        )
        for i, p in enumerate(points)
    )
    return Chart(columns, tuple(Tick(y(v) or 0.0, v) for v in ticks), round(min(0.6 * wide, 6.0), 3))


def _title(number: int, finding: Finding) -> str:
    null = wording.null_psnr(finding.best_null_psnr)
    return (
        f"{number}, {finding.name}: recovered {wording.recovered_psnr(finding)}, "
        f"better null {null}, {'leaked' if finding.leaked else 'not leaked'}"
    )


def _rung_title(number: int, name: str, found: Findings) -> str:
    if not found.scored:
        return f"{number}, {name}: no guess"
    return (
        f"{number}, {name}: median {wording.short_decibels(found.median_psnr)}, "
        f"null {wording.short_decibels(found.median_null_psnr)}, "
        f"{found.leaked} of {len(found.findings)} leaked"
    )


def _two_lines(name: str) -> tuple[str, ...]:
    """Broken where the longer half is shortest."""
    words = name.split()
    halves = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return min(halves, key=lambda half: max(map(len, half))) if halves else tuple(words)


def _ticks(low: float, high: float) -> list[int]:
    """Round numbers around [low, high], at least two and few enough to read."""
    step = next(s for s in (5, 10, 20, 50, 100, 10**9) if (high - low) / s <= MOST_TICKS - 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * k for k in range(first, max(last, first + 1) + 1)]
