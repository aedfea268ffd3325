"""What a change of the model or of the protocol did to the leak: two runs, by way and by record."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradleak.cases.record import Record
from gradleak.errors import InvalidInput
from gradleak.examination.scale import Scale


@dataclass(frozen=True)
class Change:
    """One record under one way of training, in run A and then in run B; None where no attack had a guess."""

    name: str
    scale: Scale
    values: tuple[float | None, float | None]
    nulls: tuple[float | None, float | None]
    leaked: tuple[bool, bool]

    @property
    def leak(self) -> tuple[float | None, float | None]:
        """How far above a guess without the update; beyond the scale's top nothing is counted, since no
        difference is seen there.
        """
        first, second = (_leak(self.scale, *pair) for pair in zip(self.values, self.nulls, strict=True))
        return first, second

    @property
    def by(self) -> float | None:
        """How much more B gives away than A."""
        before, after = self.leak
        return None if before is None or after is None else after - before

    def to_dict(self) -> dict[str, Any]:
        facts = {
            "name": self.name,
            self.scale.key: self.values,
            f"null_{self.scale.key}": self.nulls,
            "leaked": self.leaked,
            "leak": self.leak,
            "by": self.by,
        }
        return {name: _plain(value) for name, value in facts.items()}


@dataclass(frozen=True)
class WayChange:
    """One way of training in both runs, which call it by ``names``. Figures are those in A, then in B."""

    names: tuple[str, str]
    scale: Scale
    clients: tuple[str, str]
    records: tuple[Change, ...]
    forecast: tuple[float | None, float | None]
    labels: tuple[tuple[float, float] | None, tuple[float, float] | None]
    lowest: tuple[str | None, str | None]

    @property
    def name(self) -> str:
        return self.names[0] if self.names[0] == self.names[1] else " to ".join(self.names)

    @property
    def known(self) -> list[float]:
        return [one.by for one in self.records if one.by is not None]

    @property
    def leaked(self) -> tuple[int, int]:
        """Of the records that are in both."""
        return sum(one.leaked[0] for one in self.records), sum(one.leaked[1] for one in self.records)

    @property
    def sentence(self) -> str:
        total = len(self.records)
        if not self.known:
            return "no record has a guess in both runs, so that nothing can be compared"
        same, middle = self.scale.same, statistics.median(self.known)
        more = sum(by >= same for by in self.known)
        less = sum(by <= -same for by in self.known)
        change = "the same leak"
        if abs(middle) >= same:
            change = f"{abs(middle):.1f} {self.scale.apart} {_more(middle)} leak"
        silent, records = total - len(self.known), _counted(len(self.known), "record")
        return (
            f"{change} in the median of {records} ({more} more exposed, {less} less, "
            f"{len(self.known) - more - less} the same); {self.leaked[0]} of {total} leaked, and now "
            f"{self.leaked[1]}{f'; {silent} without a guess in one of them' if silent else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "names": list(self.names),
            "clients": list(self.clients),
            "sentence": self.sentence,
            "median_by": statistics.median(self.known) if self.known else None,
            "leaked": list(self.leaked),
            "median_forecast": _plain(self.forecast),
            "label_agreement": [None if one is None else one[0] for one in self.labels],
            "null_label_agreement": [None if one is None else one[1] for one in self.labels],
            "lowest_rung": list(self.lowest),
            "records": [one.to_dict() for one in self.records],
        }


@dataclass(frozen=True)
class Diff:
    """``notes`` are what else differs: read them before a change is put down to the protocol."""

    titles: tuple[str, str]
    ways: tuple[WayChange, ...]
    only_ways: tuple[tuple[str, ...], tuple[str, ...]]
    only_records: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "titles": list(self.titles),
            "ways": [one.to_dict() for one in self.ways],
            "only_ways": [list(one) for one in self.only_ways],
            "only_records": [list(one) for one in self.only_records],
            "notes": list(self.notes),
        }


def diff(a: Record, b: Record) -> Diff:
    """Records are matched by their names, and so are ways of training.

    A way that is in one run alone is compared with the only other one of the same client, such as one with a
    stronger defense; two lone ways are compared whatever they are called.
    """
    first, second = [way.name for way in a.ways], [way.name for way in b.ways]
    if a.scale is not b.scale:
        raise InvalidInput(
            f"expected two runs of the same kind of records; came {a.scale.noun}s and {b.scale.noun}s"
        )
    both = list(_matched(first, second))
    matched = tuple({name for pair in both for name in pair})
    mine, theirs = _places(a), _places(b)
    return Diff(
        titles=(a.title, b.title),
        ways=tuple(_way(a, b, *names) for names in both),
        only_ways=(_but(first, matched), _but(second, matched)),
        only_records=(
            tuple(key[0] for key in mine if key not in theirs),
            tuple(key[0] for key in theirs if key not in mine),
        ),
        notes=tuple(_notes(a, b)),
    )


def _matched(first: list[str], second: list[str]) -> Iterator[tuple[str, str]]:
    if len(first) == len(second) == 1:
        yield first[0], second[0]
        return
    for name in first:
        mine = [one for one in first if one not in second and _client(one) == _client(name)]
        theirs = [one for one in second if one not in first and _client(one) == _client(name)]
        if name in second:
            yield name, name
        elif len(mine) == len(theirs) == 1:
            yield name, theirs[0]


def _client(way: str) -> str:
    """What stands before its defenses."""
    return way.partition(", ")[0]


def _way(a: Record, b: Record, name: str, other: str) -> WayChange:
    places = _places(b)
    pairs = [(i, places[key]) for key, i in _places(a).items() if key in places]
    sides = (a, name), (b, other)
    clients = [next(way.client for way in record.ways if way.name == called) for record, called in sides]
    return WayChange(
        names=(name, other),
        scale=a.scale,
        clients=(clients[0], clients[1]),
        records=tuple(_change(a, b, (name, other), i, j) for i, j in pairs),
        forecast=(a.median_forecast(name), b.median_forecast(other)),
        labels=(a.labels(name), b.labels(other)),
        lowest=(a.lowest(name), b.lowest(other)),
    )


def _change(a: Record, b: Record, names: tuple[str, str], i: int, j: int) -> Change:
    before, after = a.best(names[0], i), b.best(names[1], j)
    first, second = before and before.row, after and after.row
    return Change(
        name=a.samples[i].name,
        scale=a.scale,
        values=(first.value if first else None, second.value if second else None),
        nulls=(first.null if first else None, second.null if second else None),
        leaked=(bool(first and first.leaked), bool(second and second.leaked)),
    )


def _places(record: Record) -> dict[tuple[str, int], int]:
    """A record's number by its name; the second one of the same name is the second one in both runs."""
    found: dict[tuple[str, int], int] = {}
    seen: Counter[str] = Counter()
    for i, one in enumerate(record.samples):
        found[one.name, seen[one.name]] = i
        seen[one.name] += 1
    return found


