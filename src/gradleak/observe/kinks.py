"""Where a network's derivative jumps."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gradleak.observe.observation import Observation

_KINKS = ("Relu", "LeakyRelu", "Prelu", "Rrelu", "Hard", "Threshold", "Abs", "Max", "Min", "Clamp")


def kinks(obs: Observation, x: Tensor) -> list[str]:
    """The kinds of non-smooth steps between the batch and the loss, read off the graph."""
    with torch.enable_grad():
        output = obs.task.with_copied_constants().forward(obs.params, x.clone().requires_grad_())
    met: set[Any] = set()
    left: list[Any] = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    found: set[str] = set()
    while left:
        node = left.pop()
        if node is None or node in met:
            continue
        met.add(node)
        name = node.name().partition("Backward")[0]
        if name.startswith(_KINKS):
            found.add(name)
        left += [parent for parent, _ in node.next_functions]
    return sorted(found)
