"""How many unknowns a layer has and how many equations it brings, by its shapes: one function per family."""

from dataclasses import dataclass
from enum import Enum
from functools import singledispatch

from torch import nn

from gradleak.risk.links import Link


class Role(Enum):
    """What a layer is to an attacker who comes down through it."""

    WEIGHTED = "weighted"  # brings equations of both kinds
    LOSSLESS = "lossless"  # its input follows from its output
    LOSSY = "lossy"  # it hides part of its input, and has no equations of its own
    OPAQUE = "opaque"  # there is no rule for it


@dataclass(frozen=True)
class Count:
    """One record's counts: |x_i| unknowns, |z_i| forward and |dW_i| gradient equations."""

    role: Role
    unknowns: int
    forward: int
    gradient: int = 0
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> bool:
        """Whether the layer has an index: it has weights, so it mixes its input and sends a gradient."""
        return self.role is Role.WEIGHTED or self.gradient > 0


@singledispatch
def count(module: nn.Module, link: Link) -> Count:
    """A layer without a rule: every output and every gradient entry passes for an equation.

    A new layer is one function, registered here; gradleak.risk.equations has the rule that ranks it.
    """
    note = f"no rule for {type(module).__name__}: counted as if each of its outputs were an equation"
    return Count(Role.OPAQUE, link.unknowns, link.outputs, link.gradients, (note,))


@count.register(nn.Linear)
@count.register(nn.Conv1d)
@count.register(nn.Conv2d)
def _weighted(module: nn.Linear | nn.Conv1d | nn.Conv2d, link: Link) -> Count:
    """A bias brings no equation on the input: its gradient is the sum of the deltas, which are known."""
    sent = "weight" in link.trained
    gradient = link.weights["weight"].numel() if sent else 0
    notes = () if sent else ("its weight is not trained, so it brings no gradient equations",)
    return Count(Role.WEIGHTED, link.unknowns, link.outputs, gradient, notes)


def _lossless(module: nn.Module, link: Link) -> Count:
    return Count(Role.LOSSLESS, link.unknowns, link.outputs)


_kind: type[nn.Module]
for _kind in (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.Sigmoid, nn.Tanh, nn.SELU, nn.Softplus, nn.Softsign, nn.LogSigmoid),
):
    count.register(_kind, _lossless)


@count.register(nn.LeakyReLU)
def _leaky(module: nn.LeakyReLU, link: Link) -> Count:
    return _lossless(module, link) if module.negative_slope > 0 else _clipping(module, link)


@count.register(nn.ELU)
@count.register(nn.CELU)
def _elu(module: nn.ELU | nn.CELU, link: Link) -> Count:
    return _lossless(module, link) if module.alpha > 0 else _clipping(module, link)


@count.register(nn.PReLU)
def _prelu(module: nn.PReLU, link: Link) -> Count:
    return _lossless(module, link) if bool((link.weights["weight"] > 0).all()) else _two_to_one(module, link)


def _clipping(module: nn.Module, link: Link) -> Count:
    note = (
        "where a unit is off its forward equation is lost: an expected half of those before it, which the "
        "naive count still has"
    )
    return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))


def _two_to_one(module: nn.Module, link: Link) -> Count:
    note = "not monotone: an output has up to two inputs, and an attacker must choose"
    return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))


def _pool(module: nn.Module, link: Link) -> Count:
    what = "the largest" if "Max" in type(module).__name__ else "the mean"
    note = f"gives on only {what} of each window: {link.outputs} of {link.unknowns} numbers"
    return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))


for _kind in (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Threshold):
    count.register(_kind, _clipping)
for _kind in (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish):
    count.register(_kind, _two_to_one)
for _kind in (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
):
    count.register(_kind, _pool)


@count.register(nn.modules.dropout._DropoutNd)
def _dropout(module: nn.modules.dropout._DropoutNd, link: Link) -> Count:
    if not link.training or module.p == 0:
        return Count(Role.LOSSLESS, link.unknowns, link.outputs, 0, ("in eval mode it drops nothing",))
    note = (
        f"in train mode it drops an expected {module.p:.0%} of the numbers, which lose their equations; "
        "counted and ranked as in eval mode"
    )
    return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))


@count.register(nn.modules.batchnorm._BatchNorm)
def _batch_norm(module: nn.modules.batchnorm._BatchNorm, link: Link) -> Count:
    if link.training or not module.track_running_stats:
        note = "in train mode each record depends on the batch; counted and ranked as in eval mode"
        return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))
    notes = ("affine in eval mode; its scale's gradient has more equations, which are not counted",)
    return Count(Role.LOSSLESS, link.unknowns, link.outputs, 0, notes)


@count.register(nn.LayerNorm)
@count.register(nn.GroupNorm)
@count.register(nn.modules.instancenorm._InstanceNorm)
def _norm(module: nn.Module, link: Link) -> Count:
    note = "hides the mean and the scale of each group that it normalises"
    return Count(Role.LOSSY, link.unknowns, link.outputs, 0, (note,))
