"""Linear layers: x = dW' k / k.k, and the forward equations where k says too little."""

from torch import nn

from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.peel import peel
from gradleak.layers.signal import Inverse, Signal


@invert.register
def _(module: nn.Linear, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    # A linear layer is a 1x1 convolution over one pixel: the first way to peel that is the formula above.
    return peel(layer, out, tolerance)
