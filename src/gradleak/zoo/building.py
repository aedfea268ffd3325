"""What every builder shares: arguments checked at the edge, one seed, and convolution arithmetic."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from numbers import Integral

import torch

from gradleak.errors import InvalidInput

SMALLEST = 4  # two halvings still leave a pixel
SEEDS = 2**63 - 1
SLOPE = 0.2  # R-GAP's LeakyReLU: steep enough to be inverted without losing digits


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is not a whole number from ``least`` to ``most``; ``True`` is not one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InvalidInput(f"{name} must be a whole number, {least} or more; got {value!r}")
    if most is not None and int(value) > most:
        raise InvalidInput(f"{name} must be at most {most}; got {value!r}")


def one_of(name: str, value: object, choices: Collection[str] | Collection[int]) -> None:
    """Refuse what is not among ``choices``, naming them all and the closest."""
    if any(value == choice for choice in choices):
        return
    close = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(repr(choice) for choice in choices)
    raise InvalidInput(f"{name} must be one of {listed}; got {value!r}{hint}")


def check(classes: int, channels: int, size: int) -> None:
    """The three arguments that every builder takes first."""
    whole("classes", classes, 1)
    whole("channels", channels, 1)
    whole("size", size, SMALLEST)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Inside, torch's global draws depend on ``seed`` alone; afterwards it is as if none had been made.

    Only the CPU's generator is set and put back (``torch.manual_seed`` would reach every accelerator's
    too), so a seeded model is initialised on the CPU and has the same bits whatever device it moves to.
    """
    if seed is None:
        yield
        return
    whole("seed", seed, 0, SEEDS)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(seed))
        yield


def side(size: int, *convolutions: tuple[int, int, int]) -> int:
    """The height that is left of ``size`` after convolutions of (kernel, stride, padding)."""
    for kernel, stride, padding in convolutions:
        size = (size + 2 * padding - kernel) // stride + 1
    return size
