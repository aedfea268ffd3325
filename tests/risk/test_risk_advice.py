import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.errors import InvalidInput, UnsupportedLayer
from gradleak.risk import advise, rank


def small(out=8):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, out, 3, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.BatchNorm2d(out).eval()),
        *(nn.Conv2d(out, 6, 3, 1, 1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 2)),
    )


def test_cnn6_is_advised_what_its_authors_did():
    found = advise(gl.zoo.cnn6(seed=0), (3, 32, 32), layers=["conv2"])
    change = next(one for one in found if one.setting == "out_channels")
    assert change.before == 36
    assert 20 <= change.after < 36  # CNN6-d has 20; fewer outputs never give more equations
    assert change.evidence == "stand-in"
    assert change.deficit >= 0.05 * change.unknowns == 0.05 * 3468
    assert change.virtual == 396 >= change.deficit
    assert "could close that" in change.says
    # counting must go much further, because it takes repeated equations for new ones
    counted = advise(gl.zoo.cnn6(seed=0), (3, 32, 32), layers=["conv2"], exact=False)
    assert [one.after for one in counted if one.setting == "out_channels"] == [17]


def test_each_change_is_the_least_and_holds_in_a_model_that_is_built_so():
    model = small()
    assert rank(model, (1, 8, 8)).layer("0").deficit == 0
    changes = {(one.layer, one.setting): one for one in advise(model, (1, 8, 8))}
    one = changes["0", "out_channels"]
    assert rank(small(one.after), (1, 8, 8)).layer("0").deficit == one.deficit >= 4
    assert (rank(small(one.after + 1), (1, 8, 8)).layer("0").deficit or 0) < 4
    sizes = [sum(p.numel() for p in built.parameters()) for built in (model, small(one.after))]
    assert [one.parameters, one.parameters_after] == sizes
    assert one.size == (sizes[0] - sizes[1]) / sizes[0]
    assert changes["0", "stride"].after > 2
    listed = advise(model, (1, 8, 8))
    assert [one.size for one in listed] == sorted(one.size for one in listed)
    assert all(one.layer != "6" for one in listed)  # as wide as there are classes


def test_a_linear_layer_can_not_be_made_narrow_enough_but_one_over_tokens_can():
    assert advise(gl.zoo.mlp(sizes=(16, 8)), (1, 4, 4)) == []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2))
    (change,) = advise(model, (4, 6), exact=False)
    assert (change.setting, change.after, change.deficit) == ("out_features", 2, 24 - 8 - 12)
    (change,) = advise(model, (4, 6))
    assert (change.after, change.deficit) == (3, 3 * 1)


def test_advice_changes_nothing_and_needs_a_chain():
    model, state = small(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    advise(model, (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(UnsupportedLayer, match="not a chain"):
        advise(gl.zoo.resnet(depth=8, width=4), (3, 8, 8))
    with pytest.raises(InvalidInput, match="share"):
        advise(model, (1, 8, 8), share=0)
    with pytest.raises(InvalidInput, match="layers among"):
        advise(model, (1, 8, 8), layers=["conv9"])
