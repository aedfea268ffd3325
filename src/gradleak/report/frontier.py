"""The frontier as a page, figures and numbers: every defense's leak beside the accuracy that is left."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gradleak.files import write_together
from gradleak.report.html import environment
from gradleak.report.sheet import ACCENT, INK, PAPER, SOFT
from gradleak.tradeoff import Leak, Point, Tradeoff
from gradleak.tradeoff.frontier import TOO_FEW, counted, predicted_in, telling

TOP = 60.0  # decibels: beyond, no eye sees a difference
HEIGHT = 420
# After Okabe and Ito's: those that stand out from paper, and as many that do so from a dark one. A curve is
# told by its number too, since there are more curves than colours.
LIGHT = ("#0072b2", "#b34700", "#00795a", "#9c3d74", "#8a6d00", "#1c1b19")
DARK = ("#56b4e9", "#ff9a5c", "#33c79e", "#e3a0c6", "#f0d24a", "#ebe9e4")
_MARKS = "osD^vPX"


@dataclass(frozen=True)
class Place:
    """One setting in the chart: across in percent of its width, down in pixels."""

    x: float
    adaptive: float
    naive: float
    chosen: bool
    title: str


@dataclass(frozen=True)
class Line:
    number: int
    title: str
    places: tuple[Place, ...]

    @property
    def hue(self) -> int:
        return (self.number - 1) % len(LIGHT)

    @property
    def legs(self) -> list[tuple[Place, Place]]:
        return list(zip(self.places, self.places[1:], strict=False))

    @property
    def labelled(self) -> Place:
        """Where its number stands: at the setting that was chosen, or at the last."""
        return next((place for place in self.places if place.chosen), self.places[-1])


@dataclass(frozen=True)
class Chart:
    """``across`` and ``down`` are ticks: their places and what they say."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    down: tuple[tuple[float, str], ...]
    bare: Place
    null: float
    target: float | None
    height: int = HEIGHT


def write_tradeoff(found: Tradeoff, folder: Path) -> list[Path]:
    """Write the page, the figures and the numbers into ``folder``, and return the files.

    None of them holds a picture.
    """
    folder = Path(folder)
    contents = {folder / "report.html": page(found).encode("utf-8", "replace")}
    if _drawable(found):
        contents |= {folder / f"frontier.{kind}": figure(found, kind) for kind in ("png", "svg")}
    contents[folder / "defend.json"] = json.dumps(found.to_dict(), indent=2, allow_nan=False).encode() + b"\n"
    write_together(contents, [folder / "frontier.png", folder / "frontier.svg"])
    return list(contents)


def page(found: Tradeoff) -> str:
    """The page as text."""
    return (
        environment()
        .get_template("frontier.html")
        .render(
            found=found,
            chart=chart(found),
            colours=list(zip(LIGHT, DARK, strict=True)),
            decibels=decibels,
            accuracy=accuracy,
            predicted=predicted_in,
            counted=counted,
            verdict=lambda point: verdict(found, point),
            cost=lambda point: cost(point, found.bare),
            pictures=False,
        )
    )


