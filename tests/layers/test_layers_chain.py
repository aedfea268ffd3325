import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.layers import chain, chain_of, opening


class Free(nn.Module):
    """Two layers, and whatever ``between`` does with what the first gives."""

    def __init__(self, between, reads_again=False):
        super().__init__()
        self.first, self.second = nn.Linear(24, 24), nn.Linear(24, 4)
        self.between, self.reads_again = between, reads_again

    def forward(self, x):
        h = self.between(self.first(x), x)
        return self.second(self.first(h) if self.reads_again else h)


def add_in_place(h, x):
    h += x
    return h


BROKEN = {
    "a skip": lambda h, x: h + x,
    "a skip in place": add_in_place,
    "a function": lambda h, x: h.relu(),
    "a branch": lambda h, x: x,
    "a scale": lambda h, x: h * 2,
}


@pytest.mark.parametrize("between", BROKEN.values(), ids=BROKEN)
def test_what_is_no_chain_is_refused_by_the_name_of_the_layer_behind_it(between):
    with pytest.raises(gl.errors.UnsupportedLayer, match=r"'second'.*chain"):
        chain_of(Free(between), (24,))


def test_a_layer_that_runs_twice_is_refused():
    with pytest.raises(gl.errors.UnsupportedLayer, match=r"'first'.*twice"):
        chain_of(Free(lambda h, x: h, reads_again=True), (24,))


def test_an_activation_may_be_shared_since_it_has_no_gradient():
    act = nn.Tanh()
    layers = chain_of(nn.Sequential(nn.Linear(6, 5), act, nn.Linear(5, 5), act, nn.Linear(5, 2)), (6,))
    assert [type(one.module).__name__ for one in layers] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]


def test_a_reshape_between_layers_becomes_a_layer():
    class Reshapes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(18, 4)

        def forward(self, x):
            return self.linear(torch.flatten(self.conv(x), 1))

    layers = chain_of(Reshapes(), (1, 5, 5))
    assert [one.path for one in layers] == ["conv", "before linear", "linear"]
    assert (layers[1].in_shape, layers[1].out_shape) == ((2, 3, 3), (18,))


def test_layers_hold_the_observations_numbers_and_their_part_of_the_update():
    model = gl.zoo.lenet(classes=10, size=16, seed=0)
    x, _ = gl.zoo.pictures("faces", size=16, n=1)
    obs = gl.observe(model, x, torch.tensor([3]))
    layers = chain(obs)
    conv = layers[0]
    assert torch.equal(conv.params["weight"].float(), model.conv1.weight)
    assert torch.equal(conv.grads["bias"].float(), obs.update["conv1.bias"])
    assert (conv.params["weight"].dtype, conv.in_shape) == (torch.float64, (3, 16, 16))
    assert sum(len(one.grads) for one in layers) == len(obs.update)


def test_the_opening_is_the_chain_up_to_where_it_breaks():
    model = Free(lambda h, x: h + x)
    obs = gl.observe(model, torch.rand(1, 24, generator=torch.Generator().manual_seed(0)), torch.tensor([1]))
    assert [one.path for one in opening(obs)] == ["first"]
    with pytest.raises(gl.errors.UnsupportedLayer):
        chain(obs)
