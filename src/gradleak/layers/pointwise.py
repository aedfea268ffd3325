"""Activations: those that can be undone number by number, and what a ReLU still tells."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradleak.errors import MissingInformation, UnsupportedLayer
from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.signal import Inverse, Signal
from gradleak.layers.solve import relative

Map = Callable[[Tensor], Tensor]
_INSIDE = 1e-9  # how far inside its range an activation is taken to be, of the range's size
_FLAT = 0.3  # slopes, of the steepest, below which what is undone is trusted less
_CLOSE = 1e-5  # of the largest value: some ten times what float32 gradients leave of rounding


@invert.register
def _(module: nn.Sigmoid, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _undone(layer, out, torch.logit, lambda y: y * (1 - y), 0, 1)


@invert.register
def _(module: nn.Tanh, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _undone(layer, out, torch.atanh, lambda y: (1 - y) * (1 + y), -1, 1)


@invert.register
def _(module: nn.Softsign, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _undone(layer, out, lambda y: y / (1 - y.abs()), lambda y: (1 - y.abs()).square(), -1, 1)


@invert.register
def _(module: nn.LogSigmoid, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _undone(layer, out, lambda y: y - torch.log(-torch.expm1(y)), lambda y: -torch.expm1(y), high=0)


@invert.register
def _(module: nn.Softplus, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    beta = module.beta

    def unless_linear(y: Tensor, bent: Tensor, straight: Tensor | float) -> Tensor:
        return torch.where(beta * y > module.threshold, straight, bent)  # as torch computes it

    return _undone(
        layer,
        out,
        lambda y: unless_linear(y, y + torch.log(-torch.expm1(-beta * y)) / beta, y),
        lambda y: unless_linear(y, -torch.expm1(-beta * y), 1.0),
        low=0,
    )


@invert.register
def _(module: nn.ELU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _exponential(layer, out, module.alpha, 1.0, 1.0)


@invert.register
def _(module: nn.CELU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _exponential(layer, out, module.alpha, module.alpha, 1.0)


@invert.register
def _(module: nn.SELU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _exponential(layer, out, alpha, 1.0, scale)


def _exponential(layer: Layer, out: Signal, depth: float, width: float, scale: float) -> Inverse:
    """For y = scale x above 0 and scale depth (exp(x / width) - 1) below."""
    if depth <= 0:
        raise UnsupportedLayer(f"{layer.name} has alpha {depth}; only a positive one can be undone")

    def inverse(y: Tensor) -> Tensor:
        return torch.where(y > 0, y / scale, width * torch.log1p(y.clamp_max(0) / (scale * depth)))

    def slope(y: Tensor) -> Tensor:
        return torch.where(y > 0, scale, (y + scale * depth) / width)

    return _undone(layer, out, inverse, slope, low=-scale * depth, kink=depth != width)


@invert.register
def _(module: nn.LeakyReLU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    if module.negative_slope == 0:
        return _rectified(layer, out, tolerance)
    return _leaky(layer, out, out.value.new_tensor(module.negative_slope))


@invert.register
def _(module: nn.PReLU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    slopes = layer.params["weight"]
    if slopes.numel() > 1:
        slopes = slopes.reshape(-1, *(1 for _ in out.value.shape[1:]))
    return _leaky(layer, out, slopes)


def _leaky(layer: Layer, out: Signal, slopes: Tensor) -> Inverse:
    if not bool((slopes > 0).all()):
        raise UnsupportedLayer(
            f"{layer.name} has a negative slope of {float(slopes.min())}; only a positive one can be undone"
        )

    def slope(y: Tensor) -> Tensor:
        return torch.where(y > 0, 1.0, slopes)

    return _undone(layer, out, lambda y: y / slope(y), slope, kink=True)


@invert.register
def _(module: nn.ReLU, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _rectified(layer, out, tolerance)


def _rectified(layer: Layer, out: Signal, tolerance: float) -> Inverse:
    """Where the output is above 0 it is the input; elsewhere the input is not known, its gradient 0."""
    _refuse_unknown(layer, out)
    on = out.value > tolerance * out.value.abs().max()  # solved values carry rounding, also around 0
    known = on if out.known is None else on & out.known
    value = torch.where(on, out.value, 0.0)
    signal = Signal(value, torch.where(on, out.grad, 0.0), None if bool(known.all()) else known)
    return Inverse(signal, relative(value - out.value, out.value), int((~known).sum()))


def _undone(
    layer: Layer,
    out: Signal,
    inverse: Map,
    slope: Map,
    low: float = -math.inf,
    high: float = math.inf,
    kink: bool = False,
) -> Inverse:
    """``inverse`` and ``slope`` (the derivative) are functions of the output, inside its range.

    ``kink`` says that the slope jumps at 0: within rounding of it, either side's is possible.
    """
    _refuse_unknown(layer, out)
    size = high - low if math.isfinite(high - low) else 1.0
    y = out.value.clamp(low + _INSIDE * size, high - _INSIDE * size)
    slopes = slope(y)
    grad, either = out.grad * slopes, None if out.either is None else out.either * slopes
    if kink:
        close = y.abs() <= _CLOSE * y.abs().max()
        if bool(close.any()):
            either = torch.where(close, out.grad * slope(-y), grad if either is None else either)
    signal = Signal(inverse(y), grad, out.known, either, _trust(slopes, out.trust))
    return Inverse(signal, relative(y - out.value, out.value))


def _trust(slopes: Tensor, above: Tensor | None) -> Tensor | None:
    """Undoing an activation divides its errors by the slope: what is flat says less than it seems to."""
    flat = _FLAT * slopes.max()
    if bool((slopes >= flat).all()):
        return above
    trust = slopes / (slopes + flat)
    return trust if above is None else trust * above


def _refuse_unknown(layer: Layer, out: Signal) -> None:
    """The derivative depends on the value wherever a gradient passes."""
    if out.known is None or not bool((~out.known & (out.grad != 0)).any()):
        return
    raise MissingInformation(
        f"{layer.name} passes a gradient on through numbers that its output does not tell, so the gradient "
        "below it is not known: the layers above (a ReLU, a pooling) have lost them."
    )
