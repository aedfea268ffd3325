"""What a server does not know of an update that it holds: how far each entry may be off, as a deviation."""

import math
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradleak.observe.client import Client, Summed
from gradleak.observe.local import LocalTraining
from gradleak.trees import Tree, map_tree

# Of a tensor's root mean square: what float32 gradients of five networks of the zoo were off by, in units of
# eps, was 0.3 to 11. The sums that made an entry cost it more than its own last digit.
_SUMS = 2.0


@runtime_checkable
class Defended(Protocol):
    """A client that blurs what it sends, so as to leak less.

    Undrawn, it sends what an attacker expects of it; what that attacker knows besides, it says itself.
    """

    @property
    def client(self) -> Client:
        """The one that it defends."""
        ...

    def around(self, client: Client) -> Client:
        """The same defense of another client."""
        ...

    def told_by(self, params: Tree, update: Tree, records: int) -> Client:
        """The client with those of its dice that its own update shows, such as which entries it dropped."""
        ...

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """The deviation of each entry from what the told client sends: 0 is exact, infinite is not seen.

        ``hidden``: whether something else blurs the update afterwards, so that it does not show its dice.
        """
        ...


def told(client: Client, params: Tree, update: Tree, records: int) -> Client:
    """The client, as an attacker simulates it who has looked at the update."""
    client = _alone(client)
    return client.told_by(params, update, records) if isinstance(client, Defended) else client


def uncertainty(
    client: Client, params: Tree, update: Tree, records: int, *, hidden: bool = False
) -> dict[str, Tensor]:
    """How far each entry may be off, by rounding alone where the client does nothing about it.

    A number of t digits is off by up to half of its last one, evenly, and by what the sums before it lost.
    """
    client = _alone(client)
    if isinstance(client, Defended):
        return client.uncertainty(params, update, records, hidden=hidden)
    if isinstance(client, Summed):
        return _of_the_mean(client, params, update, records)
    sends_weights = isinstance(client, LocalTraining)
    return {name: rounding(params[name] + leaf if sends_weights else leaf) for name, leaf in update.items()}


def undefended(client: Client) -> Client:
    """The client without the defenses around it, or, of a sum, around any in it."""
    if isinstance(client, Defended):
        return undefended(client.client)
    if isinstance(client, Summed):
        each = client.each
        bare = tuple(map(undefended, each)) if isinstance(each, tuple) else undefended(each)
        return replace(client, each=bare)
    return client


def _alone(client: Client) -> Client:
    """A sum of one is that one."""
    return client.all[0] if isinstance(client, Summed) and client.clients == 1 else client


def rounding(sent: Tensor) -> Tensor:
    """The deviation that the number's own dtype brings, entry by entry, in float64."""
    eps, exact = torch.finfo(sent.dtype).eps, sent.double()
    last_digit = exact.abs() / 12**0.5
    return eps * torch.hypot(last_digit, _SUMS * exact.square().mean().sqrt()).clamp_min(1e-150)


def both(a: Tree, b: Tree) -> dict[str, Tensor]:
    """The deviation of what is blurred twice, independently."""
    return map_tree(torch.hypot, a, b)


def _of_the_mean(client: Summed, params: Tree, update: Tree, records: int) -> dict[str, Tensor]:
    """Of n clients' mean: each one's is independent, and none shows its dice."""
    share = max(records // client.clients, 1)
    each = [uncertainty(one, params, update, share, hidden=True) for one in dict.fromkeys(client.all)]
    squares = {name: torch.stack([one[name].square() for one in each]).mean(0) for name in update}
    return {name: (square / client.clients).sqrt() for name, square in squares.items()}


def weights(deviations: Tree) -> dict[str, Tensor]:
    """1 / deviation, and 0 for what is not seen."""
    return map_tree(lambda d: torch.where(d > 0, 1 / d, math.inf).nan_to_num(posinf=1e150), deviations)
