"""One seed becomes as many independent generators as a run needs, and the same ones every time.

All draws are made on the CPU and moved afterwards, so that a seed means the same on every device, and
each trial has a generator of its own, so that solving trials together or one by one changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator

from gradleak.errors import InvalidInput

Rng = int | Generator
_SEEDS = 2**63 - 1


def generator(rng: Rng) -> Generator:
    """A seed's generator; a generator is handed back as it is."""
    if isinstance(rng, Generator):
        return rng
    if not isinstance(rng, int) or isinstance(rng, bool) or not 0 <= rng <= _SEEDS:
        raise InvalidInput(f"expected a seed from 0 to {_SEEDS}, or a torch.Generator; came {rng!r}")
    return Generator().manual_seed(rng)


def spawn(rng: Rng, n: int) -> list[Generator]:
    """``n`` generators that depend on ``rng`` alone; the first k of n are the first k of any other n."""
    parent = generator(rng)
    seeds = [int(torch.randint(_SEEDS, (), generator=parent, device=parent.device)) for _ in range(n)]
    return [Generator().manual_seed(seed) for seed in seeds]


def private(rng: Rng) -> Generator:
    """The generator of a client, which no attacker's is equal to, though both be told the same seed."""
    if isinstance(rng, Generator):
        return rng
    return Generator().manual_seed(generator(rng).initial_seed() ^ 0x5DEECE66D5DEECE6)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Code in here may draw from and set the global generators; afterwards they are as they were.

    Gradients are on in here, whatever mode the caller is in.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Set the global generators that code on ``device`` draws from, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
