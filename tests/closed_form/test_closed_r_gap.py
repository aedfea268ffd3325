import dataclasses

import pytest
import torch
from published_r_gap import recurse
from torch import nn

import gradleak as gl
from gradleak.attacks.closed_form.r_gap import r_gap

PHOTOS, _ = gl.zoo.pictures("photos", size=8, n=12)


def small_net(seed, classes=1, bias=False, act=None):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=bias),
            act or nn.LeakyReLU(0.2),
            nn.Conv2d(12, 12, 3, 1, 1, bias=bias),
            act or nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(12 * 16, classes, bias=bias),
        ).double()


def seen(i, model, classes, dtype=torch.float64, **more):
    x = PHOTOS[i : i + 1].to(dtype)
    loss = gl.logistic if classes == 1 else None
    y = torch.tensor([i % max(classes, 2)])
    return x, y, gl.observe(model.to(dtype), x, y, loss=loss, **more)


@pytest.mark.parametrize("i", range(6))
@pytest.mark.parametrize(("classes", "bias"), [(1, False), (1, True), (5, False), (5, True), (2, True)])
def test_pictures_and_labels_come_back_exactly(i, classes, bias):
    x, y, obs = seen(i, small_net(i, classes, bias), classes)
    found = r_gap()(obs)
    assert found.outcome is gl.Outcome.CONVERGED
    assert float(gl.metrics.psnr(found.x, x)) > 100
    assert found.y.tolist() == y.tolist()
    assert found.cost.matching_gradients <= 4


@pytest.mark.parametrize(
    "act", [nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.Softplus()], ids=lambda a: type(a).__name__
)
def test_other_invertible_activations_do_as_well(act):
    x, y, obs = seen(1, small_net(1, 5, True, act), 5)
    found = r_gap()(obs)
    assert float(gl.metrics.psnr(found.x, x)) > 80
    assert (found.outcome, found.y.tolist()) == (gl.Outcome.CONVERGED, y.tolist())


def test_it_is_the_published_recursion_to_rounding():
    x, y, obs = seen(2, small_net(2), 1)
    model = small_net(2)
    shapes, value = [], x
    for layer in model:
        shapes.append(value.shape[1:])
        value = layer(value).detach()
    features = x
    for layer in list(model)[:-1]:
        features = layer(features)
    z = model[-1](features)
    delta = (z.sigmoid() - y).detach()[0]
    gradients = {i: obs.update.get(f"{i}.weight") for i in range(len(model))}
    slow = recurse(model, gradients, shapes, features.detach()[0], delta)
    torch.testing.assert_close(slow, x[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(r_gap()(obs).x[0], slow, rtol=0, atol=1e-6)


def test_float32_gradients_cost_digits_and_no_more():
    x, _, obs = seen(3, small_net(3, 5, True), 5, torch.float32)
    found = r_gap()(obs)
    assert found.x.dtype is torch.float32
    assert float(gl.metrics.psnr(found.x, x)) > 60
    assert found.outcome is gl.Outcome.CONVERGED


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda obs: dataclasses.replace(obs, x_shape=(2, *obs.x_shape[1:])), "one record"),
        (lambda obs: dataclasses.replace(obs, loss=nn.functional.mse_loss), "mse_loss"),
        (lambda obs: dataclasses.replace(obs, client=lambda *a: None), "one gradient"),
    ],
)
def test_where_the_equations_are_others_it_says_so(change, says):
    _, _, obs = seen(0, small_net(0, 5, True), 5)
    found = r_gap()(change(obs))
    assert (found.outcome, found.x) == (gl.Outcome.NOT_APPLICABLE, None)
    assert says in found.reason


def test_a_branch_is_named():
    obs = gl.observe(
        gl.zoo.resnet(depth=8, width=4, classes=5, size=8).double(), PHOTOS[:1].double(), torch.tensor([1])
    )
    found = r_gap()(obs)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "stage" in found.reason


@pytest.mark.parametrize("noise", [1e-3, 1e-1, 1.0])
@pytest.mark.parametrize("i", range(4))
def test_a_disturbed_update_is_never_called_converged(noise, i):
    _, _, obs = seen(i, small_net(i, 5, True), 5)
    rng = torch.Generator().manual_seed(i)
    update = {
        n: u + noise * u.std() * torch.randn(u.shape, generator=rng, dtype=u.dtype)
        for n, u in obs.update.items()
    }
    found = r_gap()(dataclasses.replace(obs, update=update))
    assert found.outcome is not gl.Outcome.CONVERGED
    assert found.reason


