"""One piece of an audit's work: small enough to be lost without harm, and done exactly once."""

from dataclasses import asdict, dataclass
from typing import Any

FORECAST, ATTACK = "forecast", "attack"
KNOWS, KNOWS_NOT = "knows the defense", "does not know the defense"


@dataclass(frozen=True)
class Case:
    """What is run, on which batch, and against which server; all of it by name.

    ``group`` is the number of the batch, or of the batches of several clients on the rung that sums them.
    A forecast needs neither a rung, nor an attacker, nor an attack.
    """

    kind: str
    protocol: str
    group: int
    rung: str = ""
    attacker: str = ""
    attack: str = ""
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        said = [self.protocol, f"batch {self.group + 1}"]
        if self.kind == FORECAST:
            return f"the forecast for {', '.join(said)}"
        said += [self.rung, *([self.attacker] if self.attacker == KNOWS_NOT else [])]
        return f"{self.attack} on {', '.join(said)}"


@dataclass(frozen=True)
class Left:
    """A case that was not run, and why: ``spared``, as it could have shown nothing new, or else missing."""

    case: Case
    why: str
    spared: bool

    def to_dict(self) -> dict[str, Any]:
        return {"case": self.case.to_dict(), "why": self.why, "spared": self.spared}
