"""An audit's pictures: every record once, with what came back of it under every way of training."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from gradleak.cases import Record
from gradleak.cases.case import KNOWS_NOT
from gradleak.cases.record import Best, Sample
from gradleak.report import wording
from gradleak.report.audit_tables import by_exposure, label
from gradleak.report.pictures import data_uri, encoded, image
from gradleak.report.tiles import Tile

MOST_BYTES = 3_600_000
"""Of all pictures on a page, as they are written there: beyond, they are compressed, and then shrunk."""
SHOWN = 240
"""Records with pictures on a page, at most."""
_SIDES = (256, 192, 160, 128, 100, 72, 48)

Key = tuple[int, str]


@dataclass(frozen=True)
class Came:
    """What came back under one way of training, and the record's rank there."""

    way: int
    rank: int
    tile: Tile
    leaked: bool
    status: str
    facts: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Shown:
    number: int
    sample: Sample
    truth: Tile
    null: Tile
    came: tuple[Came, ...]


@dataclass(frozen=True)
class Album:
    """``side``: pictures are compressed, and no longer than this; None where they are as they were."""

    records: tuple[Shown, ...]
    total: int
    side: int | None


def album(record: Record) -> Album:
    """The records that are worst off under any way of training come first."""
    shown = by_exposure(record)[:SHOWN]
    best = [{one.row.sample: one for one in record.bests(way.name)} for way in record.ways]
    ranks = [{i: rank for rank, i in enumerate(record.by_exposure(way.name))} for way in record.ways]
    uris, sizes, side = _fitting(_images(record, shown, best))
    drawing = _Drawing(record, best, ranks, uris, sizes)
    return Album(tuple(drawing.shown(i) for i in shown), len(record.samples), side)


@dataclass(frozen=True)
class _Drawing:
    """``best`` and ``ranks`` are those of the records under each way of training."""

    record: Record
    best: list[dict[int, Best]]
    ranks: list[dict[int, int]]
    uris: Mapping[Key, str]
    sizes: Mapping[Key, tuple[int, int]]

    def shown(self, i: int) -> Shown:
        name = self.record.samples[i].name
        null = next((wording.null_psnr(_null(found[i])) for found in self.best if i in found), "")
        return Shown(
            i + 1,
            self.record.samples[i],
            self._tile((i, "truth"), "True", "", f"True picture: {name}"),
            self._tile((i, "null"), "Null guess", null, f"Guess without the update: {name}, {null}"),
            tuple(self._came(way, i) for way in range(len(self.record.ways))),
        )

    def _came(self, way: int, i: int) -> Came:
        best, rank, sample = self.best[way].get(i), self.ranks[way][i], self.record.samples[i]
        under = f"{sample.name}, under {self.record.ways[way].name}"
        about = ("Class", sample.label_name or wording.NOTHING, f"in batch {sample.batch + 1}")
        if best is None:
            nothing = Tile("Recovered", "", f"No guess: {under}", blank="no guess")
            return Came(way, rank, nothing, False, "no guess", (about,))
        value = wording.short_decibels(best.row.psnr)
        recovered = self._tile((i, str(way)), "Recovered", value, f"Recovered picture: {under}, {value}")
        facts = (about, *self._facts(best))
        return Came(way, rank, recovered, best.row.leaked, wording.above_null(best.row.leak), facts)

    def _facts(self, best: Best) -> tuple[tuple[str, str, str], ...]:
        """Each with its name, and with what is said softly after it."""
        row, case = best.row, best.done.case
        similar = "not measured" if row.ssim is None else f"SSIM {wording.ssim(row.ssim)}"
        null = "" if row.null_ssim is None else f"(null {wording.ssim(row.null_ssim)})"
        attack = f"{case.attack}, naive" if case.attacker == KNOWS_NOT else case.attack
        return (
            ("Similarity", similar, null),
            ("Label", label(self.record, best), ""),
            ("Attack", attack, f"at {case.rung}"),
        )

    def _tile(self, key: Key, what: str, value: str, alt: str) -> Tile:
        if key not in self.uris:
            return Tile(what, value, alt, blank="cannot be shown")
        return Tile(what, value, alt, self.uris[key], *self.sizes[key])


def _null(best: Best) -> float:
    """Of the mean picture, which is the one that is shown; noise may be nearer."""
    return float(best.done.facts["rows"][best.row.place]["null_psnr"])


def _images(record: Record, shown: list[int], best: list[dict[int, Best]]) -> dict[Key, Image.Image]:
    found = {}
    for i in shown:
        pictures = {"truth": record.pictures.truth(i), "null": record.pictures.null(i)}
        for way, bests in enumerate(best):
            if i in bests:
                pictures[str(way)] = record.pictures.guess(bests[i].done.key, bests[i].row.place)
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
