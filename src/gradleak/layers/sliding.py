"""Linear and convolutional layers as one thing: a filter that slides over planes."""

from dataclasses import dataclass
from functools import cached_property, singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak.errors import UnsupportedLayer
from gradleak.layers.chain import Layer

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Sliding:
    """A layer as a two-dimensional convolution without bias, from ``planes`` [C, H, W] to ``maps`` [O, h, w].

    A linear layer is one with a 1x1 filter, whose positions are the axes before the last, if any.
    ``pads`` are left, right, top and bottom, as in ``F.pad``.
    """

    weight: Tensor
    planes: tuple[int, int, int]
    maps: tuple[int, int, int]
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    channels_last: bool = False

    def to_planes(self, x: Tensor, batch: int = 0) -> Tensor:
        """A tensor at the layer's input or output, after ``batch`` leading axes, as [..., channels, H, W]."""
        lead = x.shape[:batch]
        if self.channels_last:
            return x.reshape(*lead, -1, x.shape[-1]).transpose(-1, -2).unsqueeze(-1)
        return x.unsqueeze(-2) if x.ndim - batch == 2 else x

    def from_planes(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        lead = x.shape[:-3]
        if self.channels_last:
            x = x.squeeze(-1).transpose(-1, -2)
        return x.reshape(*lead, *shape)

    def unfold(self, x: Tensor) -> Tensor:
        """What the filter reads of planes [k, C, H, W]: [k, groups, C kh kw of a group, h w]."""
        size = (self.weight.shape[2], self.weight.shape[3])
        read = F.unfold(self.padded(x), size, self.dilation, 0, self.stride)
        return read.reshape(len(x), self.groups, -1, read.shape[-1])

    def fold(self, read: Tensor) -> Tensor:
        """The transpose of ``unfold``."""
        _, height, width = self.planes
        left, right, top, bottom = self.pads
        full = (height + top + bottom, width + left + right)
        size = (self.weight.shape[2], self.weight.shape[3])
        x = F.fold(read.flatten(1, 2), full, size, self.dilation, 0, self.stride)
        return x[..., top : top + height, left : left + width]

    @cached_property
    def filters(self) -> Tensor:
        """[groups, O of a group, C kh kw of a group]."""
        return self.by_group(self.weight)

    def by_group(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(self.groups, self.maps[0] // self.groups, -1)

    def apply(self, x: Tensor) -> Tensor:
        """W x for planes [k, C, H, W]."""
        return (self.filters @ self.unfold(x)).reshape(-1, *self.maps)

    def transpose(self, u: Tensor) -> Tensor:
        """W' u for maps [k, O, h, w]."""
        by_group = u.reshape(len(u), *self.by_group(u[0]).shape)
        return self.fold(self.filters.transpose(1, 2) @ by_group)

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads) if any(self.pads) else x

    @cached_property
    def taps(self) -> Tensor:
        """[kh kw, h w]: the pixel that each tap of the filter reads at each position, H W for padding."""
        _, height, width = self.planes
        pixels = torch.arange(height * width, device=self.weight.device).reshape(1, 1, height, width)
        pixels = F.pad(pixels, self.pads, value=height * width)
        rows, columns = (
            s * _upto(n, pixels).unsqueeze(0) + d * _upto(k, pixels).unsqueeze(1)
            for s, n, d, k in zip(
                self.stride, self.maps[1:], self.dilation, self.weight.shape[2:], strict=True
            )
        )
        read = pixels[0, 0][rows[:, None, :, None], columns[None, :, None, :]]
        return read.reshape(rows.shape[0] * columns.shape[0], -1)


def _upto(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device)


@singledispatch
def sliding(module: nn.Module, layer: Layer) -> Sliding:
    """The layer as a sliding filter, where it is one."""
    raise UnsupportedLayer(f"{layer.name} is neither linear nor a convolution of one or two dimensions")


@sliding.register
def _(module: nn.Linear, layer: Layer) -> Sliding:
    weight = own_weight(layer)
    places = 1
    for n in layer.in_shape[:-1]:
        places *= n
    return Sliding(
        weight[:, :, None, None],
        (weight.shape[1], places, 1),
        (weight.shape[0], places, 1),
        channels_last=True,
    )


@sliding.register
def _(module: nn.Conv1d, layer: Layer) -> Sliding:
    return _convolution(module, layer)


@sliding.register
def _(module: nn.Conv2d, layer: Layer) -> Sliding:
    return _convolution(module, layer)


def own_weight(layer: Layer) -> Tensor:
    if "weight" not in layer.params:
        raise UnsupportedLayer(
            f"{layer.name} computes its weight from other tensors ({', '.join(layer.params) or 'none'}); "
            "closed forms need it as a parameter"
        )
    return layer.params["weight"]


def _convolution(module: nn.Conv1d | nn.Conv2d, layer: Layer) -> Sliding:
    if module.padding_mode != "zeros":
        raise UnsupportedLayer(
            f"{layer.name} pads with {module.padding_mode!r}; the rule for convolutions knows 'zeros' only"
        )
    weight = own_weight(layer)
    if weight.ndim == 3:
        weight = weight.unsqueeze(2)
    stride, dilation = _pair(module.stride), _pair(module.dilation)
    (channels, *size), (out, *positions) = layer.in_shape, layer.out_shape
    rows, columns = (
        _pads(module.padding, axis, d * (k - 1), module.weight.ndim == 3)
        for axis, (d, k) in enumerate(zip(dilation, weight.shape[2:], strict=True))
    )
    return Sliding(
        weight,
        (channels, *_size(size)),
        (out, *_size(positions)),
        stride,
        dilation,
        (*columns, *rows),
        module.groups,
    )


def _pair(value: tuple[int, ...]) -> Pair:
    return (1, value[0]) if len(value) == 1 else (value[0], value[1])


def _size(size: list[int]) -> Pair:
    return (1, size[0]) if len(size) == 1 else (size[0], size[1])


def _pads(padding: str | tuple[int, ...], axis: int, reach: int, one_dimension: bool) -> Pair:
    """What is padded before and after; 'same' pads the odd one after, as torch does."""
    if padding == "same":
        return reach // 2, reach - reach // 2
    if isinstance(padding, str):
        return 0, 0
    n = (0, padding[0])[axis] if one_dimension else padding[axis]
    return n, n
