"""The predicted against the reached error, as a picture: one panel for each attack and predictor."""

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradleak.reproduce.agreement import PREDICTORS
from gradleak.reproduce.calibration import Point

_SHAPES = "osD^vP"
# Okabe and Ito's, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SIDE = 4.0  # inches


def scatter(points: Sequence[Point]) -> bytes:
    """A PNG. Filled marks are attacks that arrived, hollow ones explain the update worse than the truth."""
    attacks = list(dict.fromkeys(p.attack for p in points))
    families = list(dict.fromkeys(p.family for p in points))
    figure = Figure(figsize=(_SIDE * len(attacks), _SIDE * len(PREDICTORS) + 0.4), layout="constrained")
    panels = figure.subplots(len(PREDICTORS), len(attacks), squeeze=False)
    for row, name in zip(panels, PREDICTORS, strict=True):
        for axes, attack in zip(row, attacks, strict=True):
            _panel(axes, [p for p in points if p.attack == attack], families, name)
            axes.set_title(f"{attack} against {name}", fontsize=10)
            axes.set_xlabel("predicted error of a pixel")
            axes.set_ylabel("reached")
    marks, names = panels[0][0].get_legend_handles_labels()
    hollow = Line2D([], [], marker=_SHAPES[0], color="black", markerfacecolor="none", linestyle="none")
    figure.legend(
        [*marks, hollow],
        [*names, "hollow: did not arrive"],
        loc="outside lower center",
        ncols=len(marks) + 1,
        frameon=False,
    )
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110, metadata={"Software": None})
    return held.getvalue()


def _panel(axes: Axes, points: Sequence[Point], families: Sequence[str], predictor: str) -> None:
    placed = [(PREDICTORS[predictor](p), p) for p in points]
    finite = [(x, p) for x, p in placed if x is not None and 0 < x < math.inf and 0 < p.reached < math.inf]
    for i, family in enumerate(families):
        for arrived in (True, False):
            chosen = [(x, p.reached) for x, p in finite if p.family == family and p.arrived is arrived]
            colour = _COLOURS[i % len(_COLOURS)]
            axes.scatter(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                s=22,
                marker=_SHAPES[i % len(_SHAPES)],
                facecolors=colour if arrived else "none",
                edgecolors=colour,
                linewidths=0.8,
                alpha=0.8,
                label=family if arrived else None,
            )
    if finite:  # an empty axis cannot be logarithmic
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = [f(value for x, p in finite for value in (x, p.reached)) for f in (min, max)]
        axes.plot(ends, ends, color="#777777", linewidth=1, zorder=0, label="reached as predicted")
    axes.grid(alpha=0.25)
