"""Low precision: every entry goes out with few digits (Zhu et al. 2019 tried fp16, bf16 and int8)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradleak.defenses.base import Outgoing, one_of, straight_through
from gradleak.observe.uncertainty import both, uncertainty
from gradleak.trees import Tree, map_tree

_FLOATS = {"fp16": torch.float16, "bf16": torch.bfloat16}
_DIGITS = {"fp16": 10, "bf16": 7}  # of a mantissa, after the point
_FAINT = 1e-3  # of a tensor's size, below which steps are taken for those there: float64 sees no more
_STEPS = 127  # of int8, up to each tensor's largest magnitude
FORMATS = (*_FLOATS, "int8")


@dataclass(frozen=True)
class LowPrecision(Outgoing):
    """Rounds each entry to ``format``: "fp16", "bf16" or "int8", to the nearest step.

    ``stochastic`` rounds up with a chance of what is missing, so that the mean stays. An attacker
    simulates the update unrounded. Nothing is known within a step but that: entries that int8 rounds to 0
    may be far nearer to it than its step.
    """

    format: str = field(default="fp16", kw_only=True)
    stochastic: bool = field(default=False, kw_only=True)
    references: ClassVar[tuple[str, ...]] = ("dlg",)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("format", self.format, FORMATS)

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return map_tree(lambda leaf: straight_through(self._rounded(leaf.detach(), rng), leaf), update)

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        """An error that is even over one step; rounding by chance has twice its variance, on average.

        Where something hides what each entry was, it was of the tensor's size.
        """
        before = uncertainty(self.client, params, update, records, hidden=hidden)
        part = (6 if self.stochastic else 12) ** -0.5

        def off(leaf: Tensor) -> Tensor:
            size = leaf.square().mean().sqrt()
            typical = leaf.abs().clamp_min(size if hidden else _FAINT * size)
            return part * self.step(typical)

        return both(before, map_tree(off, update))

    def step(self, leaf: Tensor) -> Tensor:
        """From each entry to the next that the format has, in float64."""
        exact = leaf.detach().double()
        if self.format == "int8":
            return (exact.abs().amax() / _STEPS).expand(exact.shape)
        # The smallest steps of all are those below the format's smallest normal number.
        smallest = torch.finfo(_FLOATS[self.format]).tiny
        _, exponent = torch.frexp(exact.abs().clamp_min(smallest))
        return torch.ldexp(torch.ones_like(exact), exponent - 1 - _DIGITS[self.format])

    def _rounded(self, leaf: Tensor, rng: Generator) -> Tensor:
        if not self.stochastic and self.format in _FLOATS:
            return leaf.to(_FLOATS[self.format]).to(leaf)
        step = self.step(leaf)
        steps = leaf.double() / torch.where(step > 0, step, 1)
        if not self.stochastic:
            return (step * steps.round()).to(leaf)
        chance = torch.rand(leaf.shape, generator=rng, dtype=torch.float64).to(leaf.device)
        return (step * (steps + chance).floor()).to(leaf)
