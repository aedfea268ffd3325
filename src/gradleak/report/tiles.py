"""Pictures in their places on a page."""

from dataclasses import dataclass

from torch import Tensor

from gradleak.examination.findings import Finding
from gradleak.report import wording
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


def tiles(finding: Finding) -> tuple[Tile, ...]:
    """The true picture, the recovered one, and the guess without the gradient."""
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
