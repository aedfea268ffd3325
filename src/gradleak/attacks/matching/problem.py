"""The matching objective of many trials: a stack of points in, a value and a gradient for each out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.func import vmap

from gradleak.attacks.matching.objectives import Objective
from gradleak.attacks.matching.priors import Prior
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.observe import Observation, Task
from gradleak.trees import Tree, map_tree, total


@dataclass(frozen=True, eq=False)
class Problem:
    """Trials over one or many records that share a model's structure, a loss and a client.

    A trial's point is one vector: the pictures, then the label logits where labels are learnt. Trial t
    attacks record ``record[t]`` with the settled labels ``y[t]``.
    """

    records: Sequence[Observation]
    record: tuple[int, ...]
    y: Tensor | None  # [trials, B] where labels are settled
    objective: Objective
    priors: tuple[Prior, ...] = ()

    def __post_init__(self) -> None:
        for other in self.records[1:]:
            require_alike(self.records[0], other)

    @property
    def first(self) -> Observation:
        return self.records[0]

    @cached_property
    def pixels(self) -> int:
        return torch.Size(self.first.x_shape).numel()

    def pack(self, x: Tensor, logits: Tensor | None) -> Tensor:
        """[trials, B, ...] and [trials, B, classes] into [trials, variables]."""
        parts = [x.flatten(1)] if logits is None else [x.flatten(1), logits.flatten(1)]
        return torch.cat(parts, 1)

    def unpack(self, point: Tensor) -> tuple[Tensor, Tensor | None]:
        """One trial's vector into its pictures and, where they are learnt, its label logits."""
        x = point[: self.pixels].reshape(self.first.x_shape)
        if self.y is not None:
            return x, None
        return x, point[self.pixels :].reshape(self.first.batch_size, -1)

    def batch(self, point: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """One trial's vector as what a client takes: pictures, and labels or their probabilities."""
        x, logits = self.unpack(point)
        if logits is not None:
            return x, logits.softmax(-1)
        if y is None:
            raise MissingInformation("labels are settled, yet none were handed in")
        return x, y

    def clamp(self, point: Tensor) -> Tensor:
        """The point with its pictures moved to the nearest ones inside the box."""
        x, logits = self.unpack(point)
        inside = self.first.domain.clamp(x).reshape(-1)
        return inside if logits is None else torch.cat((inside, logits.reshape(-1)))

    def evaluate(
        self, points: Tensor, trials: Sequence[int], progress: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values with priors, mismatches without, and gradients, for the trials' points [n, variables].

        ``progress`` [n] is the share of each trial's budget that is spent.
        """
        points = points.detach().requires_grad_()
        y = None if self.y is None else self.y[list(trials)]
        stacks = [stack.take([self.record[t] for t in trials]) for stack in self._stacks]
        # A lone trial needs no vmap, and is a quarter faster without it.
        run = self._in_one_sweep if len(trials) > 1 and self.vectorises else self._in_turn
        values, mismatches = run(points, progress, y, stacks)
        (gradients,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), mismatches.detach(), gradients

    @cached_property
    def vectorises(self) -> bool:
        """Whether vmap can run this client and model; where it cannot, trials are evaluated in turn."""
        width = self.pixels + (self.first.batch_size * (self.first.classes or 0) if self.y is None else 0)
        two = self.first.like.new_zeros(2, width)
        y = None if self.y is None else self.y[:1].expand(2, -1)
        stacks = [stack.take([0, 0]) for stack in self._stacks]
        try:
            self._in_one_sweep(two, two.new_zeros(2), y, stacks)
        except RuntimeError:
            return False
        return True

    def _in_one_sweep(
        self, points: Tensor, progress: Tensor, y: Tensor | None, stacks: list["_Stack"]
    ) -> tuple[Tensor, Tensor]:
        axes = (0, 0, None if y is None else 0, *(None if stack.shared else 0 for stack in stacks))
        leaves = [stack.leaves for stack in stacks]
        values, mismatches = vmap(partial(self._value, transformed=True), in_dims=axes)(
            points, progress, y, *leaves
        )
        return values, mismatches

    def _in_turn(
        self, points: Tensor, progress: Tensor, y: Tensor | None, stacks: list["_Stack"]
    ) -> tuple[Tensor, Tensor]:
        pairs = [
            self._value(
                point,
                progress[i],
                None if y is None else y[i],
                *(s.row(i) for s in stacks),
                transformed=False,
            )
            for i, point in enumerate(points)
        ]
        values, mismatches = zip(*pairs, strict=True)
        return torch.stack(values), torch.stack(mismatches)

    def _value(
        self,
        point: Tensor,
        progress: Tensor,
        y: Tensor | None,
        update: Tree,
        params: Tree,
        constants: Tree,
        *,
        transformed: bool,
    ) -> tuple[Tensor, Tensor]:
        x, target = self.batch(point, y)
        task = Task(self.first.model, constants, self.first.loss, transformed)
        mismatch = self.objective(self.first.client(task, params, x, target), update)
        penalties = [prior(x, self.first.domain, progress) for prior in self.priors]
        return total([mismatch, *penalties]), mismatch

    @cached_property
    def _stacks(self) -> tuple["_Stack", "_Stack", "_Stack"]:
        return (
            _Stack.of([obs.update for obs in self.records]),
            _Stack.of([obs.params for obs in self.records]),
            _Stack.of([obs.constants for obs in self.records]),
        )


@dataclass(frozen=True, eq=False)
class _Stack:
    """Trees of several records on a leading axis, or one tree that all of them share."""

    leaves: Tree
    shared: bool

    @classmethod
    def of(cls, trees: Sequence[Tree]) -> "_Stack":
        first = trees[0]
        if all(torch.equal(tree[name], leaf) for tree in trees[1:] for name, leaf in first.items()):
            return cls(first, shared=True)
        return cls({name: torch.stack([tree[name] for tree in trees]) for name in first}, shared=False)

    def take(self, rows: list[int]) -> "_Stack":
        if self.shared:
            return self
        index = torch.tensor(rows, device=next(iter(self.leaves.values())).device)
        return _Stack(map_tree(lambda leaf: leaf[index], self.leaves), shared=False)

    def row(self, i: int) -> Tree:
        return self.leaves if self.shared else map_tree(lambda leaf: leaf[i], self.leaves)


def require_alike(a: Observation, b: Observation) -> None:
    """Records are solved together only where one simulation serves them all."""
    same = (
        type(a.model) is type(b.model)
        and {n: p.shape for n, p in a.params.items()} == {n: p.shape for n, p in b.params.items()}
        and (a.x_shape, a.classes, a.loss, a.client) == (b.x_shape, b.classes, b.loss, b.client)
        and a.domain == b.domain
    )
    if not same:
        raise InvalidInput(
            "records are solved together only where model, picture shape, loss, client and normalisation "
            f"are the same; came {a!r} and {b!r}. Attack them one by one."
        )
