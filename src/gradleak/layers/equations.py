"""What a linear or convolutional layer says about its input: its forward and its gradient equations."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from gradleak.layers.chain import Layer
from gradleak.layers.signal import Signal
from gradleak.layers.sliding import Sliding, sliding
from gradleak.layers.solve import LinearSystem, relative

_LIGHTER = 0.35
_DENSE = 6_000_000  # numbers in the gradient equations' matrix; 48 MB


def apply_linear(layer: Layer, x: Tensor) -> Tensor:
    """W x, without the bias, for x [*in_shape]."""
    view = sliding(layer.module, layer)
    return view.from_planes(view.apply(view.to_planes(x)[None])[0], layer.out_shape)


def apply_transpose(layer: Layer, u: Tensor) -> Tensor:
    """W' u for u [*out_shape]: what a gradient at the output is at the input."""
    view = sliding(layer.module, layer)
    return view.from_planes(view.transpose(view.to_planes(u)[None])[0], layer.in_shape)


def equations(layer: Layer, out: Signal) -> LinearSystem:
    """All that a linear or convolutional layer says about its input, as one system in [*in_shape]."""
    found = stacked(layer, out)
    view, planes = found.view, found.system

    def matvec(x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(layer.in_shape)]
        rows = planes.matvec(view.to_planes(x, len(lead)).reshape(-1, *view.planes))
        return rows.reshape(*lead, -1)

    def rmatvec(u: Tensor) -> Tensor:
        lead = u.shape[:-1]
        x = view.from_planes(planes.rmatvec(u.reshape(-1, u.shape[-1])), layer.in_shape)
        return x.reshape(*lead, *layer.in_shape)

    return LinearSystem(matvec, rmatvec, planes.target, layer.in_shape)