_COMPARED = (
    *(
        "model",
        "loss",
        "normalization",
        "null",
        "attacks",
        "settings",
        "starts",
        "target",
        "seed",
        "versions",
    ),
)


def _notes(a: Record, b: Record) -> Iterator[str]:
    if a.facts.get("data") != b.facts.get("data"):
        yield "the data differ: records of one name may not be the same"
    for name in _COMPARED:
        before, after = a.facts.get(name), b.facts.get(name)
        if before != after:
            verb = "differ" if name.endswith("s") else "differs"
            yield f"the {name} {verb}: {_said(before)}, and now {_said(after)}"
    if a.rungs != b.rungs:
        yield f"the ladders differ: {', '.join(a.rungs)}, and now {', '.join(b.rungs)}"
    labels = {one.name: one.label for one in a.samples}
    if any(labels.get(one.name, one.label) != one.label for one in b.samples):
        yield "records of the same name have other labels: these may not be the same records"
    for record, which in ((a, "first"), (b, "second")):
        if not record.finished:
            yield f"the {which} run is not finished"
        if record.failed:
            yield f"{_counted(len(record.failed), 'case')} of the {which} run failed"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _but(names: list[str], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _leak(scale: Scale, value: float | None, null: float | None) -> float | None:
    if value is None or null is None or math.isnan(value) or value == -math.inf:
        return None
    return min(value, scale.top) - min(null, scale.top)


def _more(change: float) -> str:
    return "more" if change > 0 else "less"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
