"""What a release may leak at most, and whether a run kept to it."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from gradleak.audit import faults
from gradleak.cases.case import FORECAST, KNOWS_NOT
from gradleak.cases.done import Best, Done, Expected
from gradleak.cases.record import Record
from gradleak.errors import InvalidInput
from gradleak.examination.scale import PICTURES, TEXTS, Scale

FAULTS = ("unfinished", "failed", "unanswered")
"""What a gate does not let pass in silence: cases that were not run, cases that failed, and limits or records
of which nothing can be said."""

_RANGES = {
    "max_psnr": (-math.inf, math.inf),
    "max_ssim": (-1.0, 1.0),
    "max_leaked": (0.0, 1.0),
    "max_label_accuracy": (0.0, 1.0),
    "max_forecast": (-math.inf, math.inf),
    "max_rouge": (0.0, 100.0),
}
_GUESSES = {"max_psnr", "max_ssim", "max_rouge", "max_leaked"}
_RELATIVE = re.compile(r"random(?:\s*\+\s*(\d*\.?\d+))?")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """Each is held by every way of training that is meant; None is not asked for.

    ``max_psnr`` and ``max_ssim`` are held by every picture, ``max_rouge``, ROUGE-L in percent, by every text,
    and ``max_forecast`` is what the forecast may say of any, in the same unit. ``max_leaked`` is the share of
    records that leak. ``max_label_accuracy`` is a share, or "random+0.2": so much above chance. ``ways`` are
    the names of those that are meant; without any, all of them are. ``allow`` names the ``FAULTS`` that may
    pass.
    """

    max_psnr: float | None = None
    max_ssim: float | None = None
    max_leaked: float | None = None
    max_label_accuracy: float | str | None = None
    max_forecast: float | None = None
    max_rouge: float | None = None
    ways: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.asked:
            _check_number(name, getattr(self, name))
        _require(self.allow, FAULTS, "what to allow")

    @property
    def asked(self) -> tuple[str, ...]:
        """The limits that are set."""
        return tuple(name for name in _RANGES if getattr(self, name) is not None)

    def labels_at(self, chance: float) -> float:
        """The share of labels that may come back, where chance alone has this share."""
        limit = self.max_label_accuracy
        relative = isinstance(limit, str) and limit.strip().startswith("random")
        return _above(limit) + (chance if relative else 0.0)


@dataclass(frozen=True)
class Judged:
    """How one way of training did by one limit, or by one of the ``FAULTS``.

    ``value`` is what was found and ``bound`` what was allowed; without a value there was nothing to judge.
    ``sample``, ``attack`` and ``rung`` say what was worst.
    """

    way: str
    limit: str
    holds: bool
    value: float | None
    bound: float | None
    sentence: str
    sample: str = ""
    attack: str = ""
    rung: str = ""

    def __str__(self) -> str:
        return f"{self.way}: {self.sentence}"

    def to_dict(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items()}


def check(record: Record, limits: Limits) -> tuple[Judged, ...]:
    """Every limit that is broken, by way of training; none where the run may pass."""
    return tuple(one for one in judge(record, limits) if not one.holds)


def judge(record: Record, limits: Limits) -> tuple[Judged, ...]:
    """Every limit by every way of training that is meant, kept or broken.

    A guess that is no better than one without the update breaks no limit: no defense could help there.
    """
    if not limits.asked:
        raise InvalidInput(f"expected at least one limit among {', '.join(_RANGES)}; came none")
    known = [way.name for way in record.ways]
    require_ways(limits.ways, known)
    meant = [name for name in known if not limits.ways or name in limits.ways]
    return tuple(one for way in meant for one in _on(record, way, limits) if one.limit not in limits.allow)


def require_ways(ways: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a way of training that is not there."""
    _require(ways, known, "ways of training")


