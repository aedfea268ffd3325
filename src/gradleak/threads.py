"""How many threads torch may use while a small model is attacked."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALL = 1_000_000  # parameters; above, a second thread begins to pay


@contextmanager
def few_threads(parameters: int, device: torch.device) -> Iterator[None]:
    """One thread inside for a small model on the CPU; afterwards as many as before.

    Its tensors are too small to share out: two threads are no faster, and beside one busy neighbour they
    wait for each other, up to hundreds of times longer.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or parameters > _SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
