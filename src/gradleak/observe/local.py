"""Clients that train for a while and send how far their weights have moved (McMahan et al. 2017, FedAvg)."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe.replay import replayed
from gradleak.observe.task import Task
from gradleak.trees import Tree, map_tree, scale, subtract

Order = str | Sequence[Sequence[int]] | Tensor
ORDERS = ("shuffled", "given")
AT_ONCE = 4
"""Steps whose graphs are kept side by side; beyond, they are replayed one by one."""

State = tuple[dict[str, Tensor], ...]
"""What the optimizer carries from step to step: one tree per kind of running mean."""

Pick = Tensor
"""The records of one step: their indices, or one weight in [0, 1] per record of the whole batch."""


@dataclass(frozen=True, repr=False)
class LocalTraining(ABC):
    """``epochs`` passes over the records in batches of ``batch_size``; the update is W_T − W_0.

    ``order`` says which records meet in a batch: "shuffled" anew every epoch, as training does it, and
    then the server does not know it; "given", the records as they come; or one permutation per epoch.
    Whoever simulates a shuffled client without knowing its order takes the records as they come.
    """

    epochs: int
    batch_size: int
    lr: float
    order: Order = field(default="shuffled", kw_only=True)

    def __post_init__(self) -> None:
        if not (_is_count(self.epochs) and _is_count(self.batch_size)):
            raise InvalidInput(
                "expected epochs and batch_size as whole numbers of 1 or more; came "
                f"{self.epochs!r} and {self.batch_size!r}"
            )
        if not _is_number(self.lr) or not 0 < self.lr < math.inf:
            raise InvalidInput(
                f"expected a finite learning rate above 0; came {self.lr!r}. At a rate of 0 no weight moves, "
                "and the update says nothing."
            )
        if not isinstance(self.order, str):
            object.__setattr__(self, "order", _permutations(self.order, self.epochs))
        elif self.order not in ORDERS:
            raise InvalidInput(
                f"expected order as one of {', '.join(ORDERS)}, or as {self.epochs} permutations of the "
                f"records; came {self.order!r}"
            )

    def __repr__(self) -> str:
        """As it is built, but for an order that is known: that of 64 records would hide all the rest."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        told = {name: repr(value) for name, value in said.items()}
        if not isinstance(self.order, str):
            told["order"] = f"<known, {self.epochs} x {len(self.order[0])}>"
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in told.items())})"

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        picks = [torch.tensor(pick, device=x.device) for pick in self.picks(len(x))]
        return self.trained_on(picks, task, params, x, y)

    def picks(self, records: int) -> list[list[int]]:
        """Which records each step is taken on."""
        epoch = list(range(records))
        orders = [epoch] * self.epochs if isinstance(self.order, str) else self.order
        if any(len(order) != records for order in orders):
            raise InvalidBatch(
                f"expected {len(orders[0])} records, of which the client's order speaks; came {records}"
            )
        return [
            list(order[start : start + self.batch_size])
            for order in orders
            for start in range(0, records, self.batch_size)
        ]

    def trained_on(
        self, picks: Sequence[Pick], task: Task, params: Tree, x: Tensor, y: Tensor
    ) -> dict[str, Tensor]:
        """The update after one step for each of ``picks``."""
        *_, (after, _) = self.path(picks, task, params, x, y)
        return subtract(after, params)

    def path(
        self, picks: Sequence[Pick], task: Task, params: Tree, x: Tensor, y: Tensor
    ) -> Iterator[tuple[dict[str, Tensor], Pick]]:
        """The weights after every step, and what it was taken on."""
        now, state = dict(params), self.rested(params)
        for n, pick in enumerate(picks, start=1):
            now, state = self._stepped(n, pick, len(picks), task, now, state, x, y)
            yield now, pick

    def _stepped(
        self, n: int, pick: Pick, steps: int, task: Task, params: Tree, state: State, x: Tensor, y: Tensor
    ) -> tuple[dict[str, Tensor], State]:
        if task.transformed or task.whole or steps <= AT_ONCE:
            return self.step(n, params, state, _gradient(task, params, x, y, pick))
        names = list(params)

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            x, y, pick, *rest = tensors
            trees = [
                dict(zip(names, rest[i : i + len(names)], strict=True))
                for i in range(0, len(rest), len(names))
            ]
            after, running = self.step(n, trees[0], tuple(trees[1:]), _gradient(task, trees[0], x, y, pick))
            return tuple(tree[name] for tree in (after, *running) for name in names)

        flat = [tree[name] for tree in (params, *state) for name in names]
        out = iter(replayed(step, x, y, pick, *flat))
        after, *running = [{name: next(out) for name in names} for _ in range(1 + len(state))]
        return after, tuple(running)

    @abstractmethod
    def rested(self, params: Tree) -> State:
        """The optimizer's state before the first step."""

    @abstractmethod
    def step(self, n: int, params: Tree, state: State, gradient: Tree) -> tuple[dict[str, Tensor], State]:
        """Weights and state after step ``n``, which counts from 1."""

    @abstractmethod
    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        """The mean gradient along the way, as far as the update tells; None where it does not."""

    @abstractmethod
    def reach(self, records: int) -> float:
        """How far a weight moves whose gradient is 1 at every step."""

    def steps(self, records: int) -> int:
        return self.epochs * math.ceil(records / self.batch_size)

    @property
    def knows_order(self) -> bool:
        return self.order != "shuffled"

    def drawn(self, records: int, rng: Generator) -> "LocalTraining":
        """The client with the order in which it really trains."""
        if self.knows_order:
            return self
        orders = [torch.randperm(records, generator=rng).tolist() for _ in range(self.epochs)]
        return dataclasses.replace(self, order=orders)


