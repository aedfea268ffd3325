"""Finished cases, and what they say of each private record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradleak.cases.case import Case
from gradleak.examination.scale import PICTURES, SCALES, Scale

Facts = dict[str, Any]
_NORMAL = 1.959964  # 97.5 % of a normal distribution lie below


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
    """What one attack made of one record; ``place`` is its number in the case.

    ``value`` and ``beside`` are measured as the scale of the records says, and ``null`` is the better guess
    without the update.
    """

    sample: int
    place: int
    value: float
    null: float
    leak: float
    leaked: bool
    beside: float | None
    null_beside: float | None
    label: int | None
    label_guess: int | None
    guessed: bool

    @property
    def exposure(self) -> float:
        """The leak, as something to sort by: what cannot be scored comes last."""
        return -math.inf if math.isnan(self.leak) else self.leak

    @classmethod
    def of(cls, facts: Mapping[str, Any], scale: Scale, sample: int, place: int) -> "Row":
        """From what a finding said of itself."""
        key, beside = scale.key, scale.beside
        return cls(
            sample=sample,
            place=place,
            value=float(facts[key]),
            null=max(float(facts[f"null_{key}"]), float(facts[f"random_{key}"])),
            leak=float(facts["leak"]),
            leaked=facts["leaked"],
            beside=facts[beside],
            null_beside=facts[f"null_{beside}"],
            label=facts["label"],
            label_guess=facts["label_guess"],
            guessed=facts["guessed"],
        )


@dataclass(frozen=True)
class Expected:
    """What the forecast says of one record. None where nothing could be predicted."""

    sample: int
    verdict: str
    value: float
    null: float
    label_read: bool | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Done:
    """A finished case. ``samples`` are the records that it is about, by number. ``facts`` is plain JSON; its
    "error" says why there is nothing else in it, and "of" what the records are.
    """

    case: Case
    samples: tuple[int, ...]
    key: str
    facts: Facts

    @property
    def scale(self) -> Scale:
        return SCALES[self.facts.get("of", PICTURES.noun)]

    @property
    def error(self) -> str:
        return str(self.facts.get("error", ""))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Of an attack, by record."""
        found = zip(self.samples, self.facts.get("rows", ()), strict=False)
        return tuple(Row.of(row, self.scale, sample, place) for place, (sample, row) in enumerate(found))

    @cached_property
    def expected(self) -> tuple[Expected, ...]:
        """Of a forecast, by record."""
        return tuple(
            Expected(
                sample=sample,
                verdict=one["verdict"],
                value=float(one[self.scale.key]),
                null=float(one[f"null_{self.scale.key}"]),
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
