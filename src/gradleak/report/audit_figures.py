"""An audit's figures, as places that the page's template draws: small ones, one for each way of training."""

import math
from dataclasses import dataclass

from gradleak.cases import Record
from gradleak.cases.case import KNOWS, KNOWS_NOT
from gradleak.cases.done import Way
from gradleak.examination.scale import Scale

# Pixels down, percent across, so that a figure fits a phone without shrinking its text.
HEIGHT = 170


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
    """On every rung that was tried, how near a guess came to the record that is worst off, over its null."""
    scale, wide = record.scale, 100 / max(len(record.rungs), 1)
    across = tuple((round(wide * (i + 0.5), 2), str(i + 1)) for i in range(len(record.rungs)))
    panels = []
    for number, way in enumerate(record.ways, 1):
        dots, said = [], []
        for (x, place), rung in zip(across, record.rungs, strict=True):
            found = record.bests(way.name, rung=rung)
            if not found:
                continue
            worst = max(found, key=lambda best: best.row.exposure).row
            median = record.median(way.name, rung=rung) or 0.0
            leaked = sum(best.row.leaked for best in found)
            title = f"{place}, {rung}: {leaked} of {len(found)} leak, the worst {scale.said(worst.value)}"
            said.append(title)
            base, threshold = _y(scale, worst.null), _y(scale, worst.null + scale.leak)
            dots.append(
                Dot(x, _y(scale, worst.value), worst.leaked, title, base, threshold, _y(scale, median))
            )
        if dots:
            panels.append(
                Panel(number, way.name, "; ".join(said) + ".", tuple(dots), across, down=_down(scale))
            )
    return panels


def forecast(record: Record) -> list[Panel]:
    """A dot for each record: predicted across, achieved down."""
    scale = record.scale
    across = tuple((round(100 * tick / scale.top, 2), _tick(scale, tick)) for tick in scale.ticks)
    panels = []
    for number, way in enumerate(record.ways, 1):
        dots = []
        for best in record.bests(way.name):
            said = record.forecast(way.name, best.row.sample)
            if said is None or math.isnan(said.value) or math.isnan(best.row.value):
                continue
            name = record.samples[best.row.sample].name
            title = f"{name}: forecast {scale.said(said.value)}, achieved {scale.said(best.row.value)}"
            x = round(100 * _within(said.value, 0.0, scale.top) / scale.top, 2)
            dots.append(Dot(x, _y(scale, best.row.value), best.row.leaked, title))
        if dots:
            panels.append(
                Panel(number, way.name, f"{len(dots)} records.", tuple(dots), across, down=_down(scale))
            )
    return panels


def defenses(record: Record) -> Bars | None:
    """What each leaves of the leak of the record that is worst off; None where there is no defense."""
    if not any(way.defenses for way in record.ways):
        return None
    scale = record.scale
    # The last of the axis' own ticks is its end, which has the unit.
    ticks = (0.0, scale.leak, *(tick for tick in scale.ticks if scale.leak < tick))
    words = {0.0: "null", scale.leak: f"+{scale.leak:g}", ticks[-1]: f"+{ticks[-1]:g} {scale.apart}"}
    across = tuple((_across(scale, tick), words.get(tick, f"+{tick:g}")) for tick in ticks)
    bars = tuple(_bar(record, way) for way in record.ways)
    return Bars(bars, _across(scale, 0.0), _across(scale, scale.leak), across)


def _bar(record: Record, way: Way) -> Bar:
    scale, worst = record.scale, dict[str, float | None]()
    for who in (KNOWS_NOT, KNOWS):
        leaks = [b.row.leak for b in record.bests(way.name, attacker=who) if not math.isnan(b.row.leak)]
        worst[who] = max(leaks, default=None)
    naive, adaptive = worst[KNOWS_NOT], worst[KNOWS]
    said = [f"naive {scale.gap(naive)} {scale.apart}"] * (naive is not None)
    adapts = "adaptive " if way.defenses else ""
    said += [f"{adapts}{scale.gap(adaptive)} {scale.apart}"] * (adaptive is not None)
    return Bar(
        name=way.name,
        defended=bool(way.defenses),
        naive=None if naive is None else _across(scale, naive),
        adaptive=None if adaptive is None else _across(scale, adaptive),
        naive_leaks=naive is not None and naive >= scale.leak,
        adaptive_leaks=adaptive is not None and adaptive >= scale.leak,
        says=f"{way.name}: {', '.join(said) or 'no guess'}",
    )


def _down(scale: Scale) -> tuple[tuple[float, str], ...]:
    return tuple((_y(scale, tick), _tick(scale, tick)) for tick in scale.ticks)


def _tick(scale: Scale, value: float) -> str:
    return f"{value:g}+" if value == scale.top < scale.whole else f"{value:g}"


def _y(scale: Scale, value: float) -> float:
    return round(HEIGHT * (1 - _within(value, 0.0, scale.top) / scale.top), 1)


def _across(scale: Scale, value: float) -> float:
    left, right = scale.spread
    return round(100 * (_within(value, left, right) - left) / (right - left), 2)


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most) if not math.isnan(value) else least
