import dataclasses

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.closed_form.batch.attack import ExactBatch, Spear

FACES, _ = gl.zoo.pictures("faces", size=8, n=60, channels=1)
PHOTOS, _ = gl.zoo.pictures("photos", n=60)
QUICK = ExactBatch()


def drawn(b, seed, classes=10, pool=FACES, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    x = pool[torch.randperm(len(pool), generator=rng)[:b]].to(dtype)
    return x, torch.randint(classes, (b,), generator=rng)


def seen(
    b, seed=0, *, sizes=(64, 96, 80), classes=10, activation="relu", dtype=torch.float64, pool=FACES, **kw
):
    net = gl.zoo.mlp(classes, sizes=sizes, activation=activation, seed=seed).to(dtype)
    x, y = drawn(b, seed, classes, pool, dtype)
    return x, y, gl.observe(net, x, y, **kw)


def worst(found, x, y):
    """PSNR of the worst picture after pairing; -inf where a label is wrong."""
    if found.x is None:
        return float("-inf")
    order = gl.metrics.pair(found.x, x)
    right = torch.equal(found.y[order], y)
    return float(gl.metrics.psnr(found.x[order], x).min()) if right else float("-inf")


@pytest.mark.parametrize(
    ("activation", "b"),
    [(a, b) for a in ("relu", "leaky_relu", "sigmoid", "tanh") for b in (1, 2, 4)]
    + [("relu", 6), ("relu", 9)],
)
def test_small_networks_are_solved_exactly_in_float64(activation, b):
    x, y, obs = seen(b, 3, activation=activation)
    found = QUICK(obs, rng=0)
    assert found.outcome is gl.Outcome.CONVERGED, found
    assert worst(found, x, y) > 120
    assert found.x.shape == x.shape


@pytest.mark.parametrize(("b", "labels"), [(8, None), (4, [3, 3, 3, 3]), (4, [1, 1, 5, 5])])
def test_float32_gradients_of_photographs_with_repeated_labels(b, labels):
    for seed in range(2):
        net = gl.zoo.mlp(sizes=(3072, 256, 256), seed=seed)
        x, y = drawn(b, seed, pool=PHOTOS, dtype=torch.float32)
        y = y if labels is None else torch.tensor(labels)
        found = QUICK(gl.observe(net, x, y), rng=0)
        assert found.outcome is gl.Outcome.CONVERGED, found
        assert worst(found, x, y) > 60
        assert found.x.dtype is torch.float32


def test_known_labels_come_back_in_their_order():
    x, y, obs = seen(5, 2, reveal=("labels",))
    found = QUICK(obs, rng=0)
    assert torch.equal(found.y, y)
    assert worst(found, x, y) > 120
    for label in y.unique():  # records of one label may be in any order
        mine = y == label
        assert worst(dataclasses.replace(found, x=found.x[mine], y=found.y[mine]), x[mine], y[mine]) > 120


@pytest.fixture(scope="module")
def digits():
    """A network that has learnt to tell digits apart, and digits that it has not seen."""
    datasets = pytest.importorskip("sklearn.datasets")
    raw = datasets.load_digits()
    x, y = torch.tensor(raw.images / 16).float()[:, None], torch.tensor(raw.target)
    rng = torch.Generator().manual_seed(5)
    order = torch.randperm(len(x), generator=rng)
    x, y = x[order], y[order]
    net = gl.zoo.mlp(10, 1, 8, sizes=(64, 128, 128), seed=5)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(30):
        for i in torch.randperm(1200, generator=rng).split(64):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x[i]), y[i]).backward()
            adam.step()
        accuracy = float((net(x[1200:]).argmax(1) == y[1200:]).float().mean())
        if accuracy >= 0.9:
            break
    assert 0.9 <= accuracy < 0.95
    return net, x[1200:], y[1200:]


def test_batches_of_four_of_a_trained_network_in_float32(digits):
    net, x, y = digits
    solved = 0
    for seed in range(20):
        i = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:4]
        found = QUICK(gl.observe(net, x[i], y[i]), rng=0)
        good = worst(found, x[i], y[i]) > 60
        assert good or found.outcome is not gl.Outcome.CONVERGED
        solved += good
    assert solved >= 19


