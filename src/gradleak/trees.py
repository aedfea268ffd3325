"""Arithmetic on tensors by name: parameters, gradients and updates are all ``{name: Tensor}``."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Tree = Mapping[str, Tensor]


def map_tree(f: Callable[..., Tensor], *trees: Tree) -> dict[str, Tensor]:
    """``f`` applied name by name; the first tree says which names there are."""
    first, *others = trees
    return {name: f(leaf, *(tree[name] for tree in others)) for name, leaf in first.items()}


def add(a: Tree, b: Tree) -> dict[str, Tensor]:
    return map_tree(torch.add, a, b)


def subtract(a: Tree, b: Tree) -> dict[str, Tensor]:
    return map_tree(torch.sub, a, b)


def scale(tree: Tree, factor: float | Tensor) -> dict[str, Tensor]:
    return map_tree(lambda leaf: leaf * factor, tree)


def dot(a: Tree, b: Tree) -> Tensor:
    return total((leaf * b[name]).sum() for name, leaf in a.items())


def squared_norm(tree: Tree) -> Tensor:
    return total(leaf.square().sum() for leaf in tree.values())


def norm(tree: Tree) -> Tensor:
    return squared_norm(tree).sqrt()


def flatten(tree: Tree) -> Tensor:
    """One vector, in the tree's own order."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()])


def detached(tree: Tree) -> dict[str, Tensor]:
    """A copy that shares no memory and remembers no graph."""
    return {name: leaf.detach().clone() for name, leaf in tree.items()}


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor, without the integer 0 that ``sum`` would start from."""
    return torch.stack(list(terms)).sum()
