"""LAMP's optimizer (Balunović et al. 2022): Adam, and between its runs the words in another order."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gradleak.attacks.base import Outcome
from gradleak.attacks.matching.optimizers import Adam, Descent, Space
from gradleak.attacks.matching.optimizers.base import is_count
from gradleak.errors import InvalidInput
from gradleak.text.fluency import Fluency

_DECAY = 0.89  # of the rate, from run to run


@dataclass(frozen=True, eq=False)
class Reordering:
    """Runs of Adam of ``every`` steps, and after each the best of ``tried`` other orders of the words.

    An order is better when its objective and ``weight`` times its ``fluency``, in nats per word, are together
    lower; without a fluency, the objective alone. The four changes are those of the paper: two words swapped,
    one word moved, several moved, and the beginning moved to the end.

    Each run has moments of its own, since those of another order belong to other words. An order costs one
    matching gradient, as a step does. ``table`` and ``free``, the word embeddings and the places whose words
    may move, are filled in by the attack.
    """

    steps: int
    lr: float = 0.01
    every: int = 75
    tried: int = 20
    fluency: Fluency | None = None
    weight: float = 0.2
    table: Tensor | None = None
    free: Tensor | None = None
    citations: tuple[str, ...] = field(default=("lamp", "adam"))

    def __post_init__(self) -> None:
        if not all(map(is_count, (self.steps, self.every, self.tried))) or not self.weight >= 0:
            raise InvalidInput(
                "expected steps, every and tried of 1 or more, and a weight of 0 or more; came "
                f"{self.steps!r}, {self.every!r}, {self.tried!r} and {self.weight!r}"
            )

    @property
    def evaluations(self) -> int:
        """Matching gradients in all."""
        runs = -(-self.steps // self.every)
        return self.steps + runs * (1 + self.tried)

    def descend(self, start: Tensor, space: Space, rng: torch.Generator) -> Descent:
        point, left, rate = start, self.steps, self.lr
        while left:
            steps = min(self.every, left)
            value, point, outcome = yield from _run(Adam(steps, lr=rate, drops=()), point, space, rng)
            if outcome is Outcome.DIVERGED:
                return outcome
            point = yield from self._reordered(value, point, space, rng)
            left, rate = left - steps, rate * _DECAY
        return Outcome.BUDGET

    def _reordered(
        self, value: float, point: Tensor, space: Space, rng: torch.Generator
    ) -> Generator[Tensor, tuple[float, Tensor], Tensor]:
        best, lowest = point, value + self._cost(point, space)
        for _ in range(self.tried):
            other = self._another(point, space, rng)
            there, _ = yield other
            there += self._cost(other, space)
            if there < lowest:
                best, lowest = other, there
        return best

    def _another(self, point: Tensor, space: Space, rng: torch.Generator) -> Tensor:
        texts, length, _ = space.shape
        x = point[: space.pixels].reshape(space.shape)
        one = _draw(texts, rng)
        free = range(length) if self.free is None else self.free[one].nonzero().flatten().tolist()
        order = list(range(length))
        for place, source in zip(free, _shuffled(list(free), rng), strict=True):
            order[place] = source
        changed = x.clone()
        changed[one] = x[one, order]
        return torch.cat((changed.flatten(), point[space.pixels :]))

    def _cost(self, point: Tensor, space: Space) -> float:
        if self.fluency is None or self.table is None or not self.weight:
            return 0.0
        x = point[: space.pixels].reshape(space.shape).detach()
        tokens = (normalize(x, dim=-1) @ normalize(self.table.to(x), dim=-1).T).argmax(-1)
        return self.weight * float(self.fluency(tokens).mean())


def _run(
    optimizer: Adam, start: Tensor, space: Space, rng: torch.Generator
) -> Generator[Tensor, tuple[float, Tensor], tuple[float, Tensor, Outcome]]:
    """A whole descent: its last point, and the value there."""
    descent = optimizer.descend(start, space, rng)
    point = next(descent)
    while True:
        answer = yield point
        try:
            point = descent.send(answer)
        except StopIteration as ended:
            return answer[0], point, ended.value


def _draw(below: int, rng: torch.Generator) -> int:
    return int(torch.randint(max(below, 1), (), generator=rng))


def _shuffled(places: list[int], rng: torch.Generator) -> list[int]:
    """One of the four changes, at random."""
    if len(places) < 2:
        return places
    change: Callable[[list[int], torch.Generator], list[int]] = (_swap, _move, _move_block, _rotate)[
        _draw(4, rng)
    ]
    return change(places, rng)


def _swap(places: list[int], rng: torch.Generator) -> list[int]:
    i, j = _draw(len(places), rng), _draw(len(places), rng)
    swapped = list(places)
    swapped[i], swapped[j] = places[j], places[i]
    return swapped


def _move(places: list[int], rng: torch.Generator) -> list[int]:
    rest = list(places)
    word = rest.pop(_draw(len(places), rng))
    rest.insert(_draw(len(places), rng), word)
    return rest


def _move_block(places: list[int], rng: torch.Generator) -> list[int]:
    i, j = sorted((_draw(len(places), rng), _draw(len(places), rng)))
    block, rest = places[i : j + 1], places[:i] + places[j + 1 :]
    at = _draw(len(rest) + 1, rng)
    return rest[:at] + block + rest[at:]


def _rotate(places: list[int], rng: torch.Generator) -> list[int]:
    i = _draw(len(places), rng)
    return places[i:] + places[:i]
