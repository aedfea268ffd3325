"""A network's leaf layers in the order in which they run, and where they are no chain."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.observe import Task
from gradleak.observe.layers import first_tensor, name_of, walk
from gradleak.observe.task import noise_batch
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Link:
    """One call of one leaf layer: its settings, its tensors by leaf name, its shapes without a batch axis.

    ``trained`` are the names among ``weights`` whose gradient is sent. ``module`` holds no numbers: it is a
    structure's, in eval mode, and ``training`` says the mode in which the client runs it. ``weights`` are on
    the CPU, like all that is computed from them here.
    """

    path: str
    module: nn.Module
    weights: Mapping[str, Tensor]
    trained: frozenset[str]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    training: bool = False

    @property
    def name(self) -> str:
        return name_of(self.path, self.module)

    @property
    def unknowns(self) -> int:
        return prod(self.in_shape)

    @property
    def outputs(self) -> int:
        return prod(self.out_shape)

    @property
    def gradients(self) -> int:
        return sum(self.weights[name].numel() for name in self.trained)


@dataclass(frozen=True, eq=False)
class Network:
    """``breaks`` name the parts that branch, skip, or compute between their layers; a chain has none.

    ``loose`` are trained parameters that belong to no leaf layer, whose gradients nothing here counts.
    """

    links: tuple[Link, ...]
    breaks: tuple[str, ...]
    loose: tuple[str, ...]


def network(task: Task, params: Tree, input_shape: tuple[int, ...], training: Mapping[str, bool]) -> Network:
    """Run the model once on a batch of one and write down its layers.

    Like gradleak.layers.chain, but it goes on at a branch, and so counts what is no chain. In a chain the
    links are that function's layers, one by one, the implicit reshapes too.
    """
    tracer = _Tracer(task, params, input_shape, training)
    walk(task, params, tracer.x, tracer.visit)
    owned = {f"{link.path}.{leaf}".lstrip(".") for link in tracer.links for leaf in link.weights}
    return Network(
        tuple(tracer.links), tuple(tracer.breaks), tuple(name for name in params if name not in owned)
    )


class _Tracer:
    """What one run leaves behind; it lives no longer than that run."""

    def __init__(
        self, task: Task, params: Tree, input_shape: tuple[int, ...], training: Mapping[str, bool]
    ) -> None:
        self.x = noise_batch(next(iter(params.values())), (1, *input_shape))
        self.links: list[Link] = []
        self.breaks: dict[str, None] = {}
        self._task, self._params, self._training = task, params, training
        self._own = {**task.constants, **params}
        self._last, self._version = self.x, self.x._version
        self._modules = dict(task.model.named_modules())

    def visit(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        came, gives = first_tensor(args), first_tensor(output)
        if path == "" and any(module.children()):
            self._follow(path, gives)
            return
        if any(module.children()) or came is None or gives is None:
            return
        again = any(link.module is module and link.weights for link in self.links)
        if kwargs or len(args) != 1 or again or not isinstance(output, Tensor):
            self._break(path)
        self._follow(path, came)
        prefix = f"{path}." if path else ""
        own = {leaf: self._own.get(prefix + leaf) for leaf in _tensors(module)}
        if any(tensor is None for tensor in own.values()):  # a weight that another layer owns: a sum of two
            self._break(path)
        weights = {leaf: tensor.cpu() for leaf, tensor in own.items() if tensor is not None}
        trained = frozenset(leaf for leaf in weights if prefix + leaf in self._params)
        shapes = tuple(came.shape[1:]), tuple(gives.shape[1:])
        self.links.append(
            Link(path, module, weights, trained, *shapes, training=self._training.get(path, False))
        )
        self._last, self._version = gives, gives._version

    def _follow(self, path: str, takes: Tensor | None) -> None:
        """Note a break where ``takes`` is not what the last layer gave, a reshape where it is a view of it.

        ``x += y`` keeps the tensor and changes its numbers, so its version is compared too.
        """
        last = self._last
        if takes is None or (takes is last and takes._version == self._version):
            return
        untouched = takes is not last and last._version == self._version
        same = untouched and takes.numel() == last.numel() and torch.equal(takes.flatten(), last.flatten())
        if not same:
            self._break(path)
        elif takes.shape != last.shape:
            shapes = tuple(last.shape[1:]), tuple(takes.shape[1:])
            self.links.append(Link(f"before {path or 'the output'}", nn.Flatten(), {}, frozenset(), *shapes))

    def _break(self, path: str) -> None:
        """Blame the innermost part around the layer that has a forward of its own."""
        outer = path.rpartition(".")[0]
        while outer and isinstance(self._modules[outer], nn.Sequential):
            outer = outer.rpartition(".")[0]
        self.breaks[name_of(outer, self._modules[outer]).removeprefix("layer ")] = None


def _tensors(module: nn.Module) -> list[str]:
    parameters = [name for name, _ in module.named_parameters(recurse=False)]
    return parameters + [name for name, _ in module.named_buffers(recurse=False)]
