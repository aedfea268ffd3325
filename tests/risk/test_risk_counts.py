import copy
import json

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.errors import InvalidInput, InvalidModel
from gradleak.layers import chain_of
from gradleak.risk import rank
from gradleak.risk.count import count
from gradleak.risk.rank import read


def counts(model, shape, **how):
    return rank(model, shape, exact=False, **how)


def test_cnn6_counts_by_hand():
    report = counts(gl.zoo.cnn6_d(), (3, 32, 32))
    assert report.evidence == "counts"
    assert [(one.path, one.unknowns, one.forward, one.gradient, one.virtual) for one in report.ranked] == [
        ("conv1", 3 * 32**2, 12 * 17**2, 12 * 3 * 16, 0),
        ("conv2", 12 * 17**2, 20 * 81, 20 * 12 * 9, 396),
        ("conv3", 20 * 81, 36 * 81, 36 * 20 * 9, 396),
        ("conv4", 36 * 81, 36 * 81, 36 * 36 * 9, 396 + 1296),
        ("conv5", 36 * 81, 64 * 25, 64 * 36 * 9, 396 + 1296),
        ("conv6", 64 * 25, 128 * 25, 128 * 64 * 9, 396 + 1296),
        ("linear", 3200, 1, 3200, 396 + 1296 + 1600),
    ]
    assert report.verdict.startswith("recoverable layer by layer, as far as counting can tell")


def test_ra_i_is_the_recalled_formula_and_the_network_has_the_least():
    model = nn.Sequential(nn.Conv2d(1, 4, 2, bias=False), nn.Tanh(), nn.Conv2d(4, 1, 2, 4, bias=False))
    report = counts(nn.Sequential(*model, nn.Flatten()), (1, 9, 9))
    second = report.layer("2")
    assert (second.unknowns, second.forward, second.gradient, second.virtual) == (256, 4, 16, 175)
    assert second.index == 175 - (256 - 4 - 16) == -61 == report.index
    assert not second.enough
    assert report.verdict == (
        "not recoverable layer by layer: too few equations, by counting, at 2 (RA-i -61)"
    )


def test_a_batch_has_more_unknowns_and_the_same_gradient():
    one, two = (counts(gl.zoo.lenet(), (3, 32, 32), batch=batch) for batch in (1, 2))
    assert one.ranked[0].determined == one.ranked[0].unknowns == 3072
    first = two.ranked[0]
    assert (first.unknowns, first.forward, first.gradient) == (6144, 6144, 900)
    # 1536 features are in the head; the third layer adds nothing to them, the second 3600, the first 900
    assert [layer.determined for layer in two.ranked] == [1536 + 3600 + 900, 1536 + 3600, 1536, 1536]
    assert two.verdict.endswith("too few equations, by counting, at conv2 (RA-i -1008)")


def test_layers_that_have_enough_equations_each_may_have_too_few_together():
    layers = [nn.Conv2d(1, 1, 1, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9, 2)]
    report = counts(nn.Sequential(*layers), (1, 6, 6))
    assert all(one.enough and one.index == 0 for one in report.ranked)
    assert report.verdict.startswith("enough equations at each layer, but of the 36 unknowns")
    assert "at most 10 are determined" in report.verdict  # 9 means of windows, 1 weight
    report = rank(nn.Sequential(*layers), (1, 6, 6))
    # of the 10 equations one repeats the others: Σ k z is k's own sum
    assert (report.layer("0").rank, report.layer("0").deficit) == (9, 27)


@pytest.mark.parametrize("name", ["lenet", "cnn6", "convnet", "mlp"])
def test_a_chains_links_are_the_layers_of_the_chain(name):
    model = gl.zoo.MODELS[name](channels=1, size=8)
    links, layers = read(model, (1, 8, 8))[0].links, chain_of(model, (1, 8, 8))
    assert [(a.path, a.in_shape, a.out_shape) for a in links] == [
        (b.path, b.in_shape, b.out_shape) for b in layers
    ]
    assert not counts(model, (1, 8, 8)).breaks


