"""Convolutions of one and two dimensions: forward and gradient equations, solved together."""

from torch import nn

from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.peel import peel
from gradleak.layers.signal import Inverse, Signal


@invert.register
def _(module: nn.Conv1d, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return peel(layer, out, tolerance)


@invert.register
def _(module: nn.Conv2d, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return peel(layer, out, tolerance)
