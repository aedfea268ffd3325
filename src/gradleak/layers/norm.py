"""Batch normalisation at rest: one affine map per channel, from the running statistics."""

import torch
from torch import Tensor, nn

from gradleak.errors import UnsupportedLayer
from gradleak.layers.chain import Layer
from gradleak.layers.invert import invert
from gradleak.layers.signal import Inverse, Signal
from gradleak.layers.solve import relative


@invert.register(nn.BatchNorm1d)
@invert.register(nn.BatchNorm2d)
@invert.register(nn.BatchNorm3d)
def _(module: nn.BatchNorm2d, layer: Layer, out: Signal, *, tolerance: float = 1e-8) -> Inverse:
    if module.training or "running_mean" not in layer.params:
        raise UnsupportedLayer(
            f"{layer.name} normalises with its batch's statistics, which an update does not hold. "
            "The rule needs eval mode and running statistics."
        )

    def per_channel(vector: Tensor) -> Tensor:
        return vector.reshape(-1, *(1 for _ in out.value.shape[1:]))

    mean, var = (per_channel(layer.params[name]) for name in ("running_mean", "running_var"))
    weight = per_channel(layer.params["weight"]) if "weight" in layer.params else torch.ones_like(mean)
    bias = per_channel(layer.params["bias"]) if "bias" in layer.params else torch.zeros_like(mean)
    spread = (var + module.eps).sqrt()
    open_ = (weight != 0).expand_as(out.value)
    # a channel with weight 0 tells nothing of what went in: its mean is the best guess
    normal = torch.where(open_, (out.value - bias) / torch.where(weight == 0, 1.0, weight), 0.0)
    known = open_ if out.known is None else open_ & out.known
    signal = Signal(
        normal * spread + mean,
        out.grad * weight / spread,
        None if bool(known.all()) else known,
        None if out.either is None else out.either * weight / spread,
        out.trust,
    )
    return Inverse(signal, _residual(layer, out, normal, known), int((~open_).sum()))


def _residual(layer: Layer, out: Signal, normal: Tensor, known: Tensor) -> float:
    """The weight's and the bias's gradients are sums of what the signal says, and check it."""
    found = [0.0]
    for name, terms, complete in (
        ("bias", out.grad, True),
        ("weight", out.grad * normal, bool((known | (out.grad == 0)).all())),
    ):
        if name in layer.grads and complete:
            each = terms.reshape(len(terms), -1)
            found.append(relative(each.sum(1) - layer.grads[name], each.abs().sum(1)))
    return max(found)
