import random

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

import gradleak as gl
from gradleak.errors import InvalidInput, InvalidModel
from gradleak.layers import Signal, chain_of
from gradleak.risk import rank
from gradleak.risk.equations import rank_of
from gradleak.risk.rank import read, stand_in


def dense(layers, at, x, delta):
    """The rank of all equations of one layer, written out: no structure is used, only derivatives.

    The layers up to the next weighted one are differentiated with it, so what they hide is gone.
    """
    layer, after = layers[at], []
    for following in layers[at + 1 :]:
        if isinstance(following, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            break
        after.append(following)
    forward = jacobian(nn.Sequential(layer, *after), x).reshape(-1, x.numel())

    def sent(x):
        z = layer(x)
        return torch.autograd.grad((z * delta).sum(), layer.weight, create_graph=True)[0]

    gradient = jacobian(sent, x).reshape(-1, x.numel())
    rows = torch.cat(
        [rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300) for rows in (forward, gradient)]
    )
    return int(torch.linalg.matrix_rank(rows))


def passed(layers, x):
    """Every layer's input, and the gradient at its output for a random one at the end."""
    values = [x.requires_grad_()]
    for layer in layers:
        values.append(layer(values[-1]))
    deltas = torch.autograd.grad(values[-1], values[1:], torch.randn_like(values[-1]))
    return [value.detach() for value in values], list(deltas)


def random_chain(seed):
    """Convolutions of every kind of setting, with what invertible and what lossy layers there are."""
    draw = random.Random(seed)
    channels, side, layers = draw.choice((1, 2, 4)), draw.choice((5, 6, 7)), []
    shape = (channels, side, side)
    for _ in range(draw.choice((1, 2, 3))):
        out = draw.choice((2, 4, 6))
        layers.append(
            nn.Conv2d(
                channels,
                out,
                draw.choice((2, 3, (1, 3))),
                draw.choice((1, 2)),
                draw.choice((0, 1)),
                groups=2 if channels % 2 == 0 and draw.random() < 0.3 else 1,
                bias=draw.random() < 0.5,
                padding_mode=draw.choice(("zeros", "zeros", "circular", "reflect")),
            )
        )
        layers.append(draw.choice((nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.ELU())))
        if draw.random() < 0.3:
            layers.append(draw.choice((nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 1))))
        channels = out
    layers.append(nn.Flatten())
    try:
        features = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    except RuntimeError:  # nothing is left of the picture
        return random_chain(seed + 1000)
    return [*layers, nn.Linear(features, 3)], shape


