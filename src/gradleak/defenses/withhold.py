"""Withholding: some layers' entries are not sent at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from gradleak.defenses.altered import unknown
from gradleak.defenses.base import Outgoing
from gradleak.errors import InvalidInput
from gradleak.trees import Tree, map_tree


@dataclass(frozen=True)
class Withhold(Outgoing):
    """Entries of these ``layers`` go out as 0. Each is the name of a parameter, or the path of a module."""

    layers: Sequence[str] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        layers: Any = (self.layers,) if isinstance(self.layers, str) else self.layers
        if not isinstance(layers, list | tuple) or not all(isinstance(one, str) and one for one in layers):
            raise InvalidInput(
                f"expected layers as names of parameters or paths of modules; came {self.layers!r}"
            )
        object.__setattr__(self, "layers", tuple(layers))

    def sent(self, update: Tree, rng: Generator) -> dict[str, Tensor]:
        return self.expected(update)

    def expected(self, update: Tree) -> dict[str, Tensor]:
        gone = self.withheld(update)
        return {name: torch.zeros_like(leaf) if name in gone else leaf for name, leaf in update.items()}

    def withheld(self, update: Tree) -> set[str]:
        """The names of the parameters that are meant."""
        gone = {one: [name for name in update if f"{name}.".startswith(f"{one}.")] for one in self.layers}
        for one, names in gone.items():
            if not names:
                raise InvalidInput(
                    f"expected layers to withhold out of those of the model; {unknown(one, _paths(update))}"
                )
        return {name for names in gone.values() for name in names}

    def uncertainty(
        self, params: Tree, update: Tree, records: int, *, hidden: bool = False
    ) -> dict[str, Tensor]:
        before = super().uncertainty(params, update, records, hidden=hidden)
        unseen = map_tree(lambda d: torch.full_like(d, math.inf), before)
        gone = self.withheld(update)
        return {name: unseen[name] if name in gone else d for name, d in before.items()}


def _paths(update: Tree) -> list[str]:
    """Every name, and every module that it lies in."""
    found: dict[str, None] = {}
    for name in update:
        parts = name.split(".")
        found |= dict.fromkeys(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return list(found)
