"""How well networks did that were trained by several clients, and what each client costs beside another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtrit
from torch import Tensor

from gradleak.defenses.utility.federated import Federation


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, their standard deviation, and the mean's 95 % interval by Student's t.

    One seed has neither spread nor interval: they are NaN. Where all seeds agree, the interval is a point.
    """

    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        center, n = mean(values), len(values)
        if n == 1:
            return cls(center, math.nan, math.nan, math.nan)
        std = stdev(values)
        reach = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
        return cls(center, std, center - reach, center + reach)

    def to_dict(self) -> dict[str, float | None]:
        return {key: None if math.isnan(value) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Course:
    """One client's accuracy on the test records, [seeds, evaluations].

    ``diverged`` has, for each seed, the round after which the weights or the logits were no longer finite, or
    None. From there on the accuracy is that of a constant guess.
    """

    client: str
    accuracy: Tensor
    diverged: tuple[int | None, ...]

    @property
    def final(self) -> Spread:
        return Spread.of(self.accuracy[:, -1].tolist())


@dataclass(frozen=True, eq=False)
class Utility:
    """What training with each client came to.

    ``rounds`` are those after which it was evaluated, ``null`` is the accuracy of the best constant guess,
    and ``records`` says how many test records there are. All seeds see the same ones, so no interval in here
    speaks of other test records.
    """

    courses: Mapping[str, Course]
    baseline: str
    rounds: tuple[int, ...]
    null: float
    records: int
    federation: Federation
    alpha: float | None

    def cost(self, name: str) -> Spread:
        """How much accuracy a client loses beside the baseline, paired by seed; below 0, it has gained."""
        lost = self.courses[self.baseline].accuracy[:, -1] - self.courses[name].accuracy[:, -1]
        return Spread.of(lost.tolist())

    @property
    def note(self) -> str:
        """Where the costs say nothing; empty where they do."""
        bare = self.courses[self.baseline]
        if bare.final.mean > self.null + self._chance:
            return ""
        return (
            f"{self.baseline!r} itself reaches {bare.final.mean:.3f}, where a constant guess has "
            f"{self.null:.3f}, so that no cost can be told from these runs: train for more rounds, or at "
            "another rate"
        )

    @property
    def _chance(self) -> float:
        """Two standard errors of a guess, on so many test records."""
        return 2 * math.sqrt(self.null * (1 - self.null) / self.records)

    def to_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "null": self.null,
            "records": self.records,
            "rounds": list(self.rounds),
            "federation": asdict(self.federation) | {"alpha": self.alpha},
            "note": self.note,
            "clients": {
                name: {
                    "client": course.client,
                    "accuracy": course.accuracy.tolist(),
                    "diverged": list(course.diverged),
                    "final": course.final.to_dict(),
                    "cost": self.cost(name).to_dict(),
                }
                for name, course in self.courses.items()
            },
        }
