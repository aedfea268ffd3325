"""A federated run, round by round: participants send what their client sends, and the server takes a step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import number
from gradleak.errors import InvalidInput
from gradleak.observe import Client, LocalTraining, Summed, Task, Trained
from gradleak.observe.checks import check_fit
from gradleak.observe.uncertainty import Defended
from gradleak.randomness import reseed, spawn
from gradleak.trees import Tree, add, detached, map_tree, scale

_SEEDS = 2**62


@dataclass(frozen=True)
class Federation:
    """Who takes part, with how much, and what the server does about it.

    ``per_round`` participants are drawn anew each round, all by default. Each takes ``batch_size`` of its own
    records, or all of them where that is None. ``lr`` and ``momentum`` are the server's, for clients that
    send gradients; those that train locally have their own, and the server adds what they send.
    """

    participants: int = 10
    per_round: int | None = None
    rounds: int = 200
    batch_size: int | None = 16
    lr: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        whole("participants", self.participants)
        whole("rounds", self.rounds)
        if self.batch_size is not None:
            whole("batch_size", self.batch_size)
        if self.per_round is not None:
            whole("per_round", self.per_round)
            if self.per_round > self.participants:
                raise InvalidInput(
                    f"expected per_round of at most the {self.participants} participants; "
                    f"came {self.per_round}"
                )
        number("lr", self.lr, 0, math.inf, open_ends="[")
        number("momentum", self.momentum, 0, 1, open_ends="]")


def weights_by_round(
    federation: Federation,
    client: Client,
    task: Task,
    params: Tree,
    x: Tensor,
    y: Tensor,
    shares: list[Tensor],
    rng: Generator,
) -> Iterator[dict[str, Tensor]]:
    """The server's weights after every round.

    Who takes part, on which records, and what dropout draws depends on ``rng`` alone, and not on the client:
    so two clients can be compared round by round. A client's own dice are new at every call.
    """
    choosing, throwing = spawn(rng, 2)
    weights, velocity = dict(params), map_tree(torch.zeros_like, params)
    moved = sends_weights(client)
    for _ in range(federation.rounds):
        sent = []
        for pick in _picks(federation, shares, choosing):
            dice, layers = torch.randint(_SEEDS, (2,), generator=throwing).tolist()
            reseed(layers, x.device)  # what dropout draws
            pick = pick.to(x.device)
            sent.append((_update(client, dice, task, weights, x[pick], y[pick]), len(pick)))
        mean = averaged(sent)
        if moved:
            weights = add(weights, mean)
        else:
            velocity = map_tree(lambda v, g: federation.momentum * v + g, velocity, mean)
            weights = map_tree(lambda w, v: w - federation.lr * v, weights, velocity)
        yield weights


def sends_weights(client: Client) -> bool:
    """Whether a client sends how far its weights have moved, and not a gradient."""
    if isinstance(client, Defended):
        return sends_weights(client.client)
    if isinstance(client, Summed):
        kinds = {sends_weights(one) for one in client.all}
        if len(kinds) > 1:
            raise InvalidInput(
                "expected clients that all send gradients, or all train locally, since the server takes one "
                f"kind of step; came a sum of both: {client!r}"
            )
        return kinds.pop()
    return isinstance(client, LocalTraining)


def averaged(sent: list[tuple[dict[str, Tensor], int]]) -> dict[str, Tensor]:
    """The mean of the updates, weighted by their numbers of records."""
    total = sum(records for _, records in sent)
    parts = [scale(update, records / total) for update, records in sent]
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


def whole(name: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"expected {name} as a whole number of {least} or more; came {value!r}")


def _picks(federation: Federation, shares: list[Tensor], rng: Generator) -> list[Tensor]:
    """The records of this round, one batch for each who takes part."""
    chosen = torch.randperm(len(shares), generator=rng)[: federation.per_round].tolist()
    orders = [(shares[i], torch.randperm(len(shares[i]), generator=rng)) for i in chosen]
    return [share[order[: federation.batch_size]] for share, order in orders]


def _update(client: Client, dice: int, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    own = Generator().manual_seed(dice)
    run: Callable[..., dict[str, Tensor]] = (
        client.drawn(len(x), own) if isinstance(client, Trained) else client
    )
    update = run(task, params, x, y)
    check_fit("update's entries", update, params)
    return detached(update)