def test_the_certificate_means_success():
    """Clean, noisy and tampered gradients of all kinds: nothing converges that is not the batch."""
    outcomes = {True: 0, False: 0}
    for seed in range(30):
        b = 1 + seed % 5
        x, y, obs = seen(b, seed, sizes=(64, 40), classes=7, dtype=(torch.float32, torch.float64)[seed % 2])
        rng = torch.Generator().manual_seed(seed)
        level = (0.0, 1e-8, 1e-5, 1e-3, 1e-1)[(seed // 2) % 5]
        noisy = {
            n: g + level * g.square().mean().sqrt() * torch.randn(g.shape, generator=rng).to(g)
            for n, g in obs.update.items()
        }
        found = ExactBatch()(dataclasses.replace(obs, update=noisy), rng=0)
        success = worst(found, x, y) > 40
        if found.outcome is gl.Outcome.CONVERGED:
            assert success, (seed, level, found)
        else:
            assert found.reason
        if level == 0:
            assert found.outcome is gl.Outcome.CONVERGED, (seed, found)
        outcomes[found.outcome is gl.Outcome.CONVERGED] += 1
    assert min(outcomes.values()) >= 8  # both sides were tried


@pytest.mark.parametrize("said", [2, 4])
def test_a_wrong_batch_size_is_noticed(said):
    _, _, obs = seen(3, 1)
    found = QUICK(dataclasses.replace(obs, x_shape=(said, 1, 8, 8)), rng=0)
    assert found.outcome is gl.Outcome.STALLED
    assert "another size" in found.reason


def test_equal_pictures_cannot_be_told_apart_and_that_is_said():
    net = gl.zoo.mlp(10, sizes=(64, 40), seed=0).double()
    x = FACES[:1].double().repeat(3, 1, 1, 1)
    for attack in (QUICK, Spear()):
        found = attack(gl.observe(net, x, torch.tensor([1, 1, 4])), rng=0)
        assert found.outcome is gl.Outcome.STALLED
        assert "of 3 records" in found.reason


def test_a_layer_with_too_few_living_units_is_named():
    net = gl.zoo.mlp(10, sizes=(64, 40, 30), seed=0).double()
    with torch.no_grad():
        net.linear1.bias[:2] = 3.0
        net.linear1.bias[2:] = -50.0  # two units are left for three records
    x, y = drawn(3, 0)
    found = QUICK(gl.observe(net, x, y), rng=0)
    assert found.outcome is gl.Outcome.STALLED
    assert "linear" in found.reason


def refused(attack, obs):
    found = attack(obs, rng=0)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert found.x is None
    return found.reason


def test_what_does_not_apply_says_why():
    assert "at most 9" in refused(QUICK, seen(10)[2])
    headless = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 5, bias=False)
    ).double()
    x, y = drawn(2, 0, classes=5)
    assert "has no bias" in refused(QUICK, gl.observe(headless, x, y))
    assert "Conv2d" in refused(QUICK, gl.observe(gl.zoo.lenet(10, 1, 8), x.float(), y))
    assert "another loss" in refused(QUICK, gl.observe(headless, x, y, loss=lambda o, t: o.square().mean()))
    smooth = seen(3, activation="sigmoid")[2]
    assert "ReLU" in refused(Spear(), smooth)

    class Other:
        def __call__(self, task, params, x, y):
            return task.gradient(params, x, y)

    obs = seen(2)[2]
    assert "client" in refused(QUICK, dataclasses.replace(obs, client=Other()))
    with pytest.raises(gl.errors.InvalidInput, match="accuracy"):
        ExactBatch(accuracy=0)


def test_one_linear_layer_is_solved_on_the_pixels_themselves():
    x, y, obs = seen(4, 1, sizes=(64,))
    found = QUICK(obs, rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert worst(found, x, y) > 120


@pytest.mark.parametrize(("b", "dtype"), [(8, torch.float32), (8, torch.float64), (16, torch.float32)])
def test_spear_recovers_more_records_than_there_are_classes(b, dtype):
    x, y, obs = seen(b, 1, sizes=(3072, 512, 256), dtype=dtype, pool=PHOTOS)
    found = Spear()(obs, rng=0)
    assert found.outcome is gl.Outcome.CONVERGED, found
    assert worst(found, x, y) > 60


def noise(g, seed=0):
    return torch.randn(g.shape, generator=torch.Generator().manual_seed(seed), dtype=g.dtype)


def test_spear_does_not_claim_what_it_has_not_found():
    _, _, obs = seen(14, 1, sizes=(64, 24))  # 24 outputs are too few zeros for 14 records
    found = Spear(draws=4096, starts=128)(obs, rng=0)
    assert found.outcome is gl.Outcome.STALLED
    assert "14" in found.reason
    for level in (1e-6, 1e-3):
        _, _, obs = seen(6, 2, sizes=(64, 200))
        noisy = {n: g + level * g.std() * noise(g) for n, g in obs.update.items()}
        found = Spear(draws=8192, starts=256)(dataclasses.replace(obs, update=noisy), rng=0)
        assert found.outcome is not gl.Outcome.CONVERGED


@pytest.mark.parametrize("attack", [QUICK, Spear()])
def test_same_seed_same_batch_and_iterate_ends_there_too(attack):
    x, _y, obs = seen(4, 3, sizes=(64, 200))
    before = torch.get_rng_state()
    first, *rest = attack.iterate(obs, rng=7)
    again = attack(obs, rng=7)
    assert not rest
    # not the same bits: BLAS rounds differently when memory is aligned differently
    torch.testing.assert_close(first.x, again.x, rtol=1e-11, atol=1e-11)
    assert torch.equal(first.y, again.y)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first.x, x)  # found, not copied
