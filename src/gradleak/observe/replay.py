"""Differentiate through many steps and keep only where each of them began."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Step = Callable[..., tuple[Tensor, ...]]


def replayed(step: Step, *tensors: Tensor) -> tuple[Tensor, ...]:
    """``step(*tensors)`` whose graph is built when it is needed, and forgotten after: memory for one step.

    torch.utils.checkpoint cannot do this: a step differentiates on its own, and the outer derivative is
    taken with autograd.grad, each of which rules out one of its two kinds. Derivatives are of first order
    only, which is what an attack needs, and no torch.func transform may be around.
    """
    outputs: tuple[Tensor, ...] = _Replayed.apply(step, *tensors)  # type: ignore[no-untyped-call]
    return outputs


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Step, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.save_for_backward(*tensors)
        with torch.enable_grad():  # the step itself takes a gradient
            outputs = step(*(tensor.detach() for tensor in tensors))
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        leaves = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad():
            outputs = ctx.step(*leaves)
        moving = [(o, u) for o, u in zip(outputs, upstream, strict=True) if o.requires_grad]
        slopes = iter(
            torch.autograd.grad(
                [output for output, _ in moving],
                [leaf for leaf in leaves if leaf.requires_grad],
                [slope for _, slope in moving],
                allow_unused=True,
            )
            if moving
            else [None] * sum(wanted)
        )
        return (None, *(next(slopes) if needed else None for needed in wanted))
