"""Average pooling: the gradient comes through exactly, of the values only the means."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.signal import Inverse, Signal
from gradleak.layers.solve import relative

# Along one axis: [n, 1, length, 1] to [n, 1, shorter, 1].
_Pool = Callable[[Tensor], Tensor]


@invert.register
def _(module: nn.AvgPool1d, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    kernel, stride, padding = (_at(v, 0) for v in (module.kernel_size, module.stride, module.padding))

    def pool(x: Tensor) -> Tensor:
        flat = F.avg_pool1d(x.flatten(1), kernel, stride, padding, module.ceil_mode, module.count_include_pad)
        return flat[:, None, :, None]

    return _pooled(layer, out, [pool])


@invert.register
def _(module: nn.AvgPool2d, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    divisor = module.divisor_override

    def along(axis: int) -> _Pool:
        kernel, stride, padding = (
            (_at(v, axis), other)
            for v, other in ((module.kernel_size, 1), (module.stride, 1), (module.padding, 0))
        )
        # a divisor of the whole window is divided by once, not along each axis
        override = None if divisor is None else divisor if axis == 0 else 1
        return lambda x: F.avg_pool2d(
            x, kernel, stride, padding, module.ceil_mode, module.count_include_pad, override
        )

    return _pooled(layer, out, [along(0), along(1)])


@invert.register(nn.AdaptiveAvgPool1d)
@invert.register(nn.AdaptiveAvgPool2d)
def _(module: nn.Module, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    def to(size: int) -> _Pool:
        return lambda x: F.adaptive_avg_pool2d(x, (size, 1))

    return _pooled(layer, out, [to(size) for size in layer.out_shape[1:]])


def _at(value: int | tuple[int, ...], axis: int) -> int:
    return value if isinstance(value, int) else value[axis if len(value) > 1 else 0]


def _pooled(layer: Layer, out: Signal, pools: list[_Pool]) -> Inverse:
    """Pooling is one matrix along each axis: so are its transpose and its pseudo-inverse."""
    value, grad, again = out.value, out.grad, None
    rank, size = layer.in_shape[0], 1
    matrices = []
    for axis, pool in enumerate(pools, start=1):
        n = layer.in_shape[axis]
        matrix = pool(torch.eye(n).to(value)[:, None, :, None])[:, 0, :, 0].T
        matrices.append(matrix)
        value, grad = _times(value, torch.linalg.pinv(matrix), axis), _times(grad, matrix.T, axis)
        rank, size = rank * int(torch.linalg.matrix_rank(matrix)), size * n
    again = value
    for axis, matrix in enumerate(matrices, start=1):
        again = _times(again, matrix, axis)
    deficit = layer.in_shape[0] * size - rank
    exact = deficit == 0 and out.known is None
    known = None if exact else torch.zeros(layer.in_shape, dtype=torch.bool, device=value.device)
    return Inverse(Signal(value, grad, known), relative(again - out.value, out.value), deficit)


def _times(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    return (x.transpose(axis, -1) @ matrix.T).transpose(axis, -1)
