"""What an audit has found so far: its finished cases, and what they say of every private record."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT, Left
from gradleak.cases.done import Best, Done, Expected, Facts, Rate, Sample, Way
from gradleak.examination.scale import PICTURES, SCALES, Scale
from gradleak.text import Vocabulary

_MOST = 4  # names, or numbers, in one sentence


class Contents(Protocol):
    """What a record looks like: pixels [C, H, W] in [0, 1], or the words of a text [T]; None where it is
    gone. ``vocabulary`` is what these words are, and None for pictures.
    """

    def truth(self, sample: int) -> Tensor | None: ...

    def null(self, sample: int) -> Tensor | None: ...

    def guess(self, key: str, place: int) -> Tensor | None: ...

    @property
    def vocabulary(self) -> Vocabulary | None: ...


@dataclass(frozen=True, eq=False)
class Record:
    """One run of an audit. All numbers are derived from the finished cases, and from nothing else.

    ``facts`` is what the run says of itself: title, model, null, seeds, versions, assumptions by rung.
    ``ways`` and ``rungs`` are in the order of the plan, a server that knows less coming later.
    """

    number: int
    facts: Facts
    samples: tuple[Sample, ...]
    ways: tuple[Way, ...]
    rungs: tuple[str, ...]
    done: tuple[Done, ...]
    left: tuple[Left, ...]
    contents: Contents

    # What the run says of itself.

    @property
    def title(self) -> str:
        return str(self.facts["title"])

    @property
    def scale(self) -> Scale:
        """How near guesses at these records are measured."""
        return SCALES[self.facts.get("of", PICTURES.noun)]

    @property
    def finished(self) -> bool:
        """Whether every case was run or spared."""
        return bool(self.facts["finished"])

    @property
    def seconds(self) -> float:
        """Of computing, in all processes together."""
        return sum(one.seconds for one in self.done)

    @property
    def matching_gradients(self) -> int:
        return sum(one.matching_gradients for one in self.done)

    # Cases.

    @cached_property
    def attacks(self) -> tuple[Done, ...]:
        """Attacks that were run; not those that failed."""
        return tuple(one for one in self.done if one.case.kind == ATTACK and not one.error)

    @cached_property
    def failed(self) -> tuple[Done, ...]:
        return tuple(one for one in self.done if one.error)

    @property
    def missing(self) -> tuple[Left, ...]:
        """Cases that an unfinished run did not come to."""
        return tuple(one for one in self.left if not one.spared)

    def run(
        self, way: str, *, rung: str | None = None, attacker: str | None = None, attack: str | None = None
    ) -> list[Done]:
        """Attacks on one way of training; None is any."""
        return [
            one
            for one in self.attacks
            if one.case.protocol == way
            and rung in (None, one.case.rung)
            and attacker in (None, one.case.attacker)
            and attack in (None, one.case.attack)
        ]

    def forecast(self, way: str, sample: int) -> Expected | None:
        found = (one.expected for one in self._forecasts if one.case.protocol == way)
        return next((one for ones in found for one in ones if one.sample == sample), None)

    @cached_property
    def _forecasts(self) -> tuple[Done, ...]:
        return tuple(one for one in self.done if one.case.kind == FORECAST and not one.error)

    # What they say.

    def best(self, way: str, sample: int, **where: Any) -> Best | None:
        """Of all attacks on this record, or of those ``where`` says as in ``run``; None without a guess."""
        found = [
            Best(row, one)
            for one in self.run(way, **where)
            for row in one.rows
            if row.sample == sample and row.guessed
        ]
        return max(found, key=lambda best: best.row.exposure, default=None)

    def bests(self, way: str, **where: Any) -> list[Best]:
        """The best of every record that has one."""
        found: dict[int, Best] = {}
        for one in self.run(way, **where):
            for row in one.rows:
                known = found.get(row.sample)
                if row.guessed and (known is None or row.exposure > known.row.exposure):
                    found[row.sample] = Best(row, one)
        return [found[i] for i in sorted(found)]

    def leaked(self, way: str, **where: Any) -> int:
        return sum(best.row.leaked for best in self.bests(way, **where))

    def rate(self, way: str, **where: Any) -> Rate:
        """Over every record and every start of the attacks that ``where`` says."""
        rows = [row for one in self.run(way, **where) for row in one.rows if row.guessed]
        return Rate(sum(row.leaked for row in rows), len(rows))

    def median(self, way: str, **where: Any) -> float | None:
        """Of the best of every record."""
        return _median(best.row.value for best in self.bests(way, **where))

    def median_null(self, way: str, **where: Any) -> float | None:
        return _median(best.row.null for best in self.bests(way, **where))

    def worst(self, way: str, **where: Any) -> float | None:
        """That of the record that is worst off."""
        return max((best.row.value for best in self.bests(way, **where)), default=None)

    def median_forecast(self, way: str) -> float | None:
        found = (self.forecast(way, i) for i in range(len(self.samples)))
        return _median(one.value for one in found if one is not None)

    def labels(self, way: str, **where: Any) -> tuple[float, float] | None:
        """The best share of labels that come back, in any order, and that of chance."""
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for one in self.label_readers(way, **where):
            pair = (float(one.facts["label_agreement"]), float(one.facts["null_label_agreement"] or 0.0))
            found[one.samples] = max(pair, found.get(one.samples, pair))
        # A sum of clients says less of each than its own update does, where that was seen too.
        alone = [
            pair for samples, pair in found.items() if len({self.samples[i].batch for i in samples}) == 1
        ]
        if not found:
            return None
        shares, chances = zip(*(alone or found.values()), strict=True)
        return statistics.fmean(shares), statistics.fmean(chances)

    def label_readers(self, way: str, **where: Any) -> list[Done]:
        """What came to labels that it was not told: attacks, and forecasts where ``where`` asks for all."""
        forecasts = [] if where else [one for one in self._forecasts if one.case.protocol == way]
        found = [*self.run(way, **where), *forecasts]
        return [
            one
            for one in found
            if one.facts.get("label_agreement") is not None and not one.facts["labels_given"]
        ]

    def lowest(self, way: str) -> str | None:
        """The least that a server must know for a leak: the last rung on which one was found."""
        leaking = [rung for rung in self.rungs if self.leaked(way, rung=rung)]
        return leaking[-1] if leaking else None

    def by_exposure(self, way: str) -> list[int]:
        """The records, the most exposed first; those without a guess come last."""
        exposure = {best.row.sample: best.row.exposure for best in self.bests(way)}
        return sorted(range(len(self.samples)), key=lambda i: (i not in exposure, -exposure.get(i, 0.0)))

    # In words.

    def verdict_on(self, way: str) -> str:
        """One sentence about one way of training, with its null."""
        total = len(self.samples)
        found = self.bests(way)
        if not found:
            return f"Under “{way}”, no attack came to a guess, which says nothing about a leak."
        leaked = sum(best.row.leaked for best in found)
        null = self.scale.said(self.median_null(way) or 0.0)
        reached = self.scale.said(self.median(way) or 0.0)
        undone = f"; {total - len(found)} came to no guess" if len(found) < total else ""
        said = f"{reached} in the median, where a guess without the update has {null}{undone}."
        said += self._doubts(way)
        if not leaked:
            none = f"none of {_counted(total, 'record')} leaks to the attacks that were run"
            return f"Under “{way}”, {none}: {said}"
        leak = "leaks" if total == 1 else "leak"
        return (
            f"Under “{way}”, {leaked} of {_counted(total, 'record')} {leak}, down to the rung "
            f"“{self.lowest(way)}”: {said}"
        )

    @property
    def headline(self) -> str:
        """How the verdict begins."""
        leaking = sum(self.leaked(way.name) > 0 for way in self.ways)
        ways = len(self.ways)
        if not any(one.answered for one in self.attacks):
            return "No attack came to a guess"
        if ways == 1:
            total, leaked = len(self.samples), self.leaked(self.ways[0].name)
            leak = "leaks" if total == 1 or not leaked else "leak"
            return f"{leaked or 'None'} of {_counted(total, 'record')} {leak}"
        if not leaking:
            return f"No record leaks under any of {ways} ways of training"
        return f"Records leak under {leaking} of {ways} ways of training"

    def _doubts(self, way: str) -> str:
        """What speaks against a way that looks safe: forecasts, and attacks that did not come to run."""
        leaked = {best.row.sample for best in self.bests(way) if best.row.leaked}
        expected = [one for done in self._forecasts if done.case.protocol == way for one in done.expected]
        least = self.scale.leak
        foretold = sum(one.value - one.null >= least and one.sample not in leaked for one in expected)
        said = ""
        if foretold:
            said += f" The forecast says that {foretold} more could: a better attack may."
        ran = self.run(way)
        for name in dict.fromkeys(one.case.attack for one in ran):
            ended = [one for one in ran if one.case.attack == name]
            if not any(one.answered for one in ended):
                said += f" {name} came to no guess: {ended[0].reason or ended[0].outcome}."
        return said

    @property
    def verdict(self) -> str:
        """One sentence over all ways of training, with what it rests on and what it leaves out."""
        names = list(dict.fromkeys(one.case.attack for one in self.attacks))
        runs = _listed(names) if len(names) <= _MOST else f"{len(names)} attacks"
        server = f"to a server that has the model and the update and runs {runs}"
        if not any(one.answered for one in self.attacks):
            said = "which says nothing about a leak"
        elif len(self.ways) == 1:
            name = self.ways[0].name
            reached = self.scale.said(self.median(name) or 0.0)
            null = self.scale.said(self.median_null(name) or 0.0)
            said = (
                f"{server}, {reached} in the median under “{name}”, where a guess without the update has "
                f"{null}"
            )
        else:
            said = f"{server}, {self._by_way()}"
        unfinished = "" if self.finished else "; the run is not finished"
        return f"{self.headline}: {said}{unfinished}."

    def _by_way(self) -> str:
        """How many records leak, ways with as many together; only the ends where there are too many."""
        total = len(self.samples)
        by_number: dict[str, list[str]] = {}
        for way in sorted(self.ways, key=lambda way: -self.leaked(way.name)):
            leaked = self.leaked(way.name)
            said = f"{leaked} of {total}" if leaked else "none" if self.bests(way.name) else "no answer"
            by_number.setdefault(said, []).append(f"“{way.name}”")
        parts = [
            f"{said} under {_listed(names) if len(names) <= _MOST else f'{len(names)} ways'}"
            for said, names in by_number.items()
        ]
        return "; ".join(parts if len(parts) <= _MOST else [parts[0], "and so on down to " + parts[-1]])

    def to_dict(self) -> Facts:
        """Everything but what the records are, as plain JSON."""
        return {
            "run": self.number,
            "verdict": self.verdict,
            **self.facts,
            "samples": [vars(one) for one in self.samples],
            "ways": [self._way(way) for way in self.ways],
            "rungs": list(self.rungs),
            "cases": [{**one.case.to_dict(), "key": one.key, **one.facts} for one in self.done],
            "left": [one.to_dict() for one in self.left],
            "seconds": self.seconds,
            "matching_gradients": self.matching_gradients,
        }

    def _way(self, way: Way) -> Facts:
        labels, key = self.labels(way.name), self.scale.key
        return {
            **vars(way),
            "defenses": list(way.defenses),
            "verdict": self.verdict_on(way.name),
            "leaked": self.leaked(way.name),
            "lowest_rung": self.lowest(way.name),
            f"worst_{key}": _plain(self.worst(way.name)),
            f"median_{key}": _plain(self.median(way.name)),
            f"median_null_{key}": _plain(self.median_null(way.name)),
            "median_forecast": _plain(self.median_forecast(way.name)),
            f"median_{key}_naive": _plain(self.median(way.name, attacker=KNOWS_NOT)),
            f"median_{key}_adaptive": _plain(self.median(way.name, attacker=KNOWS)),
            "label_agreement": None if labels is None else labels[0],
            "null_label_agreement": None if labels is None else labels[1],
        }


def _median(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else None


def _plain(value: float | None) -> Any:
    return value if value is None or math.isfinite(value) else str(value)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
