"""A network as a chain of layers, where it is one: each reads what the one before it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.errors import UnsupportedLayer
from gradleak.observe import Observation, Task
from gradleak.observe.layers import first_tensor, name_of, walk
from gradleak.observe.task import noise_batch, split_tensors, structure_of
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Layer:
    """One link: its kind and hyper-parameters, its own tensors by leaf name, and its part of the update.

    ``module`` is asked for its kind and its settings (stride, slope, eps), never for its tensors, which
    are the observation's. ``params`` and ``grads`` are float64. Shapes have no batch axis. ``implicit``
    marks a reshape that the model's own forward does between two layers.
    """

    path: str
    module: nn.Module
    params: Mapping[str, Tensor]
    grads: Mapping[str, Tensor]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return name_of(self.path, self.module)


def chain(obs: Observation) -> list[Layer]:
    """The observation's layers in the order in which they run.

    Refuses a branch, a skip connection, a layer that runs twice, and anything that the model computes
    between its layers.
    """
    return _chain(obs.task, obs.params, obs.update, obs.x_shape[1:])


def chain_of(model: nn.Module, input_shape: tuple[int, ...]) -> list[Layer]:
    """The same for a model without an observation: layers know their tensors and no gradients."""
    trained, constants = split_tensors(model)
    task = Task(structure_of(model), constants, nn.functional.mse_loss)
    return _chain(task, trained, {}, input_shape)


def _chain(task: Task, params: Tree, update: Tree, input_shape: tuple[int, ...]) -> list[Layer]:
    like = next(iter((*params.values(), *task.constants.values())))
    x = noise_batch(like, (1, *input_shape))
    found: list[Layer] = []
    last, seen = x, set[nn.Module]()

    def visit(
        path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        nonlocal last
        if any(module.children()):
            return
        came, gives = first_tensor(args), first_tensor(output)
        if came is None or gives is None or kwargs or len(args) != 1:
            raise UnsupportedLayer(f"{name_of(path, module)} does not map one tensor to one tensor")
        if module in seen:
            raise UnsupportedLayer(f"{name_of(path, module)} runs twice, so its gradient is a sum of two")
        seen.add(module)
        found.extend(_reshape(last, came, path, module))
        own = {**task.constants, **params}
        found.append(
            Layer(
                path,
                module,
                _own(own, path),
                _own(update, path),
                tuple(came.shape[1:]),
                tuple(gives.shape[1:]),
            )
        )
        last = gives

    output: list[Tensor] = []

    def outer(path: str, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if path == "":
            output.append(out)
        visit(path, module, args, kwargs, out)

    walk(task, params, x, outer)
    if not found:
        raise UnsupportedLayer("the model has no layers that could be told apart")
    found.extend(_reshape(last, output[-1], "", task.model))
    return found


def _reshape(gives: Tensor, takes: Tensor, path: str, module: nn.Module) -> list[Layer]:
    """Nothing where a layer reads what the last one gave, an implicit flatten where it reads a view of it."""
    if takes is gives:
        return []
    same_numbers = takes.numel() == gives.numel() and torch.equal(takes.reshape(-1), gives.reshape(-1))
    if not same_numbers:
        raise UnsupportedLayer(
            f"{name_of(path, module)} does not read what the layer before it gives: the model branches, skips, "
            "or computes something between its layers. Closed forms need a chain; make what happens there a "
            "layer of its own, or use an optimisation attack."
        )
    if takes.shape == gives.shape:
        return []
    return [
        Layer(
            f"before {path or 'the output'}",
            nn.Flatten(),
            {},
            {},
            tuple(gives.shape[1:]),
            tuple(takes.shape[1:]),
        )
    ]


def _own(tree: Tree, path: str) -> dict[str, Tensor]:
    prefix = f"{path}." if path else ""
    names = [name for name in tree if name.startswith(prefix) and "." not in name[len(prefix) :]]
    return {
        name[len(prefix) :]: tree[name].double() if tree[name].is_floating_point() else tree[name]
        for name in names
    }
