"""A model's layers in the order in which they end, with the tensors that pass through them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradleak.observe.task import Task, noise_batch
from gradleak.trees import Tree

if TYPE_CHECKING:  # an observation is probed while it is made
    from gradleak.observe.observation import Observation

Visit = Callable[[str, nn.Module, tuple[Any, ...], Mapping[str, Any], Any], None]


@dataclass(frozen=True)
class Call:
    """One run of one layer; a layer that is used twice gives two."""

    path: str
    module: nn.Module
    input: Tensor | None
    output: Tensor | None

    @property
    def name(self) -> str:
        return name_of(self.path, self.module)

    @property
    def leaf(self) -> bool:
        return not any(self.module.children())


@dataclass(frozen=True)
class Head:
    """The last layer: the names of its weight and, where it has one, of its bias."""

    weight: str
    bias: str | None


def trace(task: Task, params: Tree, x: Tensor) -> list[Call]:
    """Run the model once, without a graph, and say what passed through each layer, the model itself last."""
    calls: list[Call] = []

    def record(
        path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        calls.append(Call(path, module, _copied(args), _copied(output)))

    walk(task, params, x, record)
    return calls


def walk(task: Task, params: Tree, x: Tensor, visit: Visit) -> None:
    """Run the model once without a graph, and visit each layer as it ends, children before parents.

    A visitor finds the module's parameters in place, which they are only during the run.
    """
    with _hooked(task.model, visit), torch.no_grad():
        task.with_copied_constants().forward(params, x)


def head(obs: "Observation") -> Head | None:
    """The linear layer whose output is the logits, or None where the model ends otherwise.

    None too where its gradient is not its own: a layer that runs twice, or a weight with two names.
    """
    task = obs.task
    calls = trace(task, obs.params, noise_batch(obs.like, obs.x_shape))
    last = next((call for call in reversed(calls) if call.leaf), None)
    if last is None or not isinstance(last.module, nn.Linear) or obs.classes is None:
        return None
    names = [n for n, p in task.model.named_parameters(remove_duplicate=False) if p is last.module.weight]
    once = sum(call.module is last.module for call in calls) == 1 and len(names) == 1
    if not once or not same(last.output, calls[-1].output):
        return None
    weight, bias = (".".join(filter(None, (last.path, leaf))) for leaf in ("weight", "bias"))
    if weight not in obs.update:
        return None
    return Head(weight, bias if bias in obs.update else None)


def name_of(path: str, module: nn.Module) -> str:
    return (
        f"layer '{path}' ({type(module).__name__})" if path else f"the model itself ({type(module).__name__})"
    )


def first_tensor(value: Any) -> Tensor | None:
    """What a layer gives on: its output, or the first tensor in it."""
    parts = (
        value.values()
        if isinstance(value, Mapping)
        else value
        if isinstance(value, tuple | list)
        else [value]
    )
    return next((part for part in parts if isinstance(part, Tensor)), None)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


@contextmanager
def _hooked(model: nn.Module, visit: Visit) -> Iterator[None]:
    def hook(path: str) -> Callable[..., None]:
        return lambda module, args, kwargs, output: visit(path, module, args, kwargs, output)

    handles = [
        module.register_forward_hook(hook(path), with_kwargs=True) for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copied(value: Any) -> Tensor | None:
    tensor = first_tensor(value)
    return None if tensor is None else tensor.detach().clone()
