"""A forecast as figures and a page: by layer and sample, every number in decibels, beside its null."""

import io
import json
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradleak.files import write_together
from gradleak.report.html import environment
from gradleak.report.pictures import data_uri
from gradleak.report.sheet import ACCENT, INK, PAPER, SOFT
from gradleak.risk import Forecast
from gradleak.risk.by_layer import LEAK, Alone
from gradleak.risk.predict import EXACT

MOST = 24  # samples in the figures: the most exposed
WASH = "#f1eee7"  # as on the page
_NAME = 28  # characters of a layer's path
_DEEP = 30.0  # decibels above the null: beyond, the shade is the deepest
_SHADES = LinearSegmentedColormap.from_list("leak", [WASH, "#d9967f", ACCENT, "#4a1208"])
_PALE = "#cfcabf"  # of hatching, so that the number on it can be read
_HATCH: dict[str, Any] = {"hatch": "////", "linewidth": 0}
_TITLE: dict[str, Any] = {"loc": "left", "color": INK, "fontsize": 10, "pad": 8}
_TOP = 60.0  # decibels: beyond, no eye sees a difference, and bars would hide each other


def write_forecast(found: Forecast, folder: Path, *, title: str = "a forecast") -> list[Path]:
    """Write the page, the figure and the numbers into ``folder``, and return the files.

    None of them holds a picture.
    """
    folder = Path(folder)
    png, svg = figure(found, "png"), figure(found, "svg")
    contents = {
        folder / "risk.html": page(found, png, title).encode("utf-8", "replace"),
        folder / "risk.png": png,
        folder / "risk.svg": svg,
        folder / "risk.json": json.dumps(found.to_dict(), indent=2, allow_nan=False).encode() + b"\n",
    }
    write_together(contents, ())
    return list(contents)


def page(found: Forecast, png: bytes, title: str) -> str:
    """The page as text; it carries its figure."""
    headline, _, deck = found.verdict.partition("; " if len(found.samples) == 1 else ", ")
    return (
        environment()
        .get_template("forecast.html")
        .render(
            found=found,
            title=title,
            headline=headline if deck else headline.rstrip("."),
            deck=deck,
            figure=data_uri(png),
            shown=min(MOST, len(found.samples)),
            number=number,
            rows=[(layer, _leaking(found, layer)) for layer in found.layers],
            pictures=False,
            exact=f"{EXACT:g}",
        )
    )


