"""Bad input is refused, and the message says what would have been valid."""

import math

import pytest
import torch
from defended import batch, network

import gradleak as gl
from gradleak.defenses import (
    DEFENSES,
    DPSGD,
    Clip,
    Dropout,
    GaussianNoise,
    LaplaceNoise,
    LowPrecision,
    Mask,
    Mixup,
    Prune,
    Soteria,
    Withhold,
)

ABSURD = [
    (GaussianNoise, {"std": -1.0}, "0 or more; came -1.0"),
    (GaussianNoise, {"std": math.nan}, "came nan"),
    (GaussianNoise, {"std": 10**400}, "as a number of 0 or more"),
    (GaussianNoise, {"std": "much"}, "came 'much'"),
    (LaplaceNoise, {"scale": math.inf}, "came inf"),
    (Mask, {"rate": 1.0}, "from 0 to below 1; came 1.0"),
    (Mask, {"rate": True}, "came True"),
    (Prune, {"fraction": 1.5}, "from 0 to below 1"),
    (Prune, {"fraction": 0.5, "per": "entry"}, "'update' or 'layer'; came 'entry'"),
    (Clip, {"norm": 0.0}, "above 0; came 0.0"),
    (Clip, {"norm": 1.0, "per": "row"}, "'update' or 'layer'"),
    (LowPrecision, {"format": "fp8"}, "'fp16' or 'bf16' or 'int8'; came 'fp8'"),
    (Dropout, {"rate": -0.1}, "from 0 to below 1"),
    (Soteria, {"fraction": 1}, "from 0 to below 1"),
    (Mixup, {"alpha": -1}, "0 or more"),
    (DPSGD, {"clip": 0, "noise_multiplier": 1.0}, "above 0"),
    (DPSGD, {"clip": 1.0, "noise_multiplier": -1.0}, "0 or more"),
    (Withhold, {"layers": 3}, "names of parameters or paths of modules; came 3"),
]


@pytest.mark.parametrize(("kind", "settings", "says"), ABSURD)
def test_absurd_strengths(kind, settings, says):
    with pytest.raises(gl.errors.InvalidInput, match=says):
        kind(**settings)


@pytest.mark.parametrize("kind", DEFENSES.values(), ids=DEFENSES)
@pytest.mark.parametrize("client", [0.1, gl.OneGradient, None, "fp16"], ids=repr)
def test_what_is_no_client(kind, client):
    settings = {
        GaussianNoise: {"std": 1.0},
        LaplaceNoise: {"scale": 1.0},
        Mask: {"rate": 0.5},
        Prune: {"fraction": 0.5},
        Clip: {"norm": 1.0},
        Dropout: {"rate": 0.5},
        Soteria: {"fraction": 0.5},
        Mixup: {"alpha": 1.0},
        DPSGD: {"clip": 1.0, "noise_multiplier": 1.0},
        Withhold: {"layers": ()},
    }.get(kind, {})
    with pytest.raises(gl.errors.InvalidInput, match="expected the client that"):
        kind(client, **settings)


@pytest.mark.parametrize(
    "inner", [gl.LocalSGD(1, 1, 0.1), gl.Summed(2), Clip(gl.LocalAdam(1, 1, 0.1), norm=1.0)]
)
def test_dpsgd_takes_single_gradients_only(inner):
    with pytest.raises(gl.errors.InvalidInput, match="sends one gradient"):
        DPSGD(inner, clip=1.0, noise_multiplier=1.0)


def test_layers_that_are_not_there():
    x, y = batch(2)
    with pytest.raises(gl.errors.InvalidInput, match=r"came '3.wieght'. The nearest are '3.weight'"):
        gl.observe(network(), x, y, client=Withhold(layers=("3.wieght",)))
    with pytest.raises(gl.errors.InvalidInput, match="the path of a module; came 'fc'"):
        gl.observe(network(), x, y, client=Dropout(rate=0.5, layer="fc"))
    with pytest.raises(gl.errors.InvalidInput, match="linear layer whose weight is trained; came 'fc'"):
        gl.observe(network(), x, y, client=Soteria(fraction=0.5, layer="fc"))
    convolution = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 4), torch.nn.Flatten()).double()
    with pytest.raises(gl.errors.InvalidInput, match="Name the layer"):
        gl.observe(convolution, x, y % 3, client=Dropout(rate=0.5))
    seen = gl.observe(convolution, x, y % 3, client=Dropout(rate=0.2, layer="0"))
    assert seen.told_client.mask is None  # of a convolution no mask is read


def test_labels_that_cannot_be_blended():
    x, _ = batch(2)

    def distance(output, y):
        return (output.sum(1) - y.double()).square().mean()

    for labels in (torch.tensor([[1, 2], [3, 4]]),):
        with pytest.raises(gl.errors.InvalidInput, match="class indices to blend"):
            gl.observe(network(), x, labels, client=Mixup(alpha=1.0), loss=lambda o, y: distance(o, y[:, 0]))


def test_nothing_is_asked_of_a_network_where_nothing_is_dropped():
    x, y = batch(2)
    convolution = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 4), torch.nn.Flatten()).double()
    seen = gl.observe(convolution, x, y % 3, client=Dropout(rate=0.0))
    assert bool(seen.uncertainty["0.weight"].isfinite().all())
