"""Networks whose kinks are rounded off, on which an attacker from afar does not get caught."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, finfo, relu
from torch.nn.functional import leaky_relu, softplus
from torch.nn.functional import relu as functional_relu
from torch.overrides import TorchFunctionMode


def softened(sharpness: float | None) -> AbstractContextManager[object]:
    """Inside, every ReLU is a softplus that bends over 1 / ``sharpness`` of its inputs' root mean square.

    None leaves them as they are. ReLUs that write into their input stay sharp, as do other kinks.
    """
    return nullcontext() if sharpness is None else _Softened(sharpness)


class _Softened(TorchFunctionMode):
    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        rounded = _ROUNDED.get(function)
        return function(*args, **kwargs) if rounded is None else rounded(self.sharpness, *args, **kwargs)


def _relu(sharpness: float, input: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return input.relu_()
    size = input.detach().square().mean().sqrt()
    bend = size.clamp_min(finfo(size.dtype).tiny * sharpness) / sharpness  # all of the input may be zero
    return bend * softplus(input / bend)


def _leaky(sharpness: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    if inplace:
        return leaky_relu(input, negative_slope, inplace=True)
    return negative_slope * input + (1 - negative_slope) * _relu(sharpness, input)


_ROUNDED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    relu: _relu,
    functional_relu: _relu,
    Tensor.relu: _relu,
    leaky_relu: _leaky,
}