@dataclass(frozen=True, eq=False)
class Stacked:
    """The equations of one layer, over planes.

    Forward, where the output is known: W a = z - b. Gradient, where the weight's is given: a ⋆ delta = G;
    these are the same for each input channel of a group, so that one small matrix holds them all.
    """

    view: Sliding
    goal: Tensor  # z - b [O, h, w]
    delta: Tensor  # [O, h, w]
    gradient: Tensor | None  # the weight's shape
    trust: Tensor | None  # [O, h, w]: what forward rows are multiplied with, 0 where the goal is not known

    @property
    def groups(self) -> int:
        return self.view.groups

    @property
    def pixels(self) -> int:
        return self.view.planes[1] * self.view.planes[2]

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.view.weight.shape[1]

    @property
    def rows(self) -> int:
        """Gradient equations per input channel."""
        weight = self.view.weight
        return weight.shape[0] // self.groups * weight.shape[2] * weight.shape[3]

    @cached_property
    def weights(self) -> tuple[float, float]:
        """What forward and gradient rows are multiplied with, so that each kind's columns weigh as much.

        The forward rows a little more: that takes half the steps that equal weights take. Three times as much
        weight on the gradient rows as on the forward ones takes four times the steps.
        """
        view = self.view
        unknowns, places = self.pixels * view.planes[0], view.maps[1] * view.maps[2]
        reads = view.weight.shape[2] * view.weight.shape[3]
        forward = view.weight.square().sum() * places / unknowns
        backward = self.delta.square().sum() * reads / (self.pixels * self.groups)
        heavy, light = (float(v) ** -0.5 if v > 0 else 0.0 for v in (forward, backward))
        return heavy, _LIGHTER * light

    @cached_property
    def matrix(self) -> Tensor | None:
        """[groups, rows, pixels]: the gradient equations of one input channel, None where that is large."""
        if self.gradient is None or self.groups * self.rows * self.pixels > _DENSE:
            return None
        taps, (out, h, w) = self.view.taps, self.view.maps
        matrix = self.delta.new_zeros(out, len(taps), self.pixels + 1)
        # one filter's tap reads each pixel at most once; what it reads in the padding falls off the end
        spread = self.delta.reshape(out, 1, h * w).expand(-1, len(taps), -1)
        matrix.scatter_(2, taps.expand(out, -1, -1), spread)
        return matrix[..., :-1].reshape(self.groups, self.rows, self.pixels).contiguous()

    @cached_property
    def per_channel(self) -> Tensor | None:
        """[groups, rows, channels of a group]: the right-hand sides that go with ``matrix``."""
        if self.gradient is None:
            return None
        out = self.gradient.shape[0] // self.groups
        by_tap = self.gradient.reshape(self.groups, out, self.channels, -1).transpose(2, 3)
        return by_tap.reshape(self.groups, self.rows, self.channels)

    @cached_property
    def system(self) -> LinearSystem:
        heavy, light = self.weights
        target = [heavy * self.trusted(self.goal).flatten()]
        if self.gradient is not None:
            target.append(light * self.gradient.flatten())
        return LinearSystem(self._matvec, self._rmatvec, torch.cat(target), self.view.planes)

    @cached_property
    def deltas(self) -> Tensor:
        return self.view.by_group(self.delta)

    def _matvec(self, x: Tensor) -> Tensor:
        read = self.view.unfold(x)
        forward = self.trusted((self.view.filters @ read).flatten(1).reshape(-1, *self.view.maps))
        heavy, light = self.weights
        if self.gradient is None:
            return heavy * forward.flatten(1)
        correlated = self.deltas @ read.transpose(2, 3)
        return torch.cat((heavy * forward.flatten(1), light * correlated.flatten(1)), 1)

    def _rmatvec(self, u: Tensor) -> Tensor:
        heavy, light = self.weights
        view, n = self.view, self.goal.numel()
        forward = self.trusted(u[:, :n].reshape(-1, *view.maps)).reshape(len(u), *self.deltas.shape)
        read = heavy * (view.filters.transpose(1, 2) @ forward)
        if self.gradient is not None:
            read = read + light * (
                u[:, n:].reshape(len(u), *view.filters.shape).transpose(2, 3) @ self.deltas
            )
        return view.fold(read)

    def trusted(self, z: Tensor) -> Tensor:
        return z if self.trust is None else z * self.trust

    def residual(self, x: Tensor) -> float:
        return relative(self.system.matvec(x[None])[0] - self.system.target, self.system.target)

    def seen(self, images: Tensor, group: int) -> Tensor:
        """The forward equations in the coordinates ``images`` [pixels, k] of each of a group's channels.

        [outputs of the group, channels k].
        """
        view, k = self.view, images.shape[1]
        out, (_, height, width) = view.maps[0] // self.groups, view.planes
        filters = view.weight[group * out : (group + 1) * out]
        planes = view.padded(images.T.reshape(k, 1, height, width))
        each = filters.reshape(-1, 1, *filters.shape[2:])
        z = F.conv2d(planes, each, None, view.stride, 0, view.dilation)
        z = z.reshape(k, out, self.channels, *view.maps[1:])
        if self.trust is not None:
            z = z * self.trust[group * out : (group + 1) * out, None]
        return z.permute(1, 3, 4, 2, 0).flatten(3).flatten(0, 2)


def stacked(layer: Layer, out: Signal) -> Stacked:
    view = sliding(layer.module, layer)
    z, delta = view.to_planes(out.value), view.to_planes(out.grad)
    if "bias" in layer.params:
        z = z - layer.params["bias"][:, None, None]
    gradient = layer.grads.get("weight")
    trust = None if out.trust is None else view.to_planes(out.trust)
    if out.known is not None:
        known = view.to_planes(out.known)
        z = torch.where(known, z, 0.0)  # what is not known may be anything, NaN too
        trust = known.double() if trust is None else trust * known
    return Stacked(view, z, delta, None if gradient is None else gradient.reshape(view.weight.shape), trust)


def bias_residual(layer: Layer, found: Stacked) -> float:
    """The bias's gradient says nothing about the input, and much about whether delta is right."""
    if "bias" not in layer.grads:
        return 0.0
    sums, sizes = found.delta.sum((1, 2)), found.delta.abs().sum((1, 2))
    return relative(sums - layer.grads["bias"], sizes)
