"""The chart of every picture's PSNR against its nulls, as places that the page's template draws."""

import math
from dataclasses import dataclass

from gradleak.audit.findings import LEAK, Finding
from gradleak.report import wording

# Pixels; across, everything is in percent, so that the chart fits a phone without shrinking its text.
HEIGHT = 280
ABOVE = -22  # where an exact copy is drawn: infinity lies above the axis
MOST_TICKS = 6
MOST_DIGITS = 32  # below the axis, on a phone


@dataclass(frozen=True)
class Tick:
    y: float
    value: int


@dataclass(frozen=True)
class Column:
    """One picture. A ``y`` that is None has no place on the axis."""

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


def chart(ordered: list[tuple[int, Finding]]) -> Chart | None:
    """None where not one value can be placed on an axis."""
    findings = [finding for _, finding in ordered]
    places = [v for f in findings for v in (f.psnr, f.null_psnr, f.random_psnr, f.best_null_psnr + LEAK)]
    finite = [v for v in places if math.isfinite(v)]
    if not finite:
        return None
    ticks = _ticks(min(finite), max(finite))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float | None:
        return round(HEIGHT * (high - value) / (high - low), 1) if math.isfinite(value) else None

    wide = 100 / len(ordered)
    every = math.ceil(len(ordered) * len(str(len(ordered))) / MOST_DIGITS)
    columns = tuple(
        Column(
            number=number,
            shows_number=i % every == 0,
            title=_title(number, f),
            x=round(wide * (i + 0.5), 3),
            y=ABOVE if f.psnr == math.inf else y(f.psnr),
            base=y(f.best_null_psnr),
            weaker=y(min(f.null_psnr, f.random_psnr)),
            threshold=y(f.best_null_psnr + LEAK),
            exact=f.psnr == math.inf,
            leaked=f.leaked,
        )
        for i, (number, f) in enumerate(ordered)
    )
    return Chart(columns, tuple(Tick(y(v) or 0.0, v) for v in ticks), round(min(0.6 * wide, 6.0), 3))


def _title(number: int, finding: Finding) -> str:
    null = wording.null_psnr(finding.best_null_psnr)
    return (
        f"{number}, {finding.name}: recovered {wording.recovered_psnr(finding)}, "
        f"better null {null}, {'leaked' if finding.leaked else 'not leaked'}"
    )


def _ticks(low: float, high: float) -> list[int]:
    """Round numbers around [low, high], at least two and few enough to read."""
    step = next(s for s in (5, 10, 20, 50, 100, 10**9) if (high - low) / s <= MOST_TICKS - 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * k for k in range(first, max(last, first + 1) + 1)]
