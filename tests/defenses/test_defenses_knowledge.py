"""What an attacker knows of a defended update: the dice that it shows, and how far the rest may be off."""

from dataclasses import replace

import pytest
import torch
from defended import DRAWS, STRONG, batch, equal, flat, network, plain, task_of, thrown, whitened

import gradleak as gl
from gradleak.defenses import (
    DPSGD,
    Clip,
    Dropout,
    GaussianNoise,
    LaplaceNoise,
    LowPrecision,
    Mask,
    Prune,
    Sign,
    Soteria,
    Withhold,
)
from gradleak.observe.uncertainty import told, uncertainty


@pytest.mark.parametrize("name", STRONG)
def test_dice_are_the_seeds_and_nothing_elses(name):
    model = network()
    state = torch.random.get_rng_state()
    one = thrown(STRONG[name], seed=1, model=model)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)  # the global generator is now elsewhere
    assert equal(thrown(STRONG[name], seed=1, model=model), one)
    assert equal(thrown(STRONG[name], seed=2, model=model), one) == (name not in DRAWS)


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("way", ["told", "undrawn"])
def test_vmap_runs_what_an_attacker_simulates(name, way):
    task, params = task_of(network())
    x, y = batch(3)
    client = STRONG[name]
    if way == "told":
        client = told(client, params, thrown(client), 3)
    points = torch.stack([x, 1 - x])

    def squared(x):
        return sum(leaf.square().sum() for leaf in client(task, params, x, y).values())

    slopes = torch.func.vmap(torch.func.grad(squared))(points)
    for point, slope in zip(points, slopes, strict=True):
        leaf = point.clone().requires_grad_()
        plainly = replace(task, transformed=False)
        value = sum(part.square().sum() for part in client(plainly, params, leaf, y).values())
        torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], slope)
        assert bool(slope.any())


@pytest.mark.parametrize("name", ["mask", "mask rescaled", "prune", "prune by layer", "soteria", "withhold"])
def test_an_attacker_who_has_looked_sends_the_same_from_the_same_batch(name):
    for n in (1, 3):
        assert float(whitened(STRONG[name], n, seed=1, hidden=12).abs().max()) == 0


def test_entries_that_were_dropped_are_unseen():
    for name in ("mask", "prune", "soteria", "withhold"):
        x, y = batch(3)
        seen = gl.observe(network(), x, y, client=STRONG[name])
        unseen = flat(seen.uncertainty).isinf()
        assert torch.equal(unseen, flat(dict(seen.update)) == 0)
        assert bool(unseen.any())


def test_dropouts_mask_is_read_off_one_record():
    _, params = task_of(network())
    client = Dropout(rate=0.4)
    sent = thrown(client, 1)
    mask = told(client, params, sent, 1).mask
    assert set((mask * 0.6).round(decimals=12).tolist()) == {0.0, 1.0}
    assert torch.equal(mask == 0, (sent["3.weight"] == 0).all(0))
    assert float(whitened(client, 1, seed=1, hidden=12).abs().max()) == 0


def test_of_a_batch_only_what_all_dropped_is_seen():
    _, params = task_of(network())
    client = Dropout(rate=0.6)
    sent = thrown(client, 2)
    mask = told(client, params, sent, 2).mask
    gone = (sent["3.weight"] == 0).all(0)
    assert 0 < int(gone.sum()) < 12
    assert torch.equal(mask == 0, gone)
    # Of the masks of two records, given that one kept it: (1/2) * 2 * 0.4 / (1 - 0.36) / 0.4.
    assert mask[~gone].tolist() == pytest.approx([1 / (1 - 0.36)] * int((~gone).sum()))


def test_a_classifier_that_was_not_sent_shows_no_mask():
    client = Withhold(Dropout(rate=0.4), layers=("3",))
    _, params = task_of(network())
    inner = told(client, params, thrown(client, 1), 1).client
    assert torch.equal(inner.mask, torch.ones(12, dtype=torch.float64))


def test_behind_noise_no_dice_are_seen():
    _, params = task_of(network())
    for inner in (Mask(rate=0.4), Dropout(rate=0.4), Prune(fraction=0.4), Soteria(fraction=0.25)):
        for client in (GaussianNoise(inner, std=0.1), LaplaceNoise(inner, scale=0.1)):
            assert told(client, params, thrown(client), 3) is client
            assert bool(flat(uncertainty(client, params, thrown(client), 3)).isfinite().all())
        silent = GaussianNoise(inner, std=0.0)
        shown = told(silent, params, thrown(silent, 1), 1)
        assert shown.client != inner or vars(shown.client) != vars(inner)


CALIBRATED = {
    "gaussian": (GaussianNoise(std=1e-2), 0.05),
    "laplace": (LaplaceNoise(scale=1e-2), 0.05),
    "fp16": (LowPrecision(format="fp16"), 0.06),
    "bf16": (LowPrecision(format="bf16"), 0.06),
    "fp16 by chance": (LowPrecision(format="fp16", stochastic=True), 0.06),
    "bf16 by chance": (LowPrecision(format="bf16", stochastic=True), 0.06),
    "dpsgd": (DPSGD(clip=0.1, noise_multiplier=0.5), 0.05),
    "noise on clipped": (GaussianNoise(Clip(norm=0.1), std=1e-3), 0.05),
    "noise on masked": (GaussianNoise(Mask(rate=0.3, rescaled=True), std=1e-6), 0.2),
    "noise on noise": (GaussianNoise(LaplaceNoise(scale=1e-2), std=1e-2), 0.05),
    "rounded noise": (LowPrecision(GaussianNoise(std=1e-3), format="bf16"), 0.06),
    "masked noise": (Mask(GaussianNoise(std=1e-3), rate=0.3, rescaled=True), 0.05),
    "noise on soteria": (GaussianNoise(Soteria(fraction=0.25), std=1e-3), 0.05),
    "sum of noisy": (gl.Summed(3, GaussianNoise(std=1e-2)), 0.05),
}


