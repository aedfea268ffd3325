"""An audit's figures, as places that the page's template draws: small ones, one for each way of training."""

import math
from dataclasses import dataclass

from gradleak.cases import Record
from gradleak.cases.case import KNOWS, KNOWS_NOT
from gradleak.cases.record import Way
from gradleak.examination.findings import LEAK
from gradleak.report.audit_table import leak, psnr

# Pixels down, percent across, so that a figure fits a phone without shrinking its text.
HEIGHT = 170
TOP = 60.0  # decibels: beyond, no eye sees a difference
LEFT, RIGHT = -10.0, 60.0  # of the leak, in decibels above the null
_TICKS = (0.0, 20.0, 40.0, TOP)


@dataclass(frozen=True)
class Dot:
    """Above ``threshold`` it is a leak, and ``base`` is its null; ``x`` in percent, the others in pixels.

    ``median`` is that of all records of which this one is the worst off.
    """

    x: float
    y: float
    leaked: bool
    title: str
    base: float | None = None
    threshold: float | None = None
    median: float | None = None


@dataclass(frozen=True)
class Panel:
    """One way of training. ``says`` tells it to who cannot see it; ``across`` are ticks and their words."""

    number: int
    name: str
    says: str
    dots: tuple[Dot, ...]
    across: tuple[tuple[float, str], ...]
    height: int = HEIGHT
    down: tuple[tuple[float, str], ...] = ()

    @property
    def legs(self) -> list[tuple[Dot, Dot]]:
        return list(zip(self.dots, self.dots[1:], strict=False))


@dataclass(frozen=True)
class Bar:
    """What is left of the leak under one way of training; places across in percent, or None."""

    name: str
    defended: bool
    naive: float | None
    adaptive: float | None
    naive_leaks: bool
    adaptive_leaks: bool
    says: str


@dataclass(frozen=True)
class Bars:
    bars: tuple[Bar, ...]
    null: float
    threshold: float
    across: tuple[tuple[float, str], ...]


def ladder(record: Record) -> list[Panel]:
    """On every rung that was tried, the PSNR of the record that is worst off, over its null."""
    wide = 100 / max(len(record.rungs), 1)
    across = tuple((round(wide * (i + 0.5), 2), str(i + 1)) for i in range(len(record.rungs)))
    panels = []
    for number, way in enumerate(record.ways, 1):
        dots, said = [], []
        for (x, place), rung in zip(across, record.rungs, strict=True):
            found = record.bests(way.name, rung=rung)
            if not found:
                continue
            worst = max(found, key=lambda best: best.row.exposure).row
            median = record.median_psnr(way.name, rung=rung) or 0.0
            leaked = sum(best.row.leaked for best in found)
            title = f"{place}, {rung}: {leaked} of {len(found)} leak, the worst {psnr(worst.psnr)} dB"
            said.append(title)
            base, threshold = _y(worst.null_psnr), _y(worst.null_psnr + LEAK)
            dots.append(Dot(x, _y(worst.psnr), worst.leaked, title, base, threshold, _y(median)))
        if dots:
            panels.append(Panel(number, way.name, "; ".join(said) + ".", tuple(dots), across, down=_down()))
    return panels


def forecast(record: Record) -> list[Panel]:
    """A dot for each record: predicted across, achieved down."""
    across = tuple((round(100 * tick / TOP, 2), _tick(tick)) for tick in _TICKS)
    panels = []
    for number, way in enumerate(record.ways, 1):
        dots = []
        for best in record.bests(way.name):
            said = record.forecast(way.name, best.row.sample)
            if said is None or math.isnan(said.psnr) or math.isnan(best.row.psnr):
                continue
            name = record.samples[best.row.sample].name
            title = f"{name}: forecast {psnr(said.psnr)} dB, achieved {psnr(best.row.psnr)} dB"
            x = round(100 * _within(said.psnr, 0.0, TOP) / TOP, 2)
            dots.append(Dot(x, _y(best.row.psnr), best.row.leaked, title))
        if dots:
            panels.append(Panel(number, way.name, f"{len(dots)} records.", tuple(dots), across, down=_down()))
    return panels


def defenses(record: Record) -> Bars | None:
    """What each leaves of the leak of the record that is worst off; None where there is no defense."""
    if not any(way.defenses for way in record.ways):
        return None
    ticks = (0.0, LEAK, 20.0, 40.0, RIGHT)
    across = tuple(
        (_across(tick), {0.0: "null", LEAK: f"+{LEAK:g}"}.get(tick, f"+{tick:g}")) for tick in ticks
    )
    bars = tuple(_bar(record, way) for way in record.ways)
    return Bars(bars, _across(0.0), _across(LEAK), (*across[:-1], (across[-1][0], f"+{RIGHT:g} dB")))


def _bar(record: Record, way: Way) -> Bar:
    worst: dict[str, float | None] = {}
    for who in (KNOWS_NOT, KNOWS):
        leaks = [b.row.leak for b in record.bests(way.name, attacker=who) if not math.isnan(b.row.leak)]
        worst[who] = max(leaks, default=None)
    naive, adaptive = worst[KNOWS_NOT], worst[KNOWS]
    said = [f"naive {leak(naive)} dB"] * (naive is not None)
    said += [f"{'adaptive ' if way.defenses else ''}{leak(adaptive)} dB"] * (adaptive is not None)
    return Bar(
        name=way.name,
        defended=bool(way.defenses),
        naive=None if naive is None else _across(naive),
        adaptive=None if adaptive is None else _across(adaptive),
        naive_leaks=naive is not None and naive >= LEAK,
        adaptive_leaks=adaptive is not None and adaptive >= LEAK,
        says=f"{way.name}: {', '.join(said) or 'no guess'}",
    )


def _down() -> tuple[tuple[float, str], ...]:
    return tuple((_y(tick), _tick(tick)) for tick in _TICKS)


def _tick(value: float) -> str:
    return f"{value:g}+" if value == TOP else f"{value:g}"


def _y(value: float) -> float:
    return round(HEIGHT * (1 - _within(value, 0.0, TOP) / TOP), 1)


def _across(value: float) -> float:
    return round(100 * (_within(value, LEFT, RIGHT) - LEFT) / (RIGHT - LEFT), 2)


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most) if not math.isnan(value) else least