@pytest.mark.parametrize("seed", range(24))
def test_every_layers_rank_is_that_of_its_equations_written_out(seed):
    torch.manual_seed(seed)
    layers, shape = random_chain(seed)
    layers = [layer.double() for layer in layers]
    values, deltas = passed(layers, torch.rand(1, *shape, dtype=torch.float64))
    signals = [Signal(v[0], d[0]) for v, d in zip(values[1:], deltas, strict=True)]
    report = rank(nn.Sequential(*layers), shape, signals=signals)
    assert report.evidence == "signals"
    weighted = [i for i, layer in enumerate(layers) if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert [one.path for one in report.ranked] == [str(i) for i in weighted]
    expected = [dense(layers, i, values[i], deltas[i]) for i in weighted]
    assert [one.rank for one in report.ranked] == expected


def test_the_random_chains_hold_deficient_layers_and_determined_ones():
    deficits = set()
    for seed in range(24):
        torch.manual_seed(seed)
        layers, shape = random_chain(seed)
        deficits |= {bool(one.deficit) for one in rank(nn.Sequential(*layers), shape).ranked}
    assert deficits == {True, False}


OTHERS = {
    "a signal of one dimension": (
        [nn.Conv1d(2, 3, 3, 2, 1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2)],
        (2, 9),
    ),
    "dilated, padded by name": (
        [nn.Conv2d(1, 2, 3, padding="same", dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(50, 2)],
        (1, 5, 5),
    ),
    "linear over tokens": (
        [nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Flatten(), nn.Linear(12, 2)],
        (6, 4),
    ),
    "a norm between": (
        [nn.Conv2d(1, 4, 2, 2), nn.GroupNorm(2, 4), nn.ELU(), nn.Flatten(), nn.Linear(36, 2)],
        (1, 6, 6),
    ),
    "a layer without a rule between": (
        [nn.Conv2d(1, 3, 2, 2), nn.Softmax(1), nn.Flatten(), nn.Linear(27, 2)],
        (1, 6, 6),
    ),
}


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_batches_and_other_layers_too(name, batch):
    torch.manual_seed(0)
    layers, shape = OTHERS[name]
    model = nn.Sequential(*layers).double()
    sent = stand_in(read(model, shape)[0].links, shape, batch, 5)
    came = [torch.rand(batch, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)]
    came += [one.value for one in sent]
    report = rank(model, shape, batch=batch, rng=5)
    for one in report.ranked:
        at = int(one.path)
        assert one.rank == dense(layers, at, came[at], sent[at].grad)
        assert one.unknowns == batch * came[at][0].numel()


def test_virtual_ranks_are_what_is_left_of_an_output_beyond_its_weights_rank():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2, 2), nn.LeakyReLU(0.2)]
    layers += [nn.Flatten(), nn.Linear(4, 1)]
    report = rank(nn.Sequential(*layers), (1, 5, 5))
    W = jacobian(layers[0], torch.zeros(1, 1, 5, 5)).reshape(64, 25)
    second = report.layer("2")
    assert second.deficit == 64 - second.rank > 0
    assert second.virtual_rank == 64 - int(torch.linalg.matrix_rank(W)) == second.virtual == 39
    # a ReLU does not give on the whole output, and then nothing is promised
    layers[1] = nn.ReLU()
    assert rank(nn.Sequential(*layers), (1, 5, 5)).layer("2").virtual_rank == 0


def test_repeated_filters_make_more_virtual_constraints_than_shapes_show():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Tanh(), nn.Conv2d(2, 1, 2, 2), nn.Flatten())
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[0]
    second = rank(model, (2, 4, 4)).layer("2")
    assert (second.virtual, second.virtual_rank) == (0, 16)


def test_cnn6_is_determined_layer_by_layer_and_cnn6_d_is_not():
    whole = rank(gl.zoo.cnn6(seed=0), (3, 32, 32))
    assert whole.verdict == "recoverable layer by layer"
    assert [one.deficit for one in whole.ranked] == [0] * 7
    holed = rank(gl.zoo.cnn6_d(seed=0), (3, 32, 32))
    conv2 = holed.layer("conv2")
    assert (conv2.unknowns, conv2.forward, conv2.gradient) == (3468, 1620, 2160)
    assert (conv2.rank, conv2.deficit, conv2.virtual, conv2.virtual_rank) == (3188, 280, 396, 396)
    assert conv2.enough  # by counting alone there is nothing wrong with it
    assert holed.index == 0
    assert holed.verdict == (
        "rank-deficient at layer conv2: 280 dimensions are not determined by its own equations; "
        "396 virtual constraints from conv1 could close that"
    )


def test_a_rank_between_rounding_and_certainty_is_decided_by_singular_values():
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    s = torch.ones(20, dtype=torch.float64)
    for small, expected in ((3e-6, 20), (1e-9, 20), (1e-17, 19), (0.0, 19)):
        s[-1] = small
        assert rank_of(Q * s @ Q.T) == expected
    assert rank_of((Q * s)[:, :7]) == 7
    assert rank_of(1e-16 * Q) == 20
    assert rank_of(1e-16 * Q, scale=1.0) == 0  # the rounding of larger numbers
    assert rank_of(torch.zeros(3, 0)) == rank_of(torch.zeros(3, 4)) == 0