def _require(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidInput(f"expected {what} among {'; '.join(known)}; came {name!r}{hint}")


def _on(record: Record, way: str, limits: Limits) -> Iterator[Judged]:
    by_name = {
        "max_psnr": _psnr,
        "max_rouge": _rouge,
        "max_ssim": _ssim,
        "max_leaked": _leaked,
        "max_label_accuracy": _labels,
        "max_forecast": _forecast,
    }
    judged = [by_name[name](record, way, limits) for name in limits.asked]
    yield from judged
    unsaid = [f"{one.limit}: {one.sentence}" for one in judged if one.value is None]
    shown = {one.limit for one in judged if one.value is not None}
    for name, fault in {
        "unfinished": faults.unfinished(record, way),
        "failed": faults.failed(record, way),
        "unanswered": faults.unanswered(
            record, way, unsaid, guesses=bool(shown & _GUESSES), forecasts="max_forecast" in shown
        ),
    }.items():
        yield Judged(way, name, not fault.count, float(fault.count), 0.0, fault.sentence)


# The limits.


def _psnr(record: Record, way: str, limits: Limits) -> Judged:
    return _near(record, way, "max_psnr", limits.max_psnr, PICTURES)


def _rouge(record: Record, way: str, limits: Limits) -> Judged:
    return _near(record, way, "max_rouge", limits.max_rouge, TEXTS)


def _near(record: Record, way: str, name: str, limit: float | None, scale: Scale) -> Judged:
    bound, found = float(limit or 0.0), _guesses(record, way)
    if record.scale is not scale:
        return _nothing(way, name, bound, f"these are {record.scale.noun}s, which have no {scale.name}")
    above = [one for one in found if one.row.value > bound and one.row.leak > 0]
    worst = max(above or found, key=lambda one: one.row.value, default=None)
    if worst is None:
        return _nothing(way, name, bound, "no attack came to a guess")
    if not above and _is_cut_short(record, way):
        return _nothing(way, name, bound, _CUT_SHORT)
    row = worst.row
    said = (
        f"{_name(record, worst)} comes back {_at(scale, row.value)} ({_number(scale, row.null)} without the "
        f"update; limit {bound:g} {scale.unit}{_share(record, {one.row.sample for one in above})}), "
        f"{_by(worst.done)}"
    )
    return _judged(name, record, way, worst, not above, row.value, bound, said)


_CUT_SHORT = (
    "attacks were spared, as a cheaper one was well past the plan's target, which lies below this limit; "
    "raise budget.target, or leave it away"
)


def _is_cut_short(record: Record, way: str) -> bool:
    return any(
        one.spared and one.case.protocol == way and "well past the target" in one.why for one in record.left
    )


def _ssim(record: Record, way: str, limits: Limits) -> Judged:
    bound = float(limits.max_ssim or 0.0)
    if record.scale is not PICTURES:
        return _nothing(way, "max_ssim", bound, f"these are {record.scale.noun}s, which have no SSIM")
    found = [one for one in _guesses(record, way) if one.row.beside is not None]
    above = [one for one in found if _of(one) > bound and _of(one) > (one.row.null_beside or 0.0)]
    worst = max(above or found, key=_of, default=None)
    if worst is None:
        return _nothing(way, "max_ssim", bound, "no attack came to a guess that has an SSIM")
    null = "" if worst.row.null_beside is None else f"{worst.row.null_beside:.3f} without the update; "
    said = (
        f"{_name(record, worst)} comes back with an SSIM of {_of(worst):.3f} ({null}limit {bound:g}"
        f"{_share(record, {one.row.sample for one in above})}), {_by(worst.done)}"
    )
    return _judged("max_ssim", record, way, worst, not above, _of(worst), bound, said)


def _leaked(record: Record, way: str, limits: Limits) -> Judged:
    bound = float(limits.max_leaked or 0.0)
    found, total = record.bests(way), len(record.samples)
    if not found:
        return _nothing(way, "max_leaked", bound, "no attack came to a guess")
    leaked, worst, scale = record.leaked(way), max(found, key=lambda one: one.row.leak), record.scale
    value = leaked / total
    said = (
        f"{leaked} of {total} records leak, {_percent(value)} (limit {_percent(bound)}); the most exposed is "
        f"{_name(record, worst)} {_at(scale, worst.row.value)} ({_number(scale, worst.row.null)} without the "
        "update), "
        f"{_by(worst.done)}"
    )
    return _judged("max_leaked", record, way, worst, value <= bound + _ROUNDING, value, bound, said)


def _labels(record: Record, way: str, limits: Limits) -> Judged:
    found, tried = record.labels(way), record.label_readers(way)
    if found is None:
        return _nothing(way, "max_label_accuracy", None, "nobody came to labels that he was not told")
    value, chance = found
    bound = limits.labels_at(chance)
    worst = max(tried, key=lambda one: _agreement(one) or 0.0)
    holds = value <= max(bound, chance) + _ROUNDING
    said = (
        f"{_percent(value)} of labels come back ({_percent(chance)} by chance; limit {_percent(bound)}), "
        f"most of them from batch {worst.case.group + 1} {_by(worst)}"
    )
    facts = {"attack": worst.case.attack or "forecast", "rung": worst.case.rung}
    return Judged(way, "max_label_accuracy", holds, value, bound, said, **facts)


def _forecast(record: Record, way: str, limits: Limits) -> Judged:
    bound = float(limits.max_forecast or 0.0)
    found = [one for i in range(len(record.samples)) if (one := record.forecast(way, i)) is not None]
    above = [one for one in found if one.value > bound and one.value > one.null]
    scale = record.scale

    def size(one: Expected) -> float:
        return one.value

    worst = max(above or found, key=size, default=None)
    if worst is None:
        return _nothing(way, "max_forecast", bound, "there is no forecast")
    name = record.samples[worst.sample].name
    said = (
        f"the forecast sees {name} come back {_at(scale, worst.value)} ({_number(scale, worst.null)} without "
        f"the update; limit {bound:g} {scale.unit}{_share(record, {one.sample for one in above})})"
    )
    return Judged(way, "max_forecast", not above, worst.value, bound, said, sample=name)


# Words and numbers.


def _guesses(record: Record, way: str) -> list[Best]:
    """All that can be scored."""
    return [
        Best(row, one)
        for one in record.run(way)
        for row in one.rows
        if row.guessed and not math.isnan(row.value)
    ]


def _judged(
    limit: str, record: Record, way: str, worst: Best, holds: bool, value: float, bound: float, said: str
) -> Judged:
    case = worst.done.case
    name = _name(record, worst)
    return Judged(way, limit, holds, value, bound, said, name, case.attack, case.rung)


def _nothing(way: str, limit: str, bound: float | None, why: str) -> Judged:
    return Judged(way, limit, True, None, bound, why)


def _name(record: Record, best: Best) -> str:
    return record.samples[best.row.sample].name


def _by(done: Done) -> str:
    case = done.case
    if case.kind == FORECAST:
        return "read off the update itself"
    naive = ", by a server that does not know the defense" if case.attacker == KNOWS_NOT else ""
    return f"by {case.attack} on the rung “{case.rung}”{naive}"


def _share(record: Record, above: set[int]) -> str:
    return f"; {len(above)} of {len(record.samples)} records are above it" if above else ""


def _of(best: Best) -> float:
    return best.row.beside or 0.0


def _agreement(done: Done) -> float | None:
    share = done.facts.get("label_agreement")
    return None if share is None else float(share)


def _at(scale: Scale, value: float) -> str:
    return "as an exact copy" if scale.exact(value) else f"at {_number(scale, value)}"


def _number(scale: Scale, value: float) -> str:
    return f"{value:.2f} {scale.unit}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%".replace(".0%", "%")


def _above(limit: float | str | None) -> float:
    """The number in a limit; NaN where there is none."""
    if isinstance(limit, bool) or limit is None:
        return math.nan
    if not isinstance(limit, str):
        return float(limit)
    found = _RELATIVE.fullmatch(limit.strip())
    if found is not None:
        return float(found[1] or 0.0)
    try:
        return float(limit)
    except ValueError:
        return math.nan


def _check_number(name: str, limit: float | str) -> None:
    low, high = _RANGES[name]
    known = not isinstance(limit, str) or name == "max_label_accuracy"
    if known and low <= _above(limit) <= high and math.isfinite(_above(limit)):
        return
    meant = {
        "max_leaked": "a share from 0 to 1, such as 0.1",
        "max_label_accuracy": "a share from 0 to 1, such as 0.5, or one above chance, such as random+0.2",
        "max_ssim": "a number from -1 to 1, such as 0.3",
        "max_rouge": "percent from 0 to 100, such as 30",
    }.get(name, "decibels, such as 18")
    raise InvalidInput(f"expected {name} as {meant}; came {limit!r}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
