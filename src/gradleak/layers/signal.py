"""What is known at one cut through a network, and what a layer's rule says about the cut below it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Signal:
    """One record's activation at a cut, without a batch axis, and dL/dactivation there; both float64.

    ``known`` marks the entries of ``value`` that can be relied on, where not all can: a ReLU that gave 0
    does not tell what it was given. ``grad`` is always known in full, but for rounding: ``either`` is what it
    may be instead, and differs from it in the few entries that lie too close to a kink to tell the side.
    ``trust``, from 0 to 1, is less than 1 where a saturated activation has magnified what rounding did to
    ``value``: its equations should weigh less.
    """

    value: Tensor
    grad: Tensor
    known: Tensor | None = None
    either: Tensor | None = None
    trust: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Inverse:
    """The cut below a layer, as its rule found it.

    ``residual`` is how far the rule's own equations are from being met, relative to their right-hand
    side: the layer's certificate. ``deficit`` counts the dimensions of the input that no equation
    determines; the value then holds the smallest solution.
    """

    signal: Signal
    residual: float = 0.0
    deficit: int = 0
