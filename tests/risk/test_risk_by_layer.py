"""What each layer tells alone, beside networks and twins of which that is known."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.errors import InvalidModel
from gradleak.observe import Observation, OneGradient
from gradleak.observe.uncertainty import weights
from gradleak.risk import by_layer, decibels, predict


def digits(n: int, size: int = 8) -> tuple[Tensor, Tensor]:
    return gl.zoo.pictures("digits", size=size, n=n)


def lenet() -> nn.Module:
    return gl.zoo.lenet(10, 1, 8, seed=0)


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(36, 12),
            nn.Tanh(),
            nn.Linear(12, 10),
        )


def test_a_layer_alone_is_the_update_in_which_nobody_sees_the_others() -> None:
    x, y = digits(1)
    client = gl.defenses.GaussianNoise(std=1e-3)
    told = predict(small(), x, y, client=client)
    assert [row.path for row in told.layers] == ["0", "3", "5"]
    assert [row.name for row in told.layers] == ["0 (Conv2d)", "3 (Linear)", "5 (Linear)"]
    seen = gl.observe(small(), x, y, client=client)
    known = weights(seen.uncertainty)
    for row in told.layers:
        mine = {name: w * (name.rpartition(".")[0] == row.path) for name, w in known.items()}
        twin = decibels(seen, x, y, noise=1.0, weights=mine, exact=True)
        expected = torch.fmax(twin.psnr[0], twin.unbiased[0])
        assert row.psnr == pytest.approx(expected.minimum(by_layer.best(told.risk)), abs=1e-6)
        assert row.dimensions == pytest.approx(float(twin.dimensions[0]), rel=1e-6)


def test_the_layers_together_see_no_more_than_the_sum_of_what_each_sees() -> None:
    """They are tr A / (1 + A), which is concave in A, and the layers' A add up."""
    told = predict(lenet(), *digits(1), noise=1e-2)
    alone = [row.dimensions for row in told.layers]
    whole = float(told.risk.dimensions[0])
    assert max(alone) < whole < sum(alone)


def test_few_steps_agree_with_the_matrix_or_say_that_they_are_not_settled() -> None:
    x, y = digits(1)
    for noise in (1e-1, 1e-3):
        dense, free = (predict(small(), x, y, noise=noise, exact=exact).layers for exact in (True, False))
        for a, b in zip(dense, free, strict=True):
            assert not a.at_most
            if b.at_most:
                assert bool((b.psnr.nan_to_num(math.inf) > a.psnr - 0.5).all())
            else:
                assert b.psnr == pytest.approx(a.psnr, abs=1.0)


def test_a_layer_that_knows_nothing_of_the_picture_is_at_the_null() -> None:
    """With a constant loss slope, the last bias's gradient is the same for every picture."""

    def total(output: Tensor, y: Tensor) -> Tensor:
        return output.sum()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(64, 8)
            self.shift = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.body(x.flatten(1))) + self.shift.weight.sum() + self.shift.bias

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    x, y = digits(1)
    told = predict(model, x, y, loss=total, noise=1e-3)
    rows = {row.path: row for row in told.layers}
    assert rows["shift"].psnr == pytest.approx(told.risk.null_psnr)
    assert rows["shift"].dimensions == 0
    assert float(rows["body"].psnr[0]) > told.samples[0].null_psnr + 6


def test_many_layers_are_asked_by_their_block() -> None:
    deep = gl.zoo.resnet(10, 1, 8, width=4, seed=0)
    found = by_layer.layers_of(dict(deep.named_parameters()))
    assert 4 <= len(found) <= by_layer.MOST
    assert sorted(name for names in found.values() for name in names) == sorted(
        name for name, _ in deep.named_parameters()
    )
    assert any(len(names) > 2 for names in found.values())
    bare = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(2)])
    assert by_layer.layers_of(dict(bare.named_parameters())) == {"the model": ["0", "1"]}


def test_pixels_that_the_update_does_not_answer_to() -> None:
    """A convolution that skips every other row and column."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 10))
    x, y = digits(2)
    reached = by_layer.reached(*by_layer.in_double(gl.observe(model, x, y), x, y))
    expected = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    expected[:, :, ::2, ::2] = True
    assert torch.equal(reached, expected)
    told = predict(model, x, y)
    assert "48 of this sample's 64 entries do not reach it" in told.samples[0].reasons[0]


def test_a_picture_behind_units_that_are_all_off_is_named() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        model[1].weight.abs_()
        model[1].bias.fill_(-0.5)
    x, y = digits(3)
    x[1] = 0
    told = predict(model, x, y, noise=1e-6)
    assert "sample 2 does not reach the update at all" in told.notes[0]
    assert told.samples[1].verdict == "not recoverable from this update"
    assert told.samples[1].reasons[0] == "it does not reach the update at all"
    assert told.samples[0].leaks


def test_a_network_that_is_off_altogether_is_refused_by_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        model[1].bias.fill_(-1e3)
    with pytest.raises(InvalidModel, match="layer '2' \\(ReLU\\) passes no gradient"):
        predict(model, *digits(2))


def test_an_upper_end_is_no_leak() -> None:
    numbers = torch.tensor([105.0, float("nan"), 11.0])
    bound, settled = (by_layer.Alone("4", numbers, 1.0, at_most, "Linear") for at_most in (True, False))
    assert bound.leaking([10.0] * 3) == [False, False, False]
    assert bound.open == [True, True, True]
    assert settled.leaking([10.0] * 3) == [True, False, False]
    assert settled.open == [False, True, False]


def test_without_layers_none_is_asked() -> None:
    told = predict(lenet(), *digits(1), layers=False)
    assert told.layers == ()
    assert told.to_dict()["layers"] == []


def test_too_little_memory_for_a_matrix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradleak.risk import predict as room

    real = decibels

    def short(*args: Any, exact: bool, **others: Any) -> Any:
        if exact:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        return real(*args, exact=exact, **others)

    monkeypatch.setitem(predict.__globals__, "decibels", short)
    told = room(lenet(), *digits(1), noise=1e-2, layers=False)
    assert told.risk.way == "lanczos"
    assert any("did not fit into memory" in note for note in told.notes)


def test_a_part_sends_what_the_whole_sends() -> None:
    x, y = digits(2)
    seen = gl.observe(lenet(), x, y)
    part = by_layer._Part(OneGradient(), frozenset(["conv1.weight"]))
    sent = dataclasses.replace(seen, client=part).simulate(x, y)
    assert list(sent) == ["conv1.weight"]
    assert isinstance(seen, Observation)
    assert torch.equal(sent["conv1.weight"].detach(), seen.simulate(x, y)["conv1.weight"].detach())
