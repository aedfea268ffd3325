"""Per-layer knowledge: what a layer's output and gradient tell about its input, one function per kind."""

from gradleak.layers.chain import Layer, chain, chain_of, opening
from gradleak.layers.signal import Inverse, Signal

__all__ = ["Inverse", "Layer", "Signal", "chain", "chain_of", "opening"]
