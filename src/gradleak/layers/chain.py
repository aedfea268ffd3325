"""A network as a chain of layers, where it is one: each reads what the one before it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.errors import UnsupportedLayer
from gradleak.observe import Observation, Task
from gradleak.observe.layers import name_of, walk
from gradleak.observe.statistics import norm_layers
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
    layers, broken = _walk(obs.task, obs.params, obs.update, obs.x_shape[1:])
    if broken is not None:
        raise broken
    return layers


def opening(obs: Observation) -> list[Layer]:
    """The layers from the data on, as far as they are a chain."""
    return _walk(obs.task, obs.params, obs.update, obs.x_shape[1:])[0]


def chain_of(model: nn.Module, input_shape: tuple[int, ...]) -> list[Layer]:
    """The chain of a model without an observation: layers know their tensors and no gradients."""
    trained, constants = split_tensors(model)
    task = Task(structure_of(model), constants, nn.functional.mse_loss)
    layers, broken = _walk(task, trained, {}, tuple(input_shape))
    if broken is not None:
        raise broken
    return layers


def _walk(
    task: Task, params: Tree, update: Tree, input_shape: tuple[int, ...]
) -> tuple[list[Layer], UnsupportedLayer | None]:
    """The chain up to where it breaks, and why it does."""
    tensors = {**task.constants, **params}
    # one record is too few for a BatchNorm in train mode
    records = 2 if any(norm.training for norm in norm_layers(task.model).values()) else 1
    x = noise_batch(next(iter(tensors.values())), (records, *input_shape))
    links = _Links(tensors, update, x)
    walk(task, params, x, links.visit)
    return links.found, links.broken


class _Links:
    """Collects layers while the model runs, when it can still be seen which tensor is which."""

    def __init__(self, tensors: Tree, update: Tree, x: Tensor) -> None:
        self.tensors, self.update = tensors, update
        self.last = x.clone()  # a copy, for what comes next may add to it in place
        self.seen: set[nn.Module] = set()
        self.found: list[Layer] = []
        self.broken: UnsupportedLayer | None = None

    def visit(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        if self.broken is not None:
            return
        try:
            if not any(module.children()):
                self._link(path, module, args, kwargs, output)
            if path == "":
                self.found += _reshape(self.last, output, path, module)
        except UnsupportedLayer as error:
            self.broken = error

    def _link(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise UnsupportedLayer(f"{name_of(path, module)} does not map one tensor to one tensor")
        own, grads = _own(self.tensors, path), _own(self.update, path)
        if module in self.seen and own:
            raise UnsupportedLayer(f"{name_of(path, module)} runs twice, so its gradient is a sum of two")
        self.seen.add(module)
        self.found += _reshape(self.last, args[0], path, module)
        shapes = tuple(args[0].shape[1:]), tuple(output.shape[1:])
        self.found.append(Layer(path, module, own, grads, *shapes))
        self.last = output.clone()


def _reshape(gives: Tensor, takes: Any, path: str, module: nn.Module) -> list[Layer]:
    """Nothing where a layer reads what the last one gave, an implicit flatten where it reads a view of it."""
    if not isinstance(takes, Tensor):
        raise UnsupportedLayer(f"{name_of(path, module)} gives {type(takes).__name__} and no tensor")
    same_numbers = takes.numel() == gives.numel() and torch.equal(takes.reshape(-1), gives.reshape(-1))
    if not same_numbers:
        raise UnsupportedLayer(
            f"{name_of(path, module)} does not read what the layer before it gives: the model branches, "
            "skips, or computes something between its layers. Closed forms need a chain; make what happens "
            "there a layer of its own, or use an optimisation attack."
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
