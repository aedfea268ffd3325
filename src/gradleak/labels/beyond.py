"""What the network does behind one of its linear layers: run it from that layer's input on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradleak.labels.dummies import smooth
from gradleak.observe import Observation
from gradleak.observe.layers import trace
from gradleak.observe.task import noise_batch


@dataclass(frozen=True)
class Dense:
    """A linear layer with a bias, both sent, that runs once and is fed vectors.

    Its inputs are never below ``low``, as far as made-up pictures show, nor above ``high``; None: who knows.
    """

    path: str
    low: Tensor | float | None
    high: Tensor | None

    @property
    def weight(self) -> str:
        return f"{self.path}.weight" if self.path else "weight"

    @property
    def bias(self) -> str:
        return f"{self.path}.bias" if self.path else "bias"

    def gradient(self, obs: Observation) -> Tensor:
        """[outputs, inputs + 1] in float64: the update itself, that of one gradient."""
        sent = obs.update
        return torch.cat((sent[self.weight], sent[self.bias][:, None]), 1).detach().double()


@dataclass(frozen=True, eq=False)
class Behind:
    """[n, ...] each: the head's inputs, the probabilities, and the layer's delta for every label."""

    features: Tensor
    p: Tensor
    deltas: Tensor  # [n, classes, outputs]


def dense_layers(obs: Observation) -> list[Dense]:
    """The last layer first."""
    x = smooth(obs, obs.batch_size, Generator().manual_seed(0))
    calls = [c for c in trace(obs.task, obs.params, x) if c.leaf]
    modules = [c.module for c in calls]
    found = []
    for call in reversed(calls):
        if not isinstance(call.module, nn.Linear) or call.input is None or call.input.dim() != 2:
            continue
        layer = Dense(call.path, *_bounds(obs, call.input, x))
        once = sum(m is call.module for m in modules) == 1
        if once and {layer.weight, layer.bias} <= set(obs.update):
            found.append(layer)
    return found


def _bounds(obs: Observation, inputs: Tensor, x: Tensor) -> tuple[Tensor | float | None, Tensor | None]:
    if inputs.numel() == x.numel() and torch.equal(inputs, x.reshape(inputs.shape)):
        zero = torch.zeros_like(x[:1])
        low, high = (obs.domain.from_pixels(zero + edge).flatten().double() for edge in (0, 1))
        return low, high
    return (0.0 if bool((inputs >= 0).all()) else None), None


def behind(obs: Observation, layer: Dense, last: str, inputs: Tensor) -> Behind:
    """Feed the layer these inputs, whatever comes before it, in float64."""
    double = obs.to(torch.float64)
    task = double.task
    kept: dict[str, Tensor] = {}

    def feed(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        return (inputs.double(),)

    def branch(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        kept["output"] = output.detach().requires_grad_()
        return kept["output"]

    def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept["features"] = args[0].detach()

    named = dict(task.model.named_modules())
    handles = [
        named[layer.path].register_forward_pre_hook(feed),
        named[layer.path].register_forward_hook(branch),
        named[last.removesuffix("weight").removesuffix(".")].register_forward_hook(read),
    ]
    try:
        with torch.enable_grad():
            stand_in = noise_batch(double.like, (len(inputs), *obs.x_shape[1:]))
            log_p = task.with_copied_constants().forward(double.params, stand_in).log_softmax(-1)
            deltas = [
                torch.autograd.grad(-log_p[:, c].sum(), kept["output"], retain_graph=True)[0]
                for c in range(log_p.shape[1])
            ]
    finally:
        for handle in handles:
            handle.remove()
    return Behind(kept["features"], log_p.detach().exp(), torch.stack(deltas, 1))
