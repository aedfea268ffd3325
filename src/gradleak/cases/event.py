"""What happens while an audit runs, for whoever shows it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradleak.cases.case import Case
from gradleak.examination.scale import PICTURES, Scale


@dataclass(frozen=True)
class Event:
    """``what`` is "kept" (a case was there already), "done", "failed", "spared", "moved" (a case's own
    progress, by ``share``) or "said" (a sentence in ``words``). ``finished`` cases of about ``expected`` are
    behind, and ``best`` is the nearest guess so far.
    """

    what: str
    case: Case | None = None
    finished: int = 0
    expected: int = 0
    best: float | None = None
    scale: Scale = PICTURES
    seconds_left: float | None = None
    share: float = 0.0
    words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; the best guess so far is called by what is measured, such as "best_psnr"."""
        left_out = ("case", "best", "scale")
        said = {
            name: value
            for name, value in vars(self).items()
            if name not in left_out and value not in (None, "")
        }
        best = {} if self.best is None else {f"best_{self.scale.key}": _plain(self.best)}
        return said | best | ({} if self.case is None else {"case": self.case.to_dict()})


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


Tell = Callable[[Event], None]
