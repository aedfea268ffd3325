"""A task in which the input of some layers is changed on its way in."""

import difflib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from gradleak.errors import InvalidInput
from gradleak.observe import Task
from gradleak.trees import Tree

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Altered(Task):
    """Each change hangs on its layer only while the model runs: a replayed step finds it again."""

    changes: tuple[tuple[str, Change], ...] = ()

    def forward(self, params: Tree, x: Tensor) -> Tensor:
        with _hooked(self.model, self.changes):
            return super().forward(params, x)


def altered(task: Task, layer: str, change: Change) -> Altered:
    """``task`` with ``change`` in front of the layer, behind those that are there."""
    before = task.changes if isinstance(task, Altered) else ()
    plain = {field.name: getattr(task, field.name) for field in fields(Task)}
    layer_of(task.model, layer)
    return Altered(**plain, changes=(*before, (layer, change)))


def layer_of(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    if path not in modules:
        raise InvalidInput(f"expected layer as the path of a module; {unknown(path, modules)}")
    return model.get_submodule(path)


def classifier(params: Tree) -> str:
    """The path of the last layer: the one whose weight is the last matrix that is trained."""
    named = [name for name, leaf in params.items() if leaf.dim() == 2 and name.split(".")[-1] == "weight"]
    if not named:
        raise InvalidInput(
            "expected a model that ends in a linear layer whose weight is trained; came one without. Name "
            "the layer: layer=..."
        )
    return named[-1].removesuffix("weight").removesuffix(".")


def weight_of(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"


def unknown(name: str, names: Collection[str]) -> str:
    """What came, and the names that look like it."""
    there = [one for one in names if one]
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or there[:8]
    return f"came {name!r}. The nearest are {', '.join(map(repr, near))}"


@contextmanager
def _hooked(model: nn.Module, changes: Collection[tuple[str, Change]]) -> Iterator[None]:
    def before(change: Change) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        return lambda module, args: (change(args[0]), *args[1:])

    handles = [
        model.get_submodule(layer).register_forward_pre_hook(before(change)) for layer, change in changes
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
