"""What a private record is: how guesses at it are judged, forecast and kept."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.cases.done import Facts
from gradleak.examination import Progress
from gradleak.examination.scale import Scale
from gradleak.observe import Client, Loss, Observation
from gradleak.text import Vocabulary

Found = tuple[Facts, Tensor | None]
"""The facts of a case and, of an attack, the guesses by record."""

Batch = tuple[Tensor, Tensor]


class Kind(Protocol):
    """Pictures, or texts. ``normalization`` is that of pictures, and ``null`` says what one guesses without
    the update. ``vocabulary`` are the words of texts by their numbers.
    """

    @property
    def scale(self) -> Scale: ...

    @property
    def normalization(self) -> Any: ...

    @property
    def null(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary | None: ...

    def truth_of(self, x: Tensor) -> Tensor:
        """A batch as reports show it."""
        ...

    def null_of(self, x: Tensor) -> Tensor:
        """What stands beside it, guessed without the update."""
        ...

    def forecast(
        self, model: nn.Module, batch: Batch, *, client: Client, loss: Loss | None, steps: int, rng: int
    ) -> Facts:
        """What the update gives away, before any attack."""
        ...

    def attacked(
        self,
        seen: Observation,
        truth: Batch,
        attack: Attack,
        *,
        rng: int,
        names: Callable[[int], str],
        progress: Progress | None,
    ) -> Found:
        """What an attack made of the records, once it has ended."""
        ...
