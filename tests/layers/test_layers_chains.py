"""Whole networks peeled from the top down to the pixels, from float32 models and gradients."""

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak import zoo
from gradleak.layers import Inverse, Signal, chain, invert
from gradleak.observe.task import Loss, cross_entropy


def peeled(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> list[Inverse]:
    """What each layer's rule says, top first; the signal at the very top is the true one."""
    output = model(x).detach().requires_grad_()
    (grad,) = torch.autograd.grad(loss(output, y), output)
    signal = Signal(output[0].detach().double(), grad[0].double())
    found = []
    for layer in reversed(chain(gl.observe(model, x, y, loss=loss))):
        found.append(invert(layer.module, layer, signal))
        signal = found[-1].signal
    return found


def psnr(found: Tensor, truth: Tensor) -> float:
    return float(-10 * (found - truth.double()).square().mean().log10())


@pytest.mark.parametrize(
    ("model", "loss", "least"),
    [
        (zoo.cnn6(1, seed=113), gl.logistic, 90),
        (zoo.cnn6(10, seed=113), cross_entropy, 90),
        (zoo.lenet(seed=113), cross_entropy, 60),
        (zoo.lenet(init="default", seed=113), cross_entropy, 60),
        (zoo.lenet(10, 1, 16, seed=113), cross_entropy, 60),
    ],
    ids=["cnn6, one logit", "cnn6", "lenet", "lenet, torch's init", "lenet, small"],
)
def test_pixels_from_float32_gradients(model: nn.Sequential, loss: Loss, least: float) -> None:
    size = 16 if model[0].in_channels == 1 else 32
    x, y = zoo.pictures("photos", n=34, size=size, channels=model[0].in_channels)
    found = peeled(model, x[33:], y[33:] % model[-1].out_features, loss)
    assert psnr(found[-1].signal.value, x[33]) > least
    assert max(inverse.residual for inverse in found) < 1e-4
    assert sum(inverse.deficit for inverse in found) == 0


def test_the_hole_in_cnn6_d() -> None:
    """36 - 20 channels fewer leave 280 dimensions of its second layer's input open: R-GAP fails there."""
    x, y = zoo.pictures("photos", n=1)
    found = peeled(zoo.cnn6_d(1, seed=0), x, y % 2, gl.logistic)
    assert [inverse.deficit for inverse in found if inverse.deficit] == [280]
    assert psnr(found[-1].signal.value, x[0]) < 30
