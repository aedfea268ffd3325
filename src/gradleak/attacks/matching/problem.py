"""The matching objective of many trials: a stack of points in, a value and a gradient for each out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Generator, Tensor
from torch.func import vmap

from gradleak.attacks.matching.candidate import Candidate, Prior
from gradleak.attacks.matching.layout import Layout, Parts, pack
from gradleak.attacks.matching.objectives import Objective
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.observe import Client, Observation, Task
from gradleak.observe.client import OpenClient
from gradleak.observe.layers import first_tensor, same
from gradleak.observe.local import AT_ONCE
from gradleak.observe.task import noise_batch
from gradleak.observe.uncertainty import told
from gradleak.trees import Tree, map_tree, total


@dataclass(frozen=True, eq=False)
class Problem:
    """Trials over one or many records that share a model's structure, a loss and a client.

    Trial t attacks record ``record[t]`` with the settled labels ``y[t]``; ``evidence[t]`` is what each of
    the ``priors`` gathered for it. ``layout`` says what a trial's point holds.
    """

    records: Sequence[Observation]
    record: tuple[int, ...]
    y: Tensor | None  # [trials, B] where labels are settled
    objective: Objective
    priors: tuple[Prior, ...] = ()
    evidence: Sequence[Sequence[Tree]] = ()

    def __post_init__(self) -> None:
        for other in self.records[1:]:
            require_alike(self.first, other, self.task)

    @property
    def first(self) -> Observation:
        return self.records[0]

    @cached_property
    def task(self) -> Task:
        """The first record's task, with a structure that is this problem's own."""
        return self.first.task

    @cached_property
    def layout(self) -> Layout:
        obs = self.first
        start = unknowns_of(obs, Generator().manual_seed(0))
        return Layout(
            obs.x_shape,
            classes=(obs.classes or 0) if self.y is None else None,
            unknowns=None if start is None else start.numel(),
        )

    def clamp(self, point: Tensor) -> Tensor:
        """The point with its pictures moved to the nearest ones inside the box; the rest stays."""
        parts = self.layout.unpack(point)
        return pack(parts._replace(x=self.first.domain.clamp(parts.x)))

    def target(self, parts: Parts, y: Tensor | None) -> Tensor:
        """What a client takes as labels: settled ones, or the probabilities of those to be learnt."""
        if parts.logits is not None:
            return parts.logits.softmax(-1)
        if y is None:
            raise MissingInformation("labels are settled, yet none were handed in")
        return y

    def settled_client(self, point: Tensor) -> Client | None:
        """What an open client has become at this point, with its budget spent; None for a known client."""
        unknowns = self.layout.unpack(point.detach()).unknowns
        if unknowns is None or not bool(torch.isfinite(unknowns).all()):
            return None
        return self._client(unknowns.clone(), unknowns.new_ones(()))[0]

    def settled_mismatch(self, point: Tensor, record: int, y: Tensor | None) -> float:
        """The mismatch of a point with the client that it settles on, infinite where it settles on none."""
        client, parts = self.settled_client(point), self.layout.unpack(point.detach())
        if client is None:
            return float("inf")
        obs = self.records[record]
        task = replace(self.task, constants=obs.constants, transformed=False)
        client = told(client, obs.params, obs.update, obs.batch_size)
        update = client(task, obs.params, parts.x, self.target(parts, y))
        return float(self.objective(update, obs.update).detach())

    def evaluate(
        self, points: Tensor, trials: Sequence[int], progress: Tensor, anchors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values with priors, mismatches without, and gradients, for the trials' points [n, variables].

        ``progress`` [n] is the share of each trial's budget that is spent, and ``anchors`` [n, B, ...]
        what their groups agree on, where there is a consensus yet.
        """
        points = points.detach().requires_grad_()
        y = None if self.y is None else self.y[list(trials)]
        # A lone trial needs no vmap, and is a quarter faster without it.
        run = self._in_one_sweep if len(trials) > 1 and self.vectorises else self._in_turn
        values, mismatches = run(points, progress, y, anchors, self._stacks_of(trials))
        (gradients,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), mismatches.detach(), gradients

    @cached_property
    def vectorises(self) -> bool:
        """Whether vmap runs this client and model, and rightly; where not, trials are evaluated in turn.

        Tried on two random points, and the second compared with itself alone: torch's vmap gives wrong
        second derivatives of some layers, such as LayerNorm (pytorch/functorch#534), by up to 3 %.

        A client of many local steps would keep the graphs of all of them for all trials at once; one trial
        at a time, its steps are replayed.
        """
        if self.first.steps > AT_ONCE:
            return False
        two = noise_batch(self.first.like, (2, self.layout.width)).requires_grad_()
        y = None if self.y is None else self.y[:1].expand(2, *self.y.shape[1:])
        stacks = self._stacks_of([0, 0])
        start = two.new_zeros(2)
        try:
            swept = self._in_one_sweep(two, start, y, None, stacks)
            alone = self._in_turn(two[1:], start[1:], None if y is None else y[1:], None, stacks)
            pairs = [
                pair
                for a, b in zip(swept, alone, strict=True)  # with priors, which can hide it, and without
                for pair in ((a[1], b[0]), (_slope(a[1], two)[1], _slope(b[0], two)[1]))
            ]
        except RuntimeError:
            return False
        # In float32, 199 of 200 nets of the zoo round to less, and the wrong slopes were 2e-5 to 3e-2 off.
        tolerance = 1e-8 if two.dtype is torch.float64 else 1e-5
        return all(bool((a - b).norm() <= tolerance * b.norm()) for a, b in pairs)

    def _in_one_sweep(
        self,
        points: Tensor,
        progress: Tensor,
        y: Tensor | None,
        anchors: Tensor | None,
        stacks: list["_Stack"],
    ) -> tuple[Tensor, Tensor]:
        optional = (None if one is None else 0 for one in (y, anchors))
        axes = (0, 0, *optional, *(None if stack.shared else 0 for stack in stacks))
        leaves = [stack.leaves for stack in stacks]
        values, mismatches = vmap(partial(self._value, transformed=True), in_dims=axes)(
            points, progress, y, anchors, *leaves
        )
        return values, mismatches

    def _in_turn(
        self,
        points: Tensor,
        progress: Tensor,
        y: Tensor | None,
        anchors: Tensor | None,
        stacks: list["_Stack"],
    ) -> tuple[Tensor, Tensor]:
        pairs = [
            self._value(
                point,
                progress[i],
                None if y is None else y[i],
                None if anchors is None else anchors[i],
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
        anchor: Tensor | None,
        update: Tree,
        params: Tree,
        constants: Tree,
        *evidence: Tree,
        transformed: bool,
    ) -> tuple[Tensor, Tensor]:
        parts = self.layout.unpack(point)
        target = self.target(parts, y)
        task = replace(self.task, constants=constants, transformed=transformed)
        client, *penalties = self._client(parts.unknowns, progress)
        # What the update shows of a defense's dice is another for every record.
        client = told(client, params, update, self.first.batch_size)
        mismatch = self.objective(client(task, params, parts.x, target), update)
        candidate = Candidate(parts.x, target, self.first.domain, progress, task, params, anchor)
        for prior, own in zip(self.priors, evidence or ({},) * len(self.priors), strict=True):
            penalties.append(prior(replace(candidate, evidence=own)))
        return total([mismatch, *penalties]), mismatch

    def _client(self, unknowns: Tensor | None, progress: Tensor) -> tuple[Client, *tuple[Tensor, ...]]:
        """The client, and what its unknowns are charged where it has any."""
        client = self.first.client
        if unknowns is None or not isinstance(client, OpenClient):
            return (client,)
        return client.settled(unknowns, progress)

    def _stacks_of(self, trials: Sequence[int]) -> list["_Stack"]:
        records = [self.record[t] for t in trials]
        return [
            *(stack.take(records) for stack in self._stacks),
            *(stack.take(list(trials)) for stack in self._evidence),
        ]

    @cached_property
    def _evidence(self) -> tuple["_Stack", ...]:
        return tuple(_Stack.of(trees) for trees in zip(*self.evidence, strict=True))

    @cached_property
    def _stacks(self) -> tuple["_Stack", "_Stack", "_Stack"]:
        return (
            _Stack.of([obs.update for obs in self.records]),
            _Stack.of([obs.params for obs in self.records]),
            _Stack.of([obs.constants for obs in self.records]),
        )


def unknowns_of(obs: Observation, rng: Generator) -> Tensor | None:
    """The first guess at what is not known of the client; None where all of it is known."""
    if not isinstance(obs.client, OpenClient):
        return None
    start: Tensor = obs.client.start(obs.batch_size, rng).to(obs.like)
    return start


def _slope(value: Tensor, point: Tensor) -> Tensor:
    return torch.autograd.grad(value, point, retain_graph=True)[0]


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


def require_alike(a: Observation, b: Observation, task: Task) -> None:
    """Records are solved together only where one simulation, of ``a``'s ``task``, serves them all."""
    alike = (
        repr(a.model) == repr(b.model)
        and all(_form(x) == _form(y) for x, y in ((a.params, b.params), (a.constants, b.constants)))
        and (a.x_shape, a.classes, a.loss, a.client) == (b.x_shape, b.classes, b.loss, b.client)
        and a.domain == b.domain
        and _computes(task, b)
    )
    if not alike:
        raise InvalidInput(
            "records are solved together only where model, dtype, picture shape, loss, client and "
            f"normalisation are the same; came {a!r} and {b!r}. Attack them one by one."
        )


def _form(tree: Tree) -> dict[str, tuple[torch.Size, torch.dtype, torch.device]]:
    return {name: (leaf.shape, leaf.dtype, leaf.device) for name, leaf in tree.items()}


def _computes(task: Task, other: Observation) -> bool:
    """Whether the task's network, with the other's numbers, gives what the other's gives."""
    x = noise_batch(other.like, other.x_shape)
    with torch.no_grad():
        ours = replace(task, constants=other.constants).forward(other.params, x)
        theirs = other.task.forward(other.params, x)
    return same(first_tensor(ours), first_tensor(theirs))
