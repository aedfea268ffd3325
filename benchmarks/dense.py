"""R-GAP with dense stacked systems, as published: the slow twin of the structured solver."""

import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.attacks.base import Cost
from gradleak.layers import Layer, Signal, chain, invert


class DenseRGAP:
    """Each convolution by one least-squares solve over all of its equations; known labels, biased or not."""

    name = "r_gap, dense"

    def __init__(self, features: Tensor, delta: Tensor) -> None:
        # Handed the head's solution, so that the systems alone are compared.
        self.features, self.delta = features, delta

    def __call__(self, obs: gl.Observation, *, rng: int = 0) -> gl.Reconstruction:
        *body, head = chain(obs)
        signal = Signal(self.features, head.params["weight"].T @ self.delta)
        for layer in reversed(body):
            if isinstance(layer.module, nn.Conv2d):
                signal = self._solve(layer, signal)
            else:
                signal = invert(layer.module, layer, signal).signal
        return gl.Reconstruction(gl.Outcome.BUDGET, x=signal.value[None].to(obs.like), cost=Cost(0, 0.0, 1))

    def _solve(self, layer: Layer, out: Signal) -> Signal:
        n = torch.Size(layer.in_shape).numel()
        conv, weight = layer.module, layer.params["weight"]
        bias = layer.params.get("bias")
        forward = (
            nn.functional.conv2d(
                torch.eye(n, dtype=torch.float64).reshape(n, *layer.in_shape),
                weight,
                None,
                conv.stride,
                conv.padding,
            )
            .reshape(n, -1)
            .T
        )
        pixels = nn.functional.unfold(
            torch.eye(n, dtype=torch.float64).reshape(n, *layer.in_shape),
            conv.kernel_size,
            conv.dilation,
            conv.padding,
            conv.stride,
        )  # [n, taps, places]
        gradient = torch.einsum("ntp,op->otn", pixels, out.grad.flatten(1)).reshape(-1, n)
        goal = out.value if bias is None else out.value - bias[:, None, None]
        right = torch.cat((goal.flatten(), layer.grads["weight"].flatten()))
        found = torch.linalg.lstsq(torch.cat((forward, gradient)), right[:, None]).solution
        return Signal(found.reshape(layer.in_shape), (forward.T @ out.grad.flatten()).reshape(layer.in_shape))
