"""Defenses around defenses, and around clients that train locally or are summed."""

from dataclasses import replace

import pytest
import torch
from defended import STRONG, batch, equal, flat, network, plain, thrown

import gradleak as gl
from gradleak.defenses import Clip, Dropout, GaussianNoise, LowPrecision, Mask, Prune, Withhold


def dice_of(client, seed=1, n=3):
    """The generators that each defense of a chain throws with, outermost last."""
    drawn = client.drawn(n, torch.Generator().manual_seed(seed))
    found = []
    while isinstance(drawn, gl.defenses.Defense):
        found.append(torch.Generator().manual_seed(drawn.dice))
        drawn = drawn.client
    return found[::-1]


def test_noise_then_pruning_and_pruning_then_noise():
    def noise(leaf, rng):
        return 0.05 * torch.randn(leaf.shape, generator=rng, dtype=torch.float64)

    def prune(tree):
        entries = flat(tree).abs().sort().values
        least = entries[round(0.6 * len(entries)) - 1]
        return {name: torch.where(leaf.abs() > least, leaf, 0) for name, leaf in tree.items()}

    noisy_first = Prune(GaussianNoise(std=0.05), fraction=0.6)
    rng, _ = dice_of(noisy_first)
    assert equal(thrown(noisy_first), prune({k: g + noise(g, rng) for k, g in plain().items()}))
    pruned_first = GaussianNoise(Prune(fraction=0.6), std=0.05)
    _, rng = dice_of(pruned_first)
    assert equal(thrown(pruned_first), {k: g + noise(g, rng) for k, g in prune(plain()).items()})


def test_clip_then_mask_and_mask_then_clip():
    clipped_first = thrown(Mask(Clip(norm=0.1), rate=0.3))
    masked_first = thrown(Clip(Mask(rate=0.3), norm=0.1))
    assert float(flat(masked_first).norm()) == pytest.approx(0.1)
    assert float(flat(clipped_first).norm()) < 0.1
    kept = flat(clipped_first) != 0
    torch.testing.assert_close(flat(clipped_first)[kept], 0.1 * flat(plain())[kept] / flat(plain()).norm())


@pytest.mark.parametrize("outer", STRONG)
@pytest.mark.parametrize("inner", STRONG)
def test_every_pair_can_be_observed_and_simulated(outer, inner):
    x, y = batch(2)
    client = STRONG[outer].around(STRONG[inner])
    if outer.startswith("prune") and inner == "sign":  # all magnitudes are the same, and none is larger
        with pytest.raises(gl.errors.InvalidUpdate, match="Prune left nothing"):
            gl.observe(network(), x, y, client=client)
        return
    seen = gl.observe(network(), x, y, client=client)
    assert seen.client is client
    assert seen.simulate(x, y).keys() == seen.update.keys()
    assert all(leaf.shape == seen.update[k].shape for k, leaf in seen.uncertainty.items())
    assert not bool(flat(seen.uncertainty).isnan().any())


def test_around_local_training():
    x, y = batch(4)
    local = gl.LocalSGD(2, 2, 0.5)
    for defense in STRONG.values():
        if isinstance(defense, gl.defenses.DPSGD):
            continue
        client = defense.around(local)
        seen = gl.observe(network(), x, y, client=client)
        assert seen.steps == 4
        assert seen.simulate(x, y).keys() == seen.update.keys()
    pruned = gl.observe(network(), x, y, client=Prune(local, fraction=0.5), rng=7)
    whole = gl.observe(network(), x, y, client=replace(Prune(local, fraction=0.5), fraction=0.0), rng=7)
    kept = flat(dict(pruned.update)) != 0
    assert torch.equal(flat(dict(pruned.update))[kept], flat(dict(whole.update))[kept])
    assert torch.equal(flat(dict(pruned.gradient)), flat(dict(pruned.update)) / -(4 * 0.5))


def test_summed_clients_throw_dice_of_their_own():
    x, y = batch(3)
    client = gl.Summed(3, GaussianNoise(std=1e-2))
    seen = gl.observe(network(hidden=200), x, y, client=client)
    off = flat(dict(seen.update)) - flat(plain(3, network(hidden=200)))
    assert float(off.std()) == pytest.approx(1e-2 / 3**0.5, rel=0.05)
    assert flat(seen.uncertainty).tolist() == pytest.approx([1e-2 / 3**0.5] * len(off))


def test_a_known_order_leaves_the_other_dice_unknown():
    x, y = batch(4)
    client = GaussianNoise(gl.LocalSGD(1, 2, 0.5), std=1e-2)
    seen = gl.observe(network(), x, y, client=client, reveal=("order",))
    assert seen.client.client.knows_order
    assert seen.client.dice is None


@pytest.mark.parametrize("name", STRONG)
def test_captures_keep_the_defense_and_not_its_dice(name, tmp_path):
    x, y = batch(2)
    client = STRONG[name]
    seen = gl.observe(network(), x, y, client=gl.Summed(2, client) if name == "mask" else client)
    gl.save(seen, tmp_path / "capture")
    back = gl.load(tmp_path / "capture", network())
    assert back.client == seen.client
    assert equal(dict(back.update), dict(seen.update))
    assert equal(back.simulate(x, y), seen.simulate(x, y))
    told = replace(seen, client=client.drawn(2, torch.Generator().manual_seed(1)))
    gl.save(told, tmp_path / "drawn")
    text = (tmp_path / "drawn").read_bytes()
    assert b"dice" not in text
    assert gl.load(tmp_path / "drawn", network()).client.dice is None


def test_captures_of_nested_defenses_and_of_what_was_held_back(tmp_path):
    x, y = batch(2)
    client = LowPrecision(GaussianNoise(Clip(gl.LocalSGD(1, 2, 0.5), norm=0.1), std=1e-3), format="int8")
    gl.save(gl.observe(network(), x, y, client=client), tmp_path / "nested")
    assert gl.load(tmp_path / "nested", network()).client == client
    held = Prune(fraction=0.5, residual=plain(2))
    gl.save(gl.observe(network(), x, y, client=held), tmp_path / "held")
    assert gl.load(tmp_path / "held", network()).client.residual is None


def test_a_defense_that_the_attacker_does_not_know_of():
    x, y = batch(2)
    seen = gl.observe(network(), x, y, client=Withhold(layers="1"), assumed=gl.OneGradient())
    assert equal(seen.simulate(x, y), plain(2))
    assert bool(flat(seen.uncertainty).isfinite().all())


def test_dropout_works_where_the_model_is_one_layer():
    model = torch.nn.Linear(16, 5).double()
    x, y = batch(2)
    seen = gl.observe(model, x.flatten(1), y, client=Dropout(rate=0.5))
    assert seen.update.keys() == {"weight", "bias"}
