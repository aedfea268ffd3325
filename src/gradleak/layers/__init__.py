"""Per-layer knowledge: what a layer's output and gradient tell about its input, one function per kind."""

# the rules register themselves
from gradleak.layers import conv, linear, norm, pointwise, pool, shape  # noqa: F401
from gradleak.layers.chain import Layer, chain, chain_of, opening
from gradleak.layers.equations import apply_linear, apply_transpose, equations
from gradleak.layers.invert import invert
from gradleak.layers.signal import Inverse, Signal
from gradleak.layers.solve import LinearSystem

__all__ = [
    "Inverse",
    "Layer",
    "LinearSystem",
    "Signal",
    "apply_linear",
    "apply_transpose",
    "chain",
    "chain_of",
    "equations",
    "invert",
    "opening",
]