def test_an_observation_lends_its_parameters_and_its_batch_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2, 2, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
    seen = gl.observe(model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
    with torch.no_grad():
        model[0].weight.zero_()  # trained on: no longer what the observation holds
    assert rank(model, (1, 4, 4), batch=2).layer("0").rank < 20
    report = rank(model, (1, 4, 4), seen)
    assert (report.batch, report.layer("0").unknowns) == (2, 32)
    # 16 and 8 equations, of which Σ W[a] dW[b] = Σ k[b] z[a] makes 2 x 2 superfluous
    assert report.layer("0").rank == 16 + 8 - 4
    with pytest.raises(InvalidInput, match=r"\(1, 4, 4\); came \(1, 5, 5\)"):
        rank(model, (1, 5, 5), seen)


def test_signals_are_those_of_a_chains_layers_and_are_checked():
    model = gl.zoo.lenet(classes=3, size=8, seed=0).double()
    layers = chain_of(model, (3, 8, 8))
    good = [Signal(torch.rand(one.out_shape), torch.rand(one.out_shape)) for one in layers]
    assert rank(model, (3, 8, 8), signals=good).evidence == "signals"
    with pytest.raises(InvalidInput, match="a signal for each of the 8 layers"):
        rank(model, (3, 8, 8), signals=good[1:])
    bad = [Signal(torch.rand(2), torch.rand(2)), *good[1:]]
    with pytest.raises(InvalidInput, match="'conv1'"):
        rank(model, (3, 8, 8), signals=bad)
    bad = [Signal(good[0].value / 0, good[0].grad), *good[1:]]
    with pytest.raises(InvalidInput, match="finite"):
        rank(model, (3, 8, 8), signals=bad)
    with pytest.raises(InvalidInput, match="one record's"):
        rank(model, (3, 8, 8), signals=good, batch=2)
    with pytest.raises(InvalidInput, match="chain"):
        rank(gl.zoo.resnet(depth=8, width=4), (3, 8, 8), signals=good)


def test_a_model_of_nans_is_refused_and_what_is_too_large_is_counted():
    broken = gl.zoo.lenet(size=8)
    with torch.no_grad():
        broken.conv1.weight.fill_(float("nan"))
    with pytest.raises(InvalidModel, match="finite"):
        rank(broken, (3, 8, 8))
    report = rank(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1, bias=False), nn.Flatten()), (1, 70, 70))
    assert report.layer("0").rank is None
    assert "too large" in report.layer("0").notes[0]
    assert report.verdict == "recoverable layer by layer as far as it was ranked; only counted: 0"


def test_the_same_seed_gives_the_same_report_and_a_dead_layer_gives_nothing():
    model = gl.zoo.convnet(classes=3, size=8, width=4, seed=0)
    assert rank(model, (3, 8, 8), rng=3) == rank(model, (3, 8, 8), rng=3)
    with torch.no_grad():
        model.conv4.bias.fill_(-1e3)  # every unit is off: no forward equation and no delta is left
    report = rank(model, (3, 8, 8))
    assert (report.layer("conv4").rank, report.layer("conv4").deficit) == (0, 128)
    assert report.layer("linear").deficit == 0
    assert "stand-in" in report.verdict


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Refuses(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        raise ValueError("not today")


def test_a_layer_that_gives_several_tensors_breaks_the_chain_and_is_counted():
    report = rank(Recurrent(), (4, 6))
    assert "not a chain" in report.verdict


def test_what_is_no_shape_no_observation_or_no_working_model_is_refused():
    model = nn.Sequential(nn.Linear(6, 3))
    for wrong in (6, None, (0,), ("a",)):
        with pytest.raises(InvalidInput, match="record's shape"):
            rank(model, wrong)
    with pytest.raises(InvalidInput, match="Observation"):
        rank(model, (6,), 3)
    with pytest.raises(InvalidInput, match="not today"):
        rank(Refuses(), (6,))