def chart(found: Tradeoff) -> Chart | None:
    """None where no accuracy was measured."""
    if not _drawable(found) or found.bare.course is None:
        return None
    every = [point for curve in found.curves for point in curve.trained]
    shares = [_accuracy(point) for point in (*every, found.bare)]
    low = max(0.0, (100 * min(shares)) // 10 * 10)
    high = min(100.0, (100 * max(shares)) // 10 * 10 + 10)

    def x(share: float) -> float:
        return round(100 * (100 * share - low) / (high - low), 2)

    def y(value: float) -> float:
        return round(HEIGHT * (1 - min(max(value, 0.0), TOP) / TOP), 1)

    def place(point: Point, title: str, chosen: bool) -> Place:
        told = (
            f"{title}, {point.words}: {decibels(point.adaptive)} dB at best, {decibels(point.naive)} dB "
            f"naive, accuracy {accuracy(point)}"
        )
        return Place(x(_accuracy(point)), y(point.adaptive.worst), y(point.naive.worst), chosen, told)

    lines = [
        Line(n, curve.title, tuple(place(p, curve.title, p is curve.chosen) for p in curve.trained))
        for n, curve in enumerate(found.curves, 1)
        if curve.trained
    ]
    step = 10 if high - low <= 50 else 20
    across = [(x(share / 100), f"{share}") for share in range(int(low), int(high) + 1, step)]
    down = [(y(value), f"{value}" if value < TOP else f"{value:g}+") for value in range(0, int(TOP) + 1, 10)]
    bare = place(found.bare, "no defense", False)
    target = None if found.target.psnr is None else y(found.target.psnr)
    return Chart(tuple(lines), tuple(across), tuple(down), bare, y(found.null.worst), target)


def figure(found: Tradeoff, format: str) -> bytes:
    """For a slide: the same chart, on paper."""
    drawn = Figure(figsize=(10.5, 6.0), facecolor=PAPER, layout="constrained")
    axes = drawn.subplots()
    axes.set_facecolor(PAPER)
    for n, curve in enumerate(found.curves, 1):
        if not curve.trained:
            continue
        hue, mark = LIGHT[(n - 1) % len(LIGHT)], _MARKS[(n - 1) % len(_MARKS)]
        shares = [100 * _accuracy(point) for point in curve.trained]
        adaptive = [min(point.adaptive.worst, TOP) for point in curve.trained]
        naive = [min(point.naive.worst, TOP) for point in curve.trained]
        axes.plot(shares, naive, color=hue, linestyle=(0, (4, 3)), linewidth=1, marker=mark, markersize=3)
        axes.plot(
            shares, adaptive, color=hue, linewidth=1.8, marker=mark, markersize=5, label=f"{n} {curve.title}"
        )
        chosen = next((i for i, p in enumerate(curve.trained) if p is curve.chosen), None)
        at = len(shares) - 1 if chosen is None else chosen
        if chosen is not None:
            axes.plot(shares[at], adaptive[at], mark, markersize=12, fillstyle="none", color=hue)
        axes.annotate(
            str(n), (shares[at], adaptive[at]), (6, 6), textcoords="offset points", color=hue, weight="bold"
        )
    axes.plot(100 * _accuracy(found.bare), min(found.bare.adaptive.worst, TOP), "*", markersize=14, color=INK)
    axes.annotate(
        "no defense", (100 * _accuracy(found.bare), min(found.bare.adaptive.worst, TOP)), (-8, -4),
        textcoords="offset points", ha="right", va="top", color=INK, fontsize=9,
    )  # fmt: skip
    axes.axhline(found.null.worst, color=SOFT, linewidth=1.2)
    axes.text(
        1,
        found.null.worst,
        " a guess without the update",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="top",
        color=SOFT,
        fontsize=8,
    )
    if found.target.psnr is not None:
        axes.axhline(found.target.psnr, color=ACCENT, linewidth=1.2, linestyle=":")
        axes.text(
            1,
            found.target.psnr,
            f" the target, {found.target.psnr:g} dB",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom",
            color=ACCENT,
            fontsize=8,
        )
    axes.set(ylim=(0, TOP + 2))
    axes.set_xlabel("accuracy, %", color=SOFT)
    axes.set_ylabel(f"PSNR of the worst picture, dB ({TOP:g}: and above)", color=SOFT)
    axes.set_title(
        "Solid: the best attacker we have; dashed: one who does not know the defense",
        loc="left",
        color=INK,
        fontsize=10,
    )
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right upper", frameon=False, fontsize=9)
    file = io.BytesIO()
    # Letters as shapes, and no date: a figure looks, and is, the same wherever it is made.
    with mpl.rc_context({"svg.hashsalt": "gradleak", "svg.fonttype": "path"}):
        drawn.savefig(file, format=format, dpi=160, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def decibels(leak: Leak) -> str:
    """Of the worst picture."""
    return f"{TOP:g}+" if leak.worst >= TOP else f"{leak.worst:.1f}".replace("-", "−")


def verdict(found: Tradeoff, point: Point) -> str:
    """Whether it holds the target, and whether that is only because our attacks failed."""
    if point.doubted(found.target):
        return f"held only by failure of our attacks; predicted {predicted_in(point)} dB"
    return "yes" if found.target.holds(point.adaptive) else "no"


def accuracy(point: Point) -> str:
    return "–" if point.course is None else f"{100 * point.course.final.mean:.1f} %"


def cost(point: Point, bare: Point) -> str:
    """In points of accuracy, with its interval."""
    lost: Any = point.cost(bare)
    if lost is None:
        return "–"
    few = f"{100 * lost.low:.1f} to {100 * lost.high:.1f}" if telling(lost) else TOO_FEW
    return f"{100 * lost.mean:.1f} ({few})".replace("-", "−")


def _accuracy(point: Point) -> float:
    return 0.0 if point.course is None else point.course.final.mean


def _drawable(found: Tradeoff) -> bool:
    return found.bare.course is not None and any(curve.trained for curve in found.curves)
