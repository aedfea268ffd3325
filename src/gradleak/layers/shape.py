"""Layers that move numbers or leave them alone: Flatten, Unflatten, Identity, and Dropout at rest."""

from torch import Tensor, nn

from gradleak.errors import UnsupportedLayer
from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.signal import Inverse, Signal


@invert.register(nn.Identity)
@invert.register(nn.Flatten)
@invert.register(nn.Unflatten)
def _(module: nn.Module, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    return _reshaped(layer, out)


@invert.register(nn.Dropout)
@invert.register(nn.Dropout1d)
@invert.register(nn.Dropout2d)
@invert.register(nn.Dropout3d)
@invert.register(nn.AlphaDropout)
@invert.register(nn.FeatureAlphaDropout)
def _(module: nn.Dropout, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    if module.training and module.p > 0:
        raise UnsupportedLayer(
            f"{layer.name} is in train mode: nobody knows which numbers it dropped. "
            "Observe the model in eval mode, or with p=0."
        )
    return _reshaped(layer, out)


def _reshaped(layer: Layer, out: Signal) -> Inverse:
    def back(tensor: Tensor) -> Tensor:
        return tensor.reshape(layer.in_shape)

    known, either, trust = (
        None if mark is None else back(mark) for mark in (out.known, out.either, out.trust)
    )
    return Inverse(Signal(back(out.value), back(out.grad), known, either, trust))
