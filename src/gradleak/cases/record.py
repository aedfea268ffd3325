"""What an audit has found so far: its finished cases, and what they say of every private record."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT, Case, Left
from gradleak.examination.findings import LEAK, Finding, decibels

Facts = dict[str, Any]
_NORMAL = 1.959964  # 97.5 % of a normal distribution lie below
_MOST = 4  # names, or numbers, in one sentence


class Pictures(Protocol):
    """Where a record's pictures are, each [C, H, W] with pixels in [0, 1]; None where there is none."""

    def truth(self, sample: int) -> Tensor | None: ...

    def null(self, sample: int) -> Tensor | None: ...

    def guess(self, key: str, place: int) -> Tensor | None: ...


@dataclass(frozen=True)
class Sample:
    """One private record. ``label_name`` is what its class is called."""

    name: str
    batch: int
    label: int | None
    label_name: str


@dataclass(frozen=True)
class Way:
    """One way of training and sharing: a client with its defenses around it, and what it is called."""

    name: str
    client: str
    defenses: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What one attack made of one record; ``place`` is its number in the case. Numbers as in Finding."""

    sample: int
    place: int
    psnr: float
    null_psnr: float
    leak: float
    leaked: bool
    ssim: float | None
    null_ssim: float | None
    label: int | None
    label_guess: int | None
    guessed: bool

    @property
    def exposure(self) -> float:
        """The leak, as something to sort by: what cannot be scored comes last."""
        return -math.inf if math.isnan(self.leak) else self.leak


@dataclass(frozen=True)
class Expected:
    """What the forecast says of one record. None where nothing could be predicted."""

    sample: int
    verdict: str
    psnr: float
    null_psnr: float
    label_read: bool | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Done:
    """A finished case. ``samples`` are the records that it is about, by number. ``facts`` is plain JSON; its
    "error" says why there is nothing else in it.
    """

    case: Case
    samples: tuple[int, ...]
    key: str
    facts: Facts

    @property
    def error(self) -> str:
        return str(self.facts.get("error", ""))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Of an attack, by record."""
        return tuple(
            Row(
                sample=sample,
                place=place,
                psnr=float(row["psnr"]),
                null_psnr=max(float(row["null_psnr"]), float(row["random_psnr"])),
                leak=float(row["leak"]),
                leaked=row["leaked"],
                ssim=row["ssim"],
                null_ssim=row["null_ssim"],
                label=row["label"],
                label_guess=row["label_guess"],
                guessed=row["guessed"],
            )
            for place, (sample, row) in enumerate(zip(self.samples, self.facts.get("rows", ()), strict=False))
        )

    @cached_property
    def expected(self) -> tuple[Expected, ...]:
        """Of a forecast, by record."""
        return tuple(
            Expected(
                sample=sample,
                verdict=one["verdict"],
                psnr=float(one["psnr"]),
                null_psnr=float(one["null_psnr"]),
                label_read=one["label_read"],
                reasons=tuple(one["reasons"]),
            )
            for sample, one in zip(self.samples, self.facts.get("samples", ()), strict=False)
        )

    @property
    def outcome(self) -> str:
        return "failed" if self.error else str(self.facts.get("outcome", ""))

    @property
    def reason(self) -> str:
        return self.error or str(self.facts.get("reason", ""))

    @property
    def matching_gradients(self) -> int:
        return int(self.facts.get("matching_gradients", 0))

    @property
    def seconds(self) -> float:
        return float(self.facts.get("seconds", 0.0))

    @property
    def answered(self) -> bool:
        """Whether the attack came to a guess."""
        return any(row.guessed for row in self.rows)


@dataclass(frozen=True)
class Best:
    """The best that any attack made of a record: its number beside the null, and which case it was."""

    row: Row
    done: Done


@dataclass(frozen=True)
class Rate:
    """How often an attack leaked a record, with the 95 % interval of Wilson."""

    leaked: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        n, share, z2 = self.of, self.leaked / self.of, _NORMAL**2
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        spread = _NORMAL * (share * (1 - share) / n + z2 / (4 * n**2)) ** 0.5 / (1 + z2 / n)
        return max(middle - spread, 0.0), min(middle + spread, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.leaked} of {self.of} ({low:.0%} to {high:.0%})"


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
    pictures: Pictures

    # What the run says of itself.

    @property
    def title(self) -> str:
        return str(self.facts["title"])

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

    def median_psnr(self, way: str, **where: Any) -> float | None:
        """Of the best of every record."""
        return _median(best.row.psnr for best in self.bests(way, **where))

    def median_null_psnr(self, way: str, **where: Any) -> float | None:
        return _median(best.row.null_psnr for best in self.bests(way, **where))

    def worst_psnr(self, way: str, **where: Any) -> float | None:
        """That of the record that is worst off."""
        return max((best.row.psnr for best in self.bests(way, **where)), default=None)

    def median_forecast(self, way: str) -> float | None:
        found = (self.forecast(way, i) for i in range(len(self.samples)))
        return _median(one.psnr for one in found if one is not None)

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

    def finding(self, best: Best) -> Finding:
        """The same with its pictures, as pages draw it."""
        row = best.done.facts["rows"][best.row.place] | {"name": self.samples[best.row.sample].name}
        truth, null = self.pictures.truth(best.row.sample), self.pictures.null(best.row.sample)
        if truth is None or null is None:
            raise LookupError(f"the pictures of {self.samples[best.row.sample].name} are not there")
        guess = self.pictures.guess(best.done.key, best.row.place)
        return Finding.from_dict(row, truth=truth, null=null, guess=guess)

    # In words.

    def verdict_on(self, way: str) -> str:
        """One sentence about one way of training, with its null."""
        total = len(self.samples)
        found = self.bests(way)
        if not found:
            return f"Under “{way}”, no attack came to a guess, which says nothing about a leak."
        leaked = sum(best.row.leaked for best in found)
        null = decibels(self.median_null_psnr(way) or 0.0)
        reached = decibels(self.median_psnr(way) or 0.0)
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
        foretold = sum(one.psnr - one.null_psnr >= LEAK and one.sample not in leaked for one in expected)
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
            reached, null = self.median_psnr(name) or 0.0, self.median_null_psnr(name) or 0.0
            said = (
                f"{server}, {decibels(reached)} in the median under “{name}”, where a guess without the "
                f"update has {decibels(null)}"
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
        """Everything but the pictures, as plain JSON."""
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
        labels = self.labels(way.name)
        return {
            **vars(way),
            "defenses": list(way.defenses),
            "verdict": self.verdict_on(way.name),
            "leaked": self.leaked(way.name),
            "lowest_rung": self.lowest(way.name),
            "worst_psnr": _plain(self.worst_psnr(way.name)),
            "median_psnr": _plain(self.median_psnr(way.name)),
            "median_null_psnr": _plain(self.median_null_psnr(way.name)),
            "median_forecast": _plain(self.median_forecast(way.name)),
            "median_psnr_naive": _plain(self.median_psnr(way.name, attacker=KNOWS_NOT)),
            "median_psnr_adaptive": _plain(self.median_psnr(way.name, attacker=KNOWS)),
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