@dataclass(frozen=True, repr=False)
class LocalSGD(LocalTraining):
    """Local training by stochastic gradient descent, as torch.optim.SGD does it."""

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_share("momentum", self.momentum)
        _require_positive("weight_decay", self.weight_decay)

    def rested(self, params: Tree) -> State:
        return (map_tree(torch.zeros_like, params),) if self.momentum else ()

    def step(self, n: int, params: Tree, state: State, gradient: Tree) -> tuple[dict[str, Tensor], State]:
        slope = _decayed(gradient, params, self.weight_decay)
        if self.momentum:
            slope = map_tree(lambda v, g: self.momentum * v + g, state[0], slope)
        after = map_tree(lambda w, v: w - self.lr * v, params, slope)
        return after, ((slope,) if self.momentum else ())

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        mean = scale(update, -1 / self.reach(records))
        return _decayed(mean, params, -self.weight_decay)

    def reach(self, records: int) -> float:
        steps, m = self.steps(records), self.momentum
        return self.lr * (steps - m * (1 - m**steps) / (1 - m)) / (1 - m)


@dataclass(frozen=True, repr=False)
class LocalAdam(LocalTraining):
    """Local training by Adam, as torch.optim.Adam does it."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        betas = tuple(self.betas) if isinstance(self.betas, list | tuple) else ()
        if len(betas) != 2:
            raise InvalidInput(f"expected betas as two numbers from 0 to below 1; came {self.betas!r}")
        object.__setattr__(self, "betas", betas)
        for beta in betas:
            _require_share("betas", beta)
        _require_positive("weight_decay", self.weight_decay)
        if not _is_number(self.eps) or not 0 < self.eps < math.inf:
            raise InvalidInput(f"expected eps as a finite number above 0; came {self.eps!r}")

    def rested(self, params: Tree) -> State:
        return map_tree(torch.zeros_like, params), map_tree(torch.zeros_like, params)

    def step(self, n: int, params: Tree, state: State, gradient: Tree) -> tuple[dict[str, Tensor], State]:
        slope = _decayed(gradient, params, self.weight_decay)
        first, second = self.betas
        mean = map_tree(lambda m, g: first * m + (1 - first) * g, state[0], slope)
        square = map_tree(lambda s, g: second * s + (1 - second) * g.square(), state[1], slope)

        def moved(w: Tensor, m: Tensor, s: Tensor) -> Tensor:
            return w - self.lr * (m / (1 - first**n)) / (_root(s / (1 - second**n)) + self.eps)

        return map_tree(moved, params, mean, square), (mean, square)

    def gradient_of(self, params: Tree, update: Tree, records: int) -> dict[str, Tensor] | None:
        return None  # every weight moves by about the same distance, whatever its gradient

    def reach(self, records: int) -> float:
        return self.lr * self.steps(records)


def _gradient(task: Task, params: Tree, x: Tensor, y: Tensor, pick: Pick) -> dict[str, Tensor]:
    if pick.is_floating_point():
        return task.weighted_gradient(params, x, y, pick)
    return task.gradient(params, x[pick], y[pick])


def _root(square: Tensor) -> Tensor:
    """The square root, with a slope of 0 at 0, where a weight that never moved would have an infinite one."""
    moving = square > 0
    return torch.where(moving, torch.where(moving, square, torch.ones_like(square)).sqrt(), square)


def _decayed(gradient: Tree, params: Tree, decay: float) -> dict[str, Tensor]:
    return map_tree(lambda g, w: g + decay * w, gradient, params) if decay else dict(gradient)


def _permutations(order: Sequence[Sequence[int]] | Tensor, epochs: int) -> tuple[tuple[int, ...], ...]:
    if isinstance(order, Tensor):
        order = order.tolist()
    try:
        found = tuple(tuple(one) for one in order)
    except TypeError as error:
        raise InvalidInput(f"expected order as one permutation per epoch; came {order!r}") from error
    if not all(found) or not all(isinstance(i, int) for one in found for i in one):
        raise InvalidInput(f"expected order as permutations of whole numbers; came {order!r}")
    if len(found) != epochs or any(sorted(one) != list(range(len(found[0]))) for one in found):
        raise InvalidInput(
            f"expected order as {epochs} permutations, one per epoch, each of the same records counted from "
            f"0; came {order!r}"
        )
    return found


def _require_share(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value < 1:
        raise InvalidInput(f"expected {name} from 0 to below 1; came {value!r}")


def _require_positive(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InvalidInput(f"expected {name} as a finite number of 0 or more; came {value!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    # A whole number that no float can hold would overflow later.
    return isinstance(value, float) or (_is_whole(value) and abs(value) < 2**1000)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
