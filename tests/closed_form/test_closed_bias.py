import dataclasses

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.closed_form.bias import bias

FACES, _ = gl.zoo.pictures("faces", size=8, n=12, channels=1)


def net(seed=0, dtype=torch.float64, act="relu"):
    return gl.zoo.mlp(sizes=(64, 40), classes=6, activation=act, seed=seed).to(dtype)


@pytest.mark.parametrize("act", ["relu", "sigmoid"])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 90), (torch.float64, 250)])
@pytest.mark.parametrize("i", range(4))
def test_one_record_is_the_quotient_of_two_gradients(i, act, dtype, least):
    x, y = FACES[i : i + 1].to(dtype), torch.tensor([i % 6])
    found = bias()(gl.observe(net(i, dtype, act), x, y))
    assert (found.outcome, found.y.tolist()) == (gl.Outcome.CONVERGED, y.tolist())
    assert float(gl.metrics.psnr(found.x, x)) > least


def test_least_squares_over_all_neurons_beats_any_single_one_under_noise():
    x, y = FACES[:1].double(), torch.tensor([1])
    obs = gl.observe(net(), x, y)
    rng = torch.Generator().manual_seed(0)
    update = {
        n: u + 1e-4 * u.std() * torch.randn(u.shape, generator=rng, dtype=u.dtype)
        for n, u in obs.update.items()
    }
    noisy = dataclasses.replace(obs, update=update)
    all_of_them = float((bias()(noisy).x - x).abs().mean())
    names = list(update)
    w, b = update[names[0]], update[names[1]]
    live = b.abs() > 1e-9
    singles = (w[live] / b[live, None] - x.reshape(-1)).abs().mean(1)
    assert all_of_them < 1.05 * float(singles.min())


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_weight_decay_is_taken_off_when_it_is_known(decay):
    x, y = FACES[:1].double(), torch.tensor([2])
    obs = gl.observe(net(), x, y)
    decayed = dataclasses.replace(obs, update={n: u + decay * obs.params[n] for n, u in obs.update.items()})
    assert float(gl.metrics.psnr(bias(weight_decay=decay)(decayed).x, x)) > 200
    assert float(gl.metrics.psnr(bias()(decayed).x, x)) < 100


@pytest.mark.parametrize("b", [2, 3, 5])
def test_a_batch_shows_its_size_and_comes_back_as_one_mixture(b):
    x, y = FACES[:b].double(), torch.arange(b)
    found = bias()(gl.observe(net(), x, y))
    assert found.outcome is gl.Outcome.STALLED
    assert f"rank {b}" in found.reason
    # A weighted mean whose weights sum to 1: it lies in the pictures' affine hull.
    flat, mixture = x.flatten(1), found.x[0].flatten()
    weights = torch.linalg.lstsq((flat[1:] - flat[0]).T, (mixture - flat[0])[:, None])
    assert float((flat[0] + (flat[1:] - flat[0]).T @ weights.solution[:, 0] - mixture).norm()) < 1e-8
    assert torch.equal(found.x[0], found.x[-1])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 6, bias=False)), "no bias"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 6)), "Conv2d"),
        (nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(64, 6)), "Sigmoid"),
    ],
)
def test_without_a_biased_first_layer_it_is_not_applicable(model, says):
    found = bias()(gl.observe(model, FACES[:1], torch.tensor([0])))
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert says in found.reason


def test_what_comes_after_the_first_layer_does_not_matter():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(64, 20), nn.Linear(20, 20), nn.Linear(20, 6)

        def forward(self, x):
            h = self.first(x.flatten(1)).relu()
            return self.last(h + self.second(h).tanh())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Skips().double()
    x = FACES[3:4].double()
    found = bias()(gl.observe(model, x, torch.tensor([4])))
    assert float(gl.metrics.psnr(found.x, x)) > 200
    assert (found.outcome, found.y.tolist()) == (gl.Outcome.CONVERGED, [4])


def test_a_dead_first_layer_gives_nothing_away():
    obs = gl.observe(net(), FACES[:1].double(), torch.tensor([0]))
    names = list(obs.update)
    dead = dataclasses.replace(
        obs, update={n: torch.zeros_like(u) if n in names[:2] else u for n, u in obs.update.items()}
    )
    found = bias()(dead)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "active" in found.reason


def test_weight_decay_does_not_spare_the_certificate():
    # Two records that are said to be one, behind a single neuron: rank 1, and yet no record's picture.
    for seed in range(6):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid(), nn.Linear(1, 4)).double()
            x = torch.rand(2, 6, dtype=torch.float64)
        two = gl.observe(model, x, torch.tensor([1, 3]))
        update = {n: u + 0.01 * two.params[n] for n, u in two.update.items()}
        said = dataclasses.replace(two, x_shape=(1, 6), update=update)
        assert bias(weight_decay=0.01)(said).outcome is not gl.Outcome.CONVERGED


def test_a_layer_that_reads_many_positions_is_not_applicable():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    found = bias()(gl.observe(model, torch.rand(1, 3, 6), torch.tensor([1])))
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "positions" in found.reason
