"""What an attacker knows of each entry of an update, for every way in which updates are blurred: 1 / std.

Each function gives weights by parameter name for ``decibels(..., weights=..., noise=1.0)``.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gradleak.errors import InvalidInput
from gradleak.observe.checks import check_fit, check_tensors
from gradleak.trees import Tree, map_tree

Weights = Mapping[str, Tensor | float]

# The deviation below which no entry is taken to be known: rounding in the client's own float32.
FLOOR = 1e-6


def gaussian(update: Tree, std: float) -> dict[str, Tensor]:
    certain = 1 / _positive("deviation", std)
    return map_tree(lambda g: torch.full_like(g, certain), update)


def laplace(update: Tree, scale: float) -> dict[str, Tensor]:
    """A Gaussian of the same variance, 2 ``scale``²: an attacker who uses the true density does better."""
    return gaussian(update, math.sqrt(2) * _positive("scale", scale))


def fp16(update: Tree, floor: float = FLOOR) -> dict[str, Tensor]:
    return _rounded(update, 10, floor)


def bf16(update: Tree, floor: float = FLOOR) -> dict[str, Tensor]:
    return _rounded(update, 7, floor)


def int8(update: Tree, floor: float = FLOOR) -> dict[str, Tensor]:
    """127 steps up to each tensor's largest entry."""
    return map_tree(lambda g: _certain((g.abs().max() / 127).expand(g.shape), floor), update)


def masked(update: Tree, kept: Tree, floor: float = FLOOR) -> dict[str, Tensor]:
    """Nothing is known of what is not kept."""
    certain = 1 / _positive("floor", floor)
    return map_tree(lambda g, keep: keep * certain, update, entries_kept(update, kept))


def pruned(update: Tree, kept: Tree, floor: float = FLOOR) -> dict[str, Tensor]:
    """Magnitude pruning says that the rest lies within ± the smallest kept magnitude of all tensors.

    Of the update before it was pruned, or after: only what is kept is read.
    """
    certain, kept = 1 / _positive("floor", floor), entries_kept(update, kept)
    magnitudes = torch.cat([g[kept[name] > 0].abs() for name, g in update.items()])
    least = float(magnitudes.min()) if len(magnitudes) else math.inf
    rest = min(certain, math.sqrt(3) / least) if least else certain
    return map_tree(lambda keep: torch.where(keep > 0, certain, rest).to(keep), kept)


def entries_kept(update: Tree, kept: object) -> dict[str, Tensor]:
    """The masks as numbers, 1 and 0, after a look at whether they fit."""
    came = check_tensors("entries that are kept", kept)
    masks = {name: k.to(update[name]) if name in update else k for name, k in came.items()}
    check_fit("entries that are kept", masks, update)
    return {name: (masks[name] != 0).to(g) for name, g in update.items()}


def _rounded(update: Tree, digits: int, floor: float) -> dict[str, Tensor]:
    """To the nearest of 2^digits steps between two powers of 2, an error uniform over one step."""

    def certain(g: Tensor) -> Tensor:
        _, exponent = torch.frexp(g)
        step = torch.ldexp(torch.ones_like(g), exponent - 1 - digits)
        return _certain(torch.where(g == 0, 0, step), floor)

    return map_tree(certain, update)


def _certain(step: Tensor, floor: float) -> Tensor:
    return 1 / (step / math.sqrt(12)).clamp_min(_positive("floor", floor))


def _positive(what: str, value: float) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"expected the {what} of noise as a finite number above 0; came {value!r}")
    return float(value)
