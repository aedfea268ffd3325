"""What every defense is: a client around a client, which changes what goes out or how it comes about."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput, InvalidUpdate
from gradleak.observe import Client, OneGradient, Task, Trained
from gradleak.observe.uncertainty import told, uncertainty
from gradleak.trees import Tree

_SEEDS = 2**62


@dataclass(frozen=True)
class Defense(ABC):
    """A client that does what ``client`` does, and something about it.

    ``dice`` are thrown before the run, by ``drawn``; without them, it is the client that an attacker
    simulates who knows the defense and its strength, and not its dice.
    """

    client: Client = field(default_factory=OneGradient)
    dice: int | None = field(default=None, kw_only=True, repr=False)
    references: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not callable(self.client) or isinstance(self.client, type):
            raise InvalidInput(
                f"expected the client that {type(self).__name__} is put around, such as OneGradient(); came "
                f"{self.client!r}. Strengths are named, as in {type(self).__name__}({self._first()}=...)"
            )

    @abstractmethod
    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]: ...

    @property
    def citations(self) -> tuple[str, ...]:
        """Its own, and those of what it defends."""
        return tuple(dict.fromkeys((*self.references, *getattr(self.client, "citations", ()))))

    def around(self, client: Client) -> Self:
        return replace(self, client=client)

    def steps(self, records: int) -> int:
        return self.client.steps(records) if isinstance(self.client, Trained) else 1

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        """What the update is without the defense, as far as it tells."""
        if isinstance(self.client, Trained):
            return self.client.gradient_of(params, update, records)
        return dict(update)

    def drawn(self, records: int, rng: Generator) -> Self:
        inner = self.client.drawn(records, rng) if isinstance(self.client, Trained) else self.client
        return replace(self, client=inner, dice=int(torch.randint(_SEEDS, (), generator=rng)))

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        return self.around(told(self.client, params, update, records))

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        return uncertainty(self.client, params, update, records, hidden=hidden)

    @classmethod
    def _first(cls) -> str:
        return next((name for name in cls.__dataclass_fields__ if name not in ("client", "dice")), "dice")


@dataclass(frozen=True)
class Outgoing(Defense):
    """A defense that changes the finished update."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        update = self.client(task, params, x, y)
        if self.dice is None:
            return self.expected(update)
        sent = self.sent(update, Generator().manual_seed(self.dice))
        if _is_zero(sent) and not _is_zero(update):
            raise InvalidUpdate(
                f"{type(self).__name__} left nothing of the update: every entry that goes out is 0. Take a "
                "weaker defense."
            )
        return sent

    @abstractmethod
    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        """What goes out, with dice from ``rng``."""

    def expected(self, update: Tree) -> dict[str, Tensor]:
        """What goes out as far as one knows without the dice; differentiable."""
        return dict(update)


def _is_zero(update: Tree) -> bool:
    return not any(bool(leaf.any()) for leaf in update.values())


def straight_through(value: Tensor, leaf: Tensor) -> Tensor:
    """``value``, to the bit, with the slope of ``leaf``: what has steps has no slope of its own."""
    return value.detach() + (leaf - leaf.detach())


def one_of(what: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InvalidInput(f"expected {what} as {' or '.join(map(repr, valid))}; came {value!r}")


def number(what: str, value: Any, least: float, most: float, *, open_ends: str = "") -> float:
    """A setting within its range; ends in ``open_ends`` ("[", "]" or both) do not belong to it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
        above = value > least if "[" in open_ends else value >= least
        below = value < most if "]" in open_ends else value <= most
        if above and below:
            return float(value)
    ends = "above" if "[" in open_ends else "from"
    until = "" if most == float("inf") else f" {'to below' if ']' in open_ends else 'to'} {most:g}"
    more = " or more" if not until and "[" not in open_ends else ""
    start = "of " if more else f"{ends} "
    raise InvalidInput(f"expected {what} as a number {start}{least:g}{more}{until}; came {value!r}")


def _is_finite(value: int | float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
