"""An audit's pictures, as good as a page can hold."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from gradleak.cases import Record
from gradleak.cases.done import Best
from gradleak.report.pictures import data_uri, encoded, image
from gradleak.report.tiles import Tile

MOST_BYTES = 3_600_000
"""Of all pictures on a page, as they are written there: beyond, they are compressed, and then shrunk."""
_SIDES = (256, 192, 160, 128, 100, 72, 48)

Key = tuple[int, str]


@dataclass(frozen=True)
class Images:
    """By record, and by what they are: the true one, the null, or the number of a way of training."""

    uris: Mapping[Key, str]
    sizes: Mapping[Key, tuple[int, int]]
    guessed: frozenset[Key]
    side: int | None

    @classmethod
    def of(cls, record: Record, shown: list[int], best: list[dict[int, Best]]) -> "Images":
        guessed = frozenset((i, str(way)) for way, found in enumerate(best) for i in found)
        uris, sizes, side = _fitting(_images(record, shown, best))
        return cls(uris, sizes, guessed, side)

    def truth(self, i: int, words: str) -> Tile:
        return self._tile((i, "truth"), "True", "", words)

    def null(self, i: int, value: str, words: str) -> Tile:
        return self._tile((i, "null"), "Null guess", value, words)

    def guess(self, i: int, way: int, value: str, words: str) -> Tile:
        key = (i, str(way))
        if key not in self.guessed:
            return Tile("Recovered", value, words, blank="no guess")
        return self._tile(key, "Recovered", value, words)

    def _tile(self, key: Key, what: str, value: str, alt: str) -> Tile:
        if key not in self.uris:
            return Tile(what, value, alt, blank="cannot be shown")
        return Tile(what, value, alt, self.uris[key], *self.sizes[key])


def _images(record: Record, shown: list[int], best: list[dict[int, Best]]) -> dict[Key, Image.Image]:
    found = {}
    for i in shown:
        pictures = {"truth": record.contents.truth(i), "null": record.contents.null(i)}
        for way, bests in enumerate(best):
            if i in bests:
                pictures[str(way)] = record.contents.guess(bests[i].done.key, bests[i].row.place)
        for what, picture in pictures.items():
            drawn = None if picture is None else image(picture)
            if drawn is not None:
                found[(i, what)] = drawn
    return found


def _fitting(
    images: Mapping[Key, Image.Image],
) -> tuple[dict[Key, str], dict[Key, tuple[int, int]], int | None]:
    """As good as they may be, all of them together: as data, their sizes, and what they were shrunk to."""
    for side in (None, *_SIDES):
        uris, sizes, room = {}, {}, MOST_BYTES
        for key, drawn in images.items():
            uris[key], sizes[key] = _encoded(drawn, side)
            room -= len(uris[key])
            if room < 0 and side != _SIDES[-1]:
                break
        if len(uris) == len(images) and (room >= 0 or side == _SIDES[-1]):
            break
    return uris, sizes, side


def _encoded(drawn: Image.Image, side: int | None) -> tuple[str, tuple[int, int]]:
    if side is None:
        return data_uri(encoded(drawn)), drawn.size
    small = drawn.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"), small.size
