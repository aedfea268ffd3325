"""What happens while an audit runs, for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradleak.cases.case import Case


@dataclass(frozen=True)
class Event:
    """``what`` is "kept" (a case was there already), "done", "failed", "spared", "moved" (a case's own
    progress, by ``share``) or "said" (a sentence in ``words``). ``finished`` cases of about ``expected`` are
    behind.
    """

    what: str
    case: Case | None = None
    finished: int = 0
    expected: int = 0
    best_psnr: float | None = None
    seconds_left: float | None = None
    share: float = 0.0
    words: str = ""

    def to_dict(self) -> dict[str, Any]:
        said = {name: value for name, value in vars(self).items() if value not in (None, "", "case")}
        return said | ({} if self.case is None else {"case": self.case.to_dict()})


Tell = Callable[[Event], None]
