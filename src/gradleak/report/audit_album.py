"""An audit's records, each once, with what came back of it under every way of training."""

from dataclasses import dataclass
from typing import Protocol

from gradleak.cases import Record
from gradleak.cases.case import KNOWS_NOT
from gradleak.cases.done import Best, Sample
from gradleak.examination.scale import NOTHING, TEXTS
from gradleak.report import wording
from gradleak.report.audit_pictures import Images
from gradleak.report.audit_tables import by_exposure, label
from gradleak.report.audit_texts import Passage, Passages
from gradleak.report.tiles import Tile

SHOWN = 240
"""Records on a page, at most."""


_PROOFS = {
    True: "the attacker knows that this is the text",
    False: "the attacker knows that these words are right",  # a decoder's last word is read by no layer
}


class Look(Protocol):
    """What a record, or a guess at it, looks like. ``side``: pictures are compressed, and no longer than
    this; None where they are as they were.
    """

    @property
    def side(self) -> int | None: ...

    def truth(self, i: int, words: str) -> Tile | Passage: ...

    def null(self, i: int, value: str, words: str) -> Tile | Passage: ...

    def guess(self, i: int, way: int, value: str, words: str) -> Tile | Passage: ...


@dataclass(frozen=True)
class Came:
    """What came back under one way of training, and the record's rank there."""

    way: int
    rank: int
    tile: Tile | Passage
    leaked: bool
    status: str
    facts: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Shown:
    number: int
    sample: Sample
    truth: Tile | Passage
    null: Tile | Passage
    came: tuple[Came, ...]


@dataclass(frozen=True)
class Album:
    """``side`` as in ``Look``."""

    records: tuple[Shown, ...]
    total: int
    side: int | None


def album(record: Record) -> Album:
    """The records that are worst off under any way of training come first."""
    shown = by_exposure(record)[:SHOWN]
    best = [{one.row.sample: one for one in record.bests(way.name)} for way in record.ways]
    ranks = [{i: rank for rank, i in enumerate(record.by_exposure(way.name))} for way in record.ways]
    look: Look = (Passages if record.scale is TEXTS else Images).of(record, shown, best)
    drawing = _Drawing(record, best, ranks, look)
    return Album(tuple(drawing.shown(i) for i in shown), len(record.samples), look.side)


@dataclass(frozen=True)
class _Drawing:
    """``best`` and ``ranks`` are those of the records under each way of training."""

    record: Record
    best: list[dict[int, Best]]
    ranks: list[dict[int, int]]
    look: Look

    def shown(self, i: int) -> Shown:
        name, noun = self.record.samples[i].name, self.record.scale.noun
        null = next((self._null(found[i]) for found in self.best if i in found), "")
        return Shown(
            i + 1,
            self.record.samples[i],
            self.look.truth(i, f"True {noun}: {name}"),
            self.look.null(i, null, f"Guess without the update: {name}, {null}"),
            tuple(self._came(way, i) for way in range(len(self.record.ways))),
        )

    def _null(self, best: Best) -> str:
        """Of the null that is shown; noise may be nearer."""
        facts, key = best.done.facts["rows"][best.row.place], self.record.scale.key
        value = float(facts[f"null_{key}"])
        if self.record.scale is TEXTS and value == float("-inf"):
            value = float(facts[f"random_{key}"])  # without public texts, the null that is shown is random
        return "not scored" if value == float("-inf") else self._short(value)

    def _came(self, way: int, i: int) -> Came:
        best, rank, sample = self.best[way].get(i), self.ranks[way][i], self.record.samples[i]
        noun = self.record.scale.noun
        under = f"{sample.name}, under {self.record.ways[way].name}"
        about = ("Class", sample.label_name or NOTHING, f"in batch {sample.batch + 1}")
        if best is None:
            nothing = self.look.guess(i, way, "", f"No guess: {under}")
            return Came(way, rank, nothing, False, "no guess", (about,))
        value = self._short(best.row.value)
        recovered = self.look.guess(i, way, value, f"Recovered {noun}: {under}, {value}")
        status = wording.above_null(best.row.leak, self.record.scale)
        return Came(way, rank, recovered, best.row.leaked, status, (about, *self._facts(best)))

    def _facts(self, best: Best) -> tuple[tuple[str, str, str], ...]:
        """Each with its name, and with what is said softly after it."""
        row, case, scale = best.row, best.done.case, self.record.scale
        similar = "not measured" if row.beside is None else f"{scale.beside_name} {scale.second(row.beside)}"
        null = "" if row.null_beside is None else f"(null {scale.second(row.null_beside)})"
        attack = f"{case.attack}, naive" if case.attacker == KNOWS_NOT else case.attack
        facts = best.done.facts["rows"][row.place]
        return (
            ("Similarity", similar, null),
            *([("Proof", _PROOFS[facts["exact"]], "")] if facts.get("certified") else []),
            ("Label", label(self.record, best), ""),
            ("Attack", attack, f"at {case.rung}"),
        )

    def _short(self, value: float) -> str:
        """Short enough to stand below a picture of a hundred pixels."""
        return self.record.scale.said(value).removeprefix("an ")
