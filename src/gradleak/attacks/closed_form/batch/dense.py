"""A network of linear layers and activations as the numbers that a batch solver needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradleak.errors import UnsupportedLayer
from gradleak.layers import Layer

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """``slope`` is the derivative as a function of the output, and ``bend`` the derivative of that.

    ``kink`` is the slope left of a kink at 0, where there is one.
    """

    value: Function
    slope: Function
    bend: Function = torch.zeros_like
    kink: float | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """A linear layer with its part of the gradient, and the activation after it."""

    name: str
    W: Tensor
    b: Tensor
    dW: Tensor  # noqa: N815, as the papers write it
    db: Tensor | None
    act: Activation


IDENTITY = Activation(lambda z: z, torch.ones_like)


def stages(layers: Sequence[Layer]) -> list[Stage]:
    """One stage per linear layer; refuses what is neither linear, nor an activation that it knows."""
    found: list[Stage] = []
    pending: list[Layer] = []
    for layer in layers:
        if isinstance(layer.module, nn.Linear) and len(layer.in_shape) == 1:
            found.append(_linear(layer))
            pending.append(layer)
        elif isinstance(layer.module, nn.Flatten | nn.Identity):
            continue
        elif not found or found[-1].act is not IDENTITY:
            raise UnsupportedLayer(
                f"{layer.name} does not follow a linear layer; expected Linear, activation, ..."
            )
        else:
            last = found[-1]
            found[-1] = Stage(last.name, last.W, last.b, last.dW, last.db, _activation(layer))
    if not found or found[-1].act is not IDENTITY:
        raise UnsupportedLayer("the model does not end in a linear layer whose outputs are the logits")
    return found


def _linear(layer: Layer) -> Stage:
    if "weight" not in layer.grads:
        raise UnsupportedLayer(f"{layer.name} is not trained, so that its gradient is not in the update")
    W = layer.params["weight"]
    b = layer.params.get("bias", W.new_zeros(W.shape[0]))
    return Stage(layer.name, W, b, layer.grads["weight"], layer.grads.get("bias"), IDENTITY)


def _activation(layer: Layer) -> Activation:
    module = layer.module
    if isinstance(module, nn.ReLU):
        return Activation(torch.relu, lambda a: (a > 0).to(a), kink=0.0)
    if isinstance(module, nn.LeakyReLU) and module.negative_slope > 0:
        # otherwise the sign of the output would not say on which side of the kink it is
        return _leaky(float(module.negative_slope))
    if isinstance(module, nn.Sigmoid):
        return Activation(torch.sigmoid, lambda a: a * (1 - a), lambda a: 1 - 2 * a)
    if isinstance(module, nn.Tanh):
        return Activation(torch.tanh, lambda a: 1 - a * a, lambda a: -2 * a)
    raise UnsupportedLayer(
        f"{layer.name} has no rule for batches; expected Linear, ReLU, LeakyReLU, Sigmoid, "
        "Tanh, Flatten or Identity"
    )


def _leaky(s: float) -> Activation:
    def slope(a: Tensor) -> Tensor:
        return torch.ones_like(a).masked_fill(a <= 0, s)  # torch.where of two numbers would be float32

    return Activation(lambda z: z * slope(z), slope, kink=s)


def forward(net: Sequence[Stage], x: Tensor) -> list[Tensor]:
    """The input of every stage, and the logits last."""
    inputs = [x]
    for stage in net:
        inputs.append(stage.act.value(inputs[-1] @ stage.W.T + stage.b))
    return inputs


def backward(net: Sequence[Stage], inputs: Sequence[Tensor], y: Tensor) -> list[Tensor]:
    """Δ of every stage: dL/d(its output before the activation), for mean cross entropy."""
    logits = inputs[-1]
    hot = nn.functional.one_hot(y, logits.shape[-1]).to(logits)
    deltas = [(logits.softmax(-1) - hot) / len(logits)]
    for i in range(len(net) - 1, 0, -1):
        deltas.append((deltas[-1] @ net[i].W) * net[i - 1].act.slope(inputs[i]))
    return deltas[::-1]