class Views(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(self.conv(x).flatten(1))


def test_a_view_between_layers_is_a_layer_of_the_chain():
    links, layers = read(Views(), (1, 4, 4))[0].links, chain_of(Views(), (1, 4, 4))
    assert [a.path for a in links] == [b.path for b in layers] == ["conv", "before linear", "linear"]
    assert rank(Views(), (1, 4, 4)).layer("conv").rank is not None


def test_resnet18_on_imagenets_pictures_is_counted_and_its_blocks_are_named():
    report = rank(gl.zoo.resnet(width=64), (3, 224, 224))
    assert report.verdict.startswith(
        "not a chain: it branches, skips, or computes between layers in 'stage1_block1' (_Block), "
        "'stage1_block2' (_Block), 'stage2_block1' (_Block) and 5 more"
    )
    assert len(report.breaks) == 8
    assert report.loose == ()
    assert len(report.ranked) == 21
    carry = report.layer("stage2_block1.carry.conv")
    assert (carry.unknowns, carry.forward, carry.gradient) == (64 * 224**2, 128 * 112**2, 128 * 64)
    assert (carry.virtual, carry.index, carry.rank) == (None, None, None)


class Added(nn.Module):
    """A skip that keeps the tensor and changes its numbers, as torchvision's networks do."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(2, 2, 3, 1, 1), nn.Tanh(), nn.Conv2d(2, 2, 3, 1, 1)
        self.last = nn.Tanh()

    def forward(self, x):
        kept = self.act(self.first(x))
        out = self.second(kept)
        out += kept
        return self.last(out)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, 1, 1)

    def forward(self, x):
        return self.conv(self.conv(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 3, 1, 1), nn.Conv2d(2, 2, 3, 1, 1)
        self.second.weight = self.first.weight
        self.free = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.second(self.first(x)) * self.free


@pytest.mark.parametrize("kind", [Added, Twice, Tied])
def test_what_is_no_chain_is_said_by_name(kind):
    report = rank(kind(), (2, 5, 5))
    assert report.breaks == (f"the model itself ({kind.__name__})",)
    assert report.verdict.startswith("not a chain")
    assert report.loose == (("free",) if kind is Tied else ())


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 9))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T.exp()


def test_an_unknown_layer_is_counted_and_noted_and_learns_by_one_function():
    model = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Tanh(), Strange())
    strange = rank(model, (1, 4, 4)).layer("2")
    assert (strange.role, strange.unknowns, strange.forward, strange.gradient) == ("opaque", 9, 3, 27)
    assert strange.notes[0].startswith("no rule for Strange")
    assert strange.rank is None
    link = read(model, (1, 4, 4))[0].links[2]
    assert count.dispatch(Strange)(link.module, link).role.value == "opaque"


def test_what_layers_lose_is_noted():
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GELU(), nn.BatchNorm2d(2), nn.Dropout(0.25)),
        *(nn.GroupNorm(1, 2), nn.AvgPool2d(2), nn.LeakyReLU(0), nn.PReLU(), nn.LeakyReLU(0.1), nn.Flatten()),
        nn.Linear(2, 2),
    )
    notes = {one.path: (one.role, *one.notes) for one in counts(model, (1, 6, 6)).layers}
    assert "an expected half" in notes["1"][1]
    assert "8 of 32 numbers" in notes["2"][1]
    assert "the largest" in notes["2"][1]
    assert "not monotone" in notes["3"][1]
    assert "depends on the batch" in notes["4"][1]
    assert "drops an expected 25%" in notes["5"][1]
    assert "mean and the scale" in notes["6"][1]
    assert "the mean of each window" in notes["7"][1]
    assert notes["8"][0] == "lossy"  # a leak of 0 is a ReLU
    assert notes["9"] == notes["10"] == ("lossless",)
    model.eval()
    notes = {one.path: one.role for one in counts(model, (1, 6, 6)).layers}
    assert (notes["4"], notes["5"]) == ("lossless", "lossless")


def test_a_first_linear_layer_with_a_bias_gives_the_input_away():
    report = rank(gl.zoo.mlp(sizes=(16, 8), activation="sigmoid"), (1, 4, 4))
    assert report.verdict.startswith(
        "recoverable layer by layer; and linear1 is linear, with a bias, and first"
    )
    assert "weighted means" in counts(gl.zoo.mlp(sizes=(16, 8)), (1, 4, 4), batch=2).verdict
    bare = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    later = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    assert "Phong" not in counts(bare, (1, 4, 4)).verdict + counts(later, (1, 4, 4)).verdict


def test_a_frozen_layer_sends_no_gradient():
    model = nn.Sequential(nn.Conv2d(1, 1, 2, 2, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    first = rank(model, (1, 4, 4)).layer("0")
    assert (first.gradient, first.rank, first.deficit) == (0, 4, 12)
    assert "not trained" in first.notes[0]


def test_the_model_and_the_random_state_come_back_untouched():
    model = gl.zoo.resnet(depth=8, width=4).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    rank(model, (3, 8, 8))
    rank(gl.zoo.lenet(size=8, seed=0), (3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_input_is_refused_in_words():
    with pytest.raises(InvalidInput, match=r"like \(3, 32, 32\)"):
        rank(gl.zoo.lenet(), (3, -1, 32))
    with pytest.raises(InvalidInput, match="cannot take one record"):
        rank(gl.zoo.lenet(), (1, 32, 32))
    with pytest.raises(InvalidInput, match="batch of 1 or more"):
        rank(gl.zoo.lenet(), (3, 32, 32), batch=0)
    with pytest.raises(InvalidModel, match="need gradients"):
        rank(nn.Flatten(), (3, 4, 4))
    with pytest.raises(InvalidInput, match="one of the layers"):
        counts(gl.zoo.lenet(), (3, 32, 32)).layer("conv9")


def test_a_report_is_plain_data():
    report = rank(gl.zoo.lenet(size=8, seed=0), (3, 8, 8))
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["verdict"] == report.verdict
    assert facts["layers"][0]["path"] == "conv1"
    assert facts["layers"][0]["deficit"] == report.layer("conv1").deficit
    rows = report.table()
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "conv3", "linear"]
    assert rows[0]["unknowns"] == "192"
    assert counts(gl.zoo.lenet(size=8), (3, 8, 8)).table()[0]["rank"] == "-"
