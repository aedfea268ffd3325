import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradleak as gl
from gradleak.attacks.kinks import kinked
from gradleak.observe.kinks import kinks


class Functional(nn.Module):
    """A network that names no activation among its modules."""

    def __init__(self, activation):
        super().__init__()
        self.activation, self.first, self.head = activation, nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.activation(self.first(x.flatten(1))))


def _seen(model):
    return gl.observe(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("activation", "named"),
    [
        (F.relu, ["Relu"]),
        (F.leaky_relu, ["LeakyRelu"]),
        (F.hardtanh, ["Hardtanh"]),
        (lambda x: F.max_pool1d(x, 1), ["MaxPool2DWithIndices"]),
        (torch.abs, ["Abs"]),
        (F.gelu, []),
        (torch.sigmoid, []),
        (F.softplus, []),
    ],
)
def test_kinks_are_read_off_the_graph_and_not_off_the_names_of_modules(activation, named):
    seen = _seen(Functional(activation))
    assert kinks(seen, torch.rand(2, 1, 4, 4)) == named
    assert kinked(seen) == bool(named)


def test_the_zoo_s_networks_are_smooth_or_not_as_their_papers_say():
    assert not kinked(gl.observe(gl.zoo.lenet(classes=10, size=16), *_pictures()))
    assert kinked(gl.observe(gl.zoo.convnet(classes=10, size=16, width=4), *_pictures()))


def _pictures():
    x, y = gl.zoo.pictures("faces", size=16, n=1)
    return x, y % 10


def test_asking_leaves_no_gradient_and_works_without_them():
    seen = _seen(Functional(F.relu))
    with torch.no_grad():
        assert kinked(seen)
    with torch.inference_mode():
        assert kinked(seen)
    assert all(p.grad is None for p in seen.model.parameters())
