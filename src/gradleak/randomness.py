"""One seed becomes as many independent generators as a run needs, and the same ones every time.

All draws are made on the CPU and moved afterwards, so that a seed means the same on every device, and
each trial has a generator of its own, so that solving trials together or one by one changes nothing.
"""

import torch
from torch import Generator

Rng = int | Generator
_SEEDS = 2**63 - 1


def generator(rng: Rng) -> Generator:
    """A seed's generator; a generator is handed back as it is."""
    return rng if isinstance(rng, Generator) else Generator().manual_seed(rng)


def spawn(rng: Rng, n: int) -> list[Generator]:
    """``n`` generators that depend on ``rng`` alone; the first k of n are the first k of any other n."""
    parent = generator(rng)
    seeds = [int(torch.randint(_SEEDS, (), generator=parent)) for _ in range(n)]
    return [Generator().manual_seed(seed) for seed in seeds]
