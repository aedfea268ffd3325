"""A model's leaf layers in the order in which they run, with the shapes that pass through them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.observe.observation import Observation
from gradleak.observe.task import Task
from gradleak.trees import Tree


@dataclass(frozen=True)
class Call:
    """One run of one leaf layer; a layer that is used twice gives two."""

    path: str
    module: nn.Module
    input: Tensor | None
    output: Tensor | None

    @property
    def name(self) -> str:
        return f"'{self.path}' ({type(self.module).__name__})"


@dataclass(frozen=True)
class Head:
    """The last layer: the names of its weight and, where it has one, of its bias."""

    weight: str
    bias: str | None


def trace(task: Task, params: Tree, x: Tensor) -> list[Call]:
    """Run the model once, without a graph, and say what passed through each leaf layer.

    Buffers are copied first, so that even a BatchNorm in train mode leaves the task as it was.
    """
    calls: list[Call] = []

    def record(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.append(Call(path, module, _tensor(args[0]) if args else None, _tensor(output)))

        return hook

    copied = Task(task.model, {name: c.clone() for name, c in task.constants.items()}, task.loss)
    with _hooked(task.model, record), torch.no_grad():
        copied.forward(params, x)
    return calls


def head(obs: Observation) -> Head | None:
    """The linear layer that runs last and makes the logits, or None where the model ends otherwise."""
    calls = trace(obs.task, obs.params, obs.like.new_zeros(obs.x_shape))
    last = calls[-1] if calls else None
    if last is None or not isinstance(last.module, nn.Linear) or last.module.out_features != obs.classes:
        return None
    weight, bias = (".".join(filter(None, (last.path, leaf))) for leaf in ("weight", "bias"))
    if weight not in obs.update:
        return None
    return Head(weight, bias if bias in obs.update else None)


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, module) for path, module in model.named_modules() if not any(module.children()))


@contextmanager
def _hooked(model: nn.Module, record: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    handles = [module.register_forward_hook(record(path)) for path, module in leaves(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor(value: Any) -> Tensor | None:
    return value.detach().clone() if isinstance(value, Tensor) else None