@pytest.mark.parametrize("name", CALIBRATED)
def test_the_deviation_is_that_of_the_truth(name):
    client, tolerance = CALIBRATED[name]
    squares = [float(whitened(client, 3, seed=seed).square().mean()) for seed in range(3)]
    assert sum(squares) / 3 == pytest.approx(1, abs=tolerance)


def test_int8_is_off_by_its_step_where_entries_are_larger_than_that():
    leaf = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    client = LowPrecision(format="int8", stochastic=True)
    sent = client.sent({"w": leaf}, torch.Generator().manual_seed(1))
    deviation = uncertainty(client, {"w": leaf}, sent, 1)["w"]
    assert float(((sent["w"] - leaf) / deviation).square().mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "client",
    [
        Sign(),
        Dropout(rate=0.4),
        Dropout(gl.LocalSGD(3, 1, 0.1), rate=0.4),
        STRONG["mixup"],
        Clip(GaussianNoise(std=0.1), norm=0.1),
        gl.Summed(3, Dropout(rate=0.4)),
        gl.Summed(3, LowPrecision(format="bf16")),
    ],
    ids=repr,
)
def test_rough_deviations_are_of_the_right_size(client):
    squares = [float(whitened(client, 3, seed=seed).square().mean()) for seed in range(8)]
    assert 1 / 9 < sum(squares) / 8 < 9  # deviations within a factor of three


def test_signs_are_even_steps_of_normal_entries():
    leaf = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    client = Sign()
    expected = client.expected({"w": leaf})["w"]
    deviation = uncertainty(client, {"w": leaf}, {"w": leaf.sign()}, 1)["w"]
    assert float(((leaf.sign() - expected) / deviation).square().mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(client.expected({"w": torch.zeros(3)})["w"], torch.zeros(3))


def test_signs_tell_no_gradient():
    x, y = batch(2)
    assert gl.observe(network(), x, y, client=Sign()).gradient is None
    clipped = gl.observe(network(), x, y, client=Clip(norm=0.1))
    assert equal(dict(clipped.gradient), dict(clipped.update))


def test_masks_are_learnt_with_the_pictures():
    """At the true pictures, the masks that are learnt explain the update, and those of the mean do not."""
    x, y = batch(2)
    client = Dropout(rate=0.4)
    seen = gl.observe(network(), x, y, client=client, rng=3, reveal=("labels",))
    learnt = client.learnt(seen)
    unknowns = learnt.start(2, torch.Generator().manual_seed(0)).requires_grad_()
    assert unknowns.shape == (24,)
    optimizer = torch.optim.Adam([unknowns], lr=0.05)
    off = []
    for step in range(400):
        settled, penalty = learnt.settled(unknowns, torch.tensor(step / 400))
        client_now = told(settled, seen.params, seen.update, 2)
        sent = client_now(seen.task, seen.params, x, y)
        mismatch = sum((leaf - seen.update[name]).square().sum() for name, leaf in sent.items())
        optimizer.zero_grad()
        (mismatch + 1e-3 * penalty).backward()
        optimizer.step()
        off.append(float(mismatch.detach()))
    assert off[-1] < 1e-3 * off[0]
    kept = learnt.kept(unknowns.detach(), torch.tensor(1.0))
    assert float(kept.mean()) == pytest.approx(0.6, abs=0.15)
    hidden = (seen.update["3.weight"] == 0).all(0)
    assert not bool(kept[:, hidden].any())


def test_the_penalty_of_learnt_masks_is_zero_where_the_right_share_is_kept():
    x, y = batch(2)
    client = Dropout(rate=0.4)
    seen = gl.observe(network(), x, y, client=client)
    learnt = replace(client.learnt(seen), seen=None)
    level = torch.full((24,), float(torch.tensor(0.6).logit()) / learnt.scale, dtype=torch.float64)
    assert float(learnt.settled(level, torch.tensor(0.0))[1]) == pytest.approx(0, abs=1e-12)
    assert float(learnt.settled(level * 0, torch.tensor(0.0))[1]) == pytest.approx(0.01)


def test_an_attack_runs_with_masks_that_it_learns():
    x, y = batch(2)
    client = Dropout(rate=0.4, layer="1")
    seen = gl.observe(network(), x, y, client=client, rng=3, reveal=("labels",))
    open_seen = replace(seen, client=client.learnt(seen))
    found = gl.attacks.inverting_gradients(steps=5)(open_seen, rng=0)
    assert found.x.shape == x.shape
    with pytest.raises(gl.errors.InvalidInput, match="one gradient"):
        Dropout(gl.LocalSGD(3, 1, 0.1), rate=0.4).learnt(seen)


def test_a_told_client_sends_the_plain_update_where_no_dice_are_left():
    task, params = task_of(network())
    x, y = batch(3)
    assert equal(Clip(GaussianNoise(std=1.0), norm=1e6)(task, params, x, y), plain())
