"""One rule per kind of layer: the signal at its input, given the signal at its output."""

from functools import singledispatch

from torch import nn

from gradleak.errors import UnsupportedLayer
from gradleak.layers.chain import Layer
from gradleak.layers.signal import Inverse, Signal


@singledispatch
def invert(module: nn.Module, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    """What ``layer`` and its part of the gradient tell about its input.

    ``module`` is ``layer.module``: its kind chooses the rule, and a subclass has its parent's unless it is
    given its own with ``@invert.register``. ``tolerance`` is how far iterative rules go on, relative.
    """
    kinds = sorted(kind.__name__ for kind in invert.registry if kind is not object)
    raise UnsupportedLayer(
        f"{layer.name} has no rule that inverts it; there are rules for {', '.join(kinds)}. "
        "Use an optimisation attack, or write a rule and register it with gradleak.layers.invert.register."
    )