def figure(found: Forecast, format: str) -> bytes:
    """Above, a bar for each sample and its null; below, a cell for each layer and sample."""
    shown = found.order[:MOST]
    rows = 1 + len(found.layers) if found.layers else 0
    wide = max(7.0, 2.6 + 0.62 * len(shown))
    heights = [2.6, 0.34 * rows + 0.3] if rows else [2.6]
    drawn = Figure(figsize=(wide, sum(heights) + 1.5), facecolor=PAPER, layout="constrained")
    axes = drawn.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _bars(axes[0], found, shown)
    if rows:
        _heat(drawn, axes[1], found, shown)
    axes[-1].set_xlabel("sample, the most exposed first" if len(shown) > 1 else "sample", color=SOFT)
    file = io.BytesIO()
    # Letters as shapes, and no date: a figure looks, and is, the same wherever it is made.
    with mpl.rc_context({"svg.hashsalt": "gradleak", "svg.fonttype": "path"}):
        drawn.savefig(file, format=format, dpi=160, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def number(value: float) -> str:
    return f"{value:.0f}" if isfinite(value) else "∞" if value > 0 else "–"


def _bars(axes: Axes, found: Forecast, shown: list[int]) -> None:
    for place, i in enumerate(shown):
        one = found.samples[i]
        height = _between(one.psnr, 0.0, _TOP)
        axes.bar(
            place,
            height,
            width=0.62,
            facecolor=ACCENT if one.leaks else PAPER,
            edgecolor=ACCENT if one.leaks else SOFT,
            linewidth=1.2,
        )
        top = height if one.leaks else max(height, min(one.null_psnr + LEAK, _TOP))
        axes.text(place, top + 1, number(one.psnr), ha="center", va="bottom", color=INK, fontsize=9)
        if isfinite(one.null_psnr):
            axes.hlines(one.null_psnr, place - 0.42, place + 0.42, color=INK, linewidth=2)
            axes.hlines(
                one.null_psnr + LEAK, place - 0.42, place + 0.42, color=INK, linewidth=1, linestyle=":"
            )
    axes.axhline(EXACT, color=SOFT, linewidth=0.8, linestyle="--")
    axes.text(len(shown) - 0.5, EXACT, " exactly", color=SOFT, va="center", fontsize=9)
    axes.set(xlim=(-0.5, len(shown) - 0.5), ylim=(0, _TOP + 6))
    axes.set_ylabel("predicted PSNR, dB", color=SOFT, fontsize=9)
    axes.set_title(f"Line: the null; dots: {LEAK:g} dB above it, where a leak begins", **_TITLE)
    _samples(axes, shown)
    axes.spines[["top", "right"]].set_visible(False)


def _heat(drawn: Figure, axes: Axes, found: Forecast, shown: list[int]) -> None:
    table = [[found.samples[i].psnr for i in shown]]
    table += [[float(layer.psnr[i]) for i in shown] for layer in found.layers]
    nulls = [found.samples[i].null_psnr for i in shown]
    unsettled = [[False] * len(shown), *([layer.open[i] for i in shown] for layer in found.layers)]
    above = [
        [0.0 if is_open else _between(v - null, 0.0, _DEEP) for v, null, is_open in zip(*row, strict=True)]
        for row in zip(table, [nulls] * len(table), unsettled, strict=True)
    ]
    painted = axes.imshow(above, cmap=_SHADES, vmin=0, vmax=_DEEP, aspect="auto")
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            leaks = value - nulls[x] >= LEAK and not unsettled[y][x]
            if unsettled[y][x]:
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=PAPER, edgecolor=_PALE, **_HATCH)
                )
            ink = PAPER if above[y][x] > 0.45 * _DEEP else INK
            bound = "≤" if unsettled[y][x] else ""
            text = f"{bound}{number(value)}{'*' if leaks else ''}" if value == value else "?"
            axes.text(
                x,
                y,
                text,
                ha="center",
                va="center",
                color=ink,
                fontsize=9,
                weight="bold" if leaks else "normal",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5} if unsettled[y][x] else None,
            )
    names = ["the whole update", *(shorten(layer.name, _NAME, placeholder="…") for layer in found.layers)]
    axes.set_yticks(range(len(names)), names)
    title = f"By each layer's part alone, dB; *: {LEAK:g} dB or more above the null"
    if any(map(any, unsettled)):
        title += "\nHatched: not settled, and not counted as leaks; ≤ is at most, ? is unknown"
    axes.set_title(title, **_TITLE)
    for y in range(1, len(table)):
        axes.axhline(y - 0.5, color=PAPER, linewidth=4 if y == 1 else 1)
    for x in range(1, len(shown)):
        axes.axvline(x - 0.5, color=PAPER, linewidth=1)
    _samples(axes, shown)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = drawn.colorbar(painted, ax=axes, pad=0.02, fraction=0.03, aspect=14, ticks=[0, 10, 20, _DEEP])
    bar.ax.set_yticklabels(["null", "+10", "+20", f"+{_DEEP:g} dB"])
    bar.ax.tick_params(labelsize=8, colors=SOFT, length=2)
    bar.outline.set_visible(False)


def _between(value: float, least: float, most: float) -> float:
    return least if value != value else min(max(value, least), most)


def _samples(axes: Axes, shown: list[int]) -> None:
    axes.set_xticks(range(len(shown)), [str(i + 1) for i in shown])
    axes.tick_params(labelsize=9, colors=SOFT)
    axes.set_facecolor(PAPER)


def _leaking(found: Forecast, layer: Alone) -> list[tuple[float, bool]]:
    leaking = layer.leaking([one.null_psnr for one in found.samples])
    return list(zip(layer.psnr.tolist(), leaking, strict=True))