def test_known_labels_rule_readings_out():
    x, y, obs = seen(1, small_net(1), 1, reveal=("labels",))
    found = r_gap()(obs)
    assert found.y.tolist() == y.tolist()
    assert float(gl.metrics.psnr(found.x, x)) > 100
    wrong = dataclasses.replace(obs, labels=1 - y)
    assert r_gap()(wrong).outcome is not gl.Outcome.CONVERGED


def narrow_net(seed, act, width):
    """The second convolution alone leaves its input open: it has too few channels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, 1, 1),
            act,
            nn.Conv2d(12, width, 3, 2, 1),
            act,
            nn.Flatten(),
            nn.Linear(width * 16, 10),
        ).double()


@pytest.mark.parametrize(("act", "width"), [(nn.Sigmoid(), 4), (nn.Sigmoid(), 6), (nn.Tanh(), 6)])
def test_virtual_constraints_close_what_a_layer_alone_leaves_open(act, width, monkeypatch):
    x, y, obs = seen(4, narrow_net(4, act, width), 10)
    found = r_gap()(obs)
    assert (found.outcome, found.y.tolist()) == (gl.Outcome.CONVERGED, y.tolist())
    assert float(gl.metrics.psnr(found.x, x)) > 90
    monkeypatch.setattr("gradleak.attacks.closed_form.recursion._can_be_joined", lambda below: False)
    alone = r_gap()(obs)
    assert alone.outcome is not gl.Outcome.CONVERGED


def test_a_deficit_that_nothing_closes_is_not_called_converged():
    # LeakyReLU's kinks can keep the joint solve from its goal; then the certificate has to say so.
    for i in range(4):
        x, _, obs = seen(i, narrow_net(i, nn.LeakyReLU(0.2), 3), 10)
        found = r_gap()(obs)
        near = found.x is not None and float(gl.metrics.psnr(found.x, x)) > 60
        assert near or found.outcome is not gl.Outcome.CONVERGED


def test_a_scaled_twin_is_told_apart_by_the_range_of_pixels_and_said_where_it_is_not():
    # Without biases, a picture and its scaled copy give one and the same gradient at two roots of the head.
    model = small_net(5)
    x = PHOTOS[5:6].double()
    features = x
    for layer in list(model)[:-1]:
        features = layer(features)
    with torch.no_grad():
        model[-1].weight *= 2.5 / float(model[-1](features))  # a margin beyond the turning point
    y = torch.tensor([1])
    found = r_gap()(gl.observe(model, x, y, loss=gl.logistic))
    dimmer = r_gap()(gl.observe(model, x * 0.2, y, loss=gl.logistic))
    assert float(gl.metrics.psnr(found.x, x)) > 60
    assert found.outcome in (gl.Outcome.CONVERGED, gl.Outcome.STALLED)
    assert dimmer.outcome is gl.Outcome.STALLED or float(gl.metrics.psnr(dimmer.x, x * 0.2)) > 60


@pytest.mark.parametrize("seed", range(6))
def test_a_joint_solve_that_leaves_dimensions_open_says_so(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)
        ).double()
        x = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    found = r_gap()(gl.observe(model, x, torch.tensor([1])))
    right = found.x is not None and float(gl.metrics.psnr(found.x, x)) > 60
    assert right or found.outcome is not gl.Outcome.CONVERGED
    assert "open" in found.reason or found.outcome is gl.Outcome.CONVERGED or found.x is None


@pytest.mark.parametrize("seed", range(6))
def test_of_a_picture_and_its_negative_neither_is_called_converged_where_both_are_pictures(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(9, 2, bias=False)).double()
        pixels = torch.rand(1, 9, dtype=torch.float64)
    obs = gl.observe(model, (pixels - 0.5) / 0.25, torch.tensor([1]), normalization=([0.5], [0.25]))
    found = r_gap()(obs)
    right = float(gl.metrics.psnr(obs.domain.to_pixels(found.x), pixels)) > 60
    assert right or found.outcome is not gl.Outcome.CONVERGED


def test_a_small_layer_that_is_not_explained_keeps_the_certificate_from_holding():
    _, _, obs = seen(2, small_net(2, 5, True), 5)
    first = next(iter(obs.update))
    zeroed = {n: torch.zeros_like(u) if n == first else u for n, u in obs.update.items()}
    assert r_gap()(dataclasses.replace(obs, update=zeroed)).outcome is not gl.Outcome.CONVERGED
