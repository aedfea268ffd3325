"""A forecast in a terminal: who leaks, why, and by which layer, readable without colours too."""

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gradleak.risk import Forecast
    from gradleak.risk.by_layer import Alone

# From dark blue to yellow, told apart by every eye: up to so many decibels, the cell and the ink on it.
_SHADES = (
    (15.0, "#00336f", "white"),
    (22.0, "#4b556c", "white"),
    (30.0, "#7b7b78", "white"),
    (45.0, "#b5a869", "black"),
    (float("inf"), "#fee838", "black"),
)
_CELL = 7  # characters
_REASONS = 12


def verdicts(found: "Forecast") -> Table:
    """A line per sample, the most exposed first."""
    table = _table("sample", "predicted", "null", "label", "verdict", right=3)
    for i in found.order:
        one = found.samples[i]
        label = {True: "read off", False: "not read", None: "-"}[one.label_read]
        style = "bold" if one.leaks else None
        table.add_row(str(i + 1), _unit(one.psnr), _unit(one.null_psnr), label, one.verdict, style=style)
    return table


def reasons(found: "Forecast") -> Iterator[str]:
    """Each reason once, with the samples that it holds for."""
    total, whose = len(found.samples), found.reasons
    for reason, places in list(whose.items())[:_REASONS]:
        yield reason if len(places) == total else f"{_named(places)}: {reason}"
    if len(whose) > _REASONS:
        yield f"and {len(whose) - _REASONS} more, with --json"


def heat_map(found: "Forecast", width: int) -> RenderableType:
    """A row per layer, a column per sample: the most exposed samples, as many as fit."""
    shown = _shown(found, width)
    table = _table("dB from", *(str(i + 1) for i in shown))
    for column in table.columns[1:]:
        column.justify, column.min_width = "right", _CELL
    nulls = [found.samples[i].null_psnr for i in shown]
    whole = [_cell(found.samples[i].psnr, found.samples[i].leaks, "") for i in shown]
    table.add_row(Text("the whole", style="bold"), *whole)
    for layer in found.layers:
        table.add_row(Text(layer.name), *_cells(found, layer, shown))
    table.add_row(Text("null", style="dim"), *(Text(_number(v) + " ", style="dim") for v in nulls))
    return table


def legend(found: "Forecast", width: int) -> str:
    said = ["Each layer's part of the update alone; * is 6 dB or more above the null"]
    said += (
        ["≤ is at most, ? is unknown: neither is settled, and neither counts as a leak; --exact settles them"]
        if any(any(one.open) for one in found.layers)
        else []
    )
    said += (
        ["the most exposed samples, --json has all"] if len(_shown(found, width)) < len(found.samples) else []
    )
    return "; ".join(said) + "."


def _shown(found: "Forecast", width: int) -> list[int]:
    room = width - max(len(layer.name) for layer in found.layers) - 4
    return found.order[: max(1, room // (_CELL + 2))]


def _cells(found: "Forecast", layer: "Alone", shown: list[int]) -> Iterator[Text]:
    leaking = layer.leaking([one.null_psnr for one in found.samples])
    for i in shown:
        settled = not bool(layer.psnr[i].isnan())
        yield _cell(float(layer.psnr[i]), leaking[i], "≤" if layer.at_most else "") if settled else Text("? ")


def _cell(psnr: float, leaks: bool, bound: str) -> Text:
    if not leaks:
        return Text(f"{bound}{_number(psnr)} ", style="dim")
    ground, ink = next((ground, ink) for most, ground, ink in _SHADES if not psnr >= most)
    return Text(f"{bound}{_number(psnr)}*".rjust(_CELL), style=Style(color=ink, bgcolor=ground))


def _table(*headings: str, right: int = 0) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i < right else "left", overflow="fold")
    return table


def _named(places: list[int]) -> str:
    return f"{'sample' if len(places) == 1 else 'samples'} {', '.join(str(i + 1) for i in places)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if isfinite(value) else "∞" if value > 0 else "-"


def _unit(value: float) -> str:
    return f"{value:.1f} dB" if isfinite(value) else _number(value)
