"""One self-contained page about an examination, which loads nothing from anywhere."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from gradleak.audit.findings import LEAK, Finding, Findings
from gradleak.report import wording
from gradleak.report.chart import chart
from gradleak.report.exposure import by_exposure
from gradleak.report.pictures import data_uri, encoded, image

PIXELATED = 96  # up to this size a picture's pixels are shown as squares; beyond, the browser may smooth


@dataclass(frozen=True)
class Tile:
    """A picture in its place on the page; ``uri`` is None for data that nobody could look at."""

    what: str
    value: str
    alt: str
    uri: str | None = None
    width: int = 0
    height: int = 0
    blank: str = ""

    @property
    def pixelated(self) -> bool:
        return max(self.width, self.height) <= PIXELATED


@dataclass(frozen=True)
class Card:
    number: int
    finding: Finding
    tiles: tuple[Tile, ...]


def render(findings: Findings, *, pictures: bool = True) -> str:
    """The page as text. Without ``pictures`` neither a private nor a recovered one is in it."""
    ordered = by_exposure(findings)
    headline, _, deck = findings.verdict.partition(": ")
    ran = [f for f in findings.findings if f.outcome != "not_applicable"] or findings.findings
    gradients, seconds = [f.matching_gradients for f in ran], [f.seconds for f in ran]
    page = _environment().get_template("page.html")
    return page.render(
        findings=findings,
        headline=headline,
        deck=deck,
        cards=[Card(number, f, _tiles(f) if pictures else ()) for number, f in ordered],
        pictures=pictures,
        chart=chart(ordered),
        gradients=_span(f"{min(gradients):,}", f"{max(gradients):,}"),
        seconds=_span(wording.seconds(min(seconds)), wording.seconds(max(seconds))),
        any_guess=any(f.guess is not None for f in findings.findings),
        LEAK=f"{LEAK:g}",
        words=wording,
    )


def _environment() -> Environment:
    # Names and reasons come from files and models of others: all of them are escaped.
    return Environment(
        loader=PackageLoader("gradleak.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _tiles(finding: Finding) -> tuple[Tile, ...]:
    recovered, null = wording.recovered_psnr(finding), wording.null_psnr(finding.null_psnr)
    return (
        _tile(finding.truth, "True", "", f"True picture: {finding.name}"),
        _tile(finding.guess, "Recovered", recovered, f"Recovered picture: {finding.name}, {recovered}"),
        _tile(finding.null, "Null guess", null, f"Guess without the gradient: {finding.name}, {null}"),
    )


def _tile(picture: Tensor | None, what: str, value: str, alt: str) -> Tile:
    if picture is None:
        return Tile(what, value, alt, blank="no guess")
    shown = image(picture)
    if shown is None:
        return Tile(what, value, alt, blank="not a picture")
    return Tile(what, value, alt, data_uri(encoded(shown)), shown.width, shown.height)


def _span(low: str, high: str) -> str:
    """Pictures of one batch share its cost, so costs are never added up here."""
    return low if low == high else f"{low} to {high}"
