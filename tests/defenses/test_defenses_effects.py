"""What each defense does to an update, and that it does nothing where there is nothing to do."""

import math

import pytest
import torch
from defended import IDLE, STRONG, batch, equal, flat, network, plain, task_of, thrown
from torch import nn

import gradleak as gl
from gradleak.defenses import (
    DEFENSES,
    DPSGD,
    Clip,
    Dropout,
    LowPrecision,
    Mask,
    Mixup,
    Prune,
    Sign,
    Soteria,
    Withhold,
)


def test_the_tables_of_these_tests_leave_no_defense_out():
    assert {type(one) for one in STRONG.values()} == set(DEFENSES.values())
    assert {type(one) for one in IDLE.values()} == set(DEFENSES.values()) - {LowPrecision, Sign}


@pytest.mark.parametrize("name", IDLE)
def test_nothing_to_do_is_the_identity_to_the_bit(name):
    task, params = task_of(network())
    x, y = batch(1)
    assert equal(thrown(IDLE[name], 1), plain(1))
    assert equal(IDLE[name](task, params, x, y), plain(1))


@pytest.mark.parametrize("name", STRONG)
def test_every_defense_changes_what_goes_out(name):
    assert not equal(thrown(STRONG[name]), plain())


@pytest.mark.parametrize(("format", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_rounding_to_the_nearest_is_a_cast_there_and_back(format, dtype):
    assert equal(thrown(LowPrecision(format=format)), {k: g.to(dtype).double() for k, g in plain().items()})


@pytest.mark.parametrize("format", ["fp16", "bf16"])
def test_rounding_by_chance_goes_to_one_of_the_two_neighbours(format):
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[format]
    before, after = flat(plain()), flat(thrown(LowPrecision(format=format, stochastic=True)))
    assert torch.equal(after.to(dtype).double(), after)  # the format has it
    up = torch.nextafter(after.to(dtype), torch.tensor(math.inf, dtype=dtype)).double()
    down = torch.nextafter(after.to(dtype), torch.tensor(-math.inf, dtype=dtype)).double()
    assert bool(((down < before) & (before < up)).all())
    nearest = before.to(dtype).double()
    assert 0.1 < float((after != nearest).double().mean()) < 0.4  # a quarter, were the digits even


def test_numbers_below_the_smallest_of_a_format_are_on_its_grid_too():
    tiny = torch.tensor([3e-8, 5.0e-8, -1e-7, 6e-6, 1e-12], dtype=torch.float64)
    assert torch.equal(
        LowPrecision(format="fp16").step(tiny), torch.full((5,), 2.0**-24, dtype=torch.float64)
    )


def test_int8_has_127_steps_up_to_each_tensors_largest_magnitude():
    for name, leaf in thrown(LowPrecision(format="int8")).items():
        before = plain()[name]
        step = before.abs().max() / 127
        steps = leaf / step
        torch.testing.assert_close(steps, steps.round(), atol=1e-9, rtol=0)
        assert float((leaf - before).abs().max()) <= float(step) / 2 * (1 + 1e-9)
        assert float(steps.abs().max()) == pytest.approx(127)
    zeros = LowPrecision(format="int8").sent({"w": torch.zeros(3)}, torch.Generator())
    assert torch.equal(zeros["w"], torch.zeros(3))


def test_signs_are_all_that_is_sent():
    assert equal(thrown(Sign()), {name: leaf.sign() for name, leaf in plain().items()})


def test_clipping_keeps_the_direction_and_gives_the_length():
    before, after = flat(plain()), flat(thrown(Clip(norm=0.05)))
    assert float(after.norm()) == pytest.approx(0.05)
    torch.testing.assert_close(after / after.norm(), before / before.norm())
    for name, leaf in thrown(Clip(norm=0.05, per="layer")).items():
        assert float(leaf.norm()) == pytest.approx(min(0.05, float(plain()[name].norm())))


def test_clipping_has_a_slope_where_the_update_is_zero():
    leaf = torch.zeros(3, requires_grad=True)
    Clip(norm=1.0).expected({"w": leaf})["w"].sum().backward()
    assert torch.equal(leaf.grad, torch.ones(3))


def test_pruning_drops_the_smallest_entries():
    before, after = flat(plain()), flat(thrown(Prune(fraction=0.5)))
    dropped = round(0.5 * len(before))
    assert int((after == 0).sum()) == dropped
    assert float(before[after == 0].abs().max()) < float(before[after != 0].abs().min())
    assert torch.equal(after[after != 0], before[after != 0])


def test_pruning_by_layer_drops_the_share_of_every_tensor():
    for name, leaf in thrown(Prune(fraction=0.5, per="layer")).items():
        assert int((leaf == 0).sum()) == round(0.5 * leaf.numel())
        before = plain()[name].abs()
        assert float(before[leaf == 0].max()) < float(before[leaf != 0].min())


def test_what_was_pruned_goes_out_in_a_later_round():
    first = Prune(fraction=0.9)
    rest = first.held_back(plain())
    second = Prune(fraction=0.9, residual=rest)
    whole = {name: leaf + rest[name] for name, leaf in plain().items()}
    assert equal(thrown(first), {name: leaf - rest[name] for name, leaf in plain().items()})
    assert equal(thrown(second), first.expected(whole))
    assert equal(second.held_back(plain()), first.held_back(whole))
    with pytest.raises(gl.errors.InvalidUpdate, match="held back"):
        thrown(Prune(fraction=0.5, residual={"elsewhere": torch.zeros(3)}))


def test_what_is_withheld_is_zero_and_the_rest_as_it_was():
    for layers, gone in [
        ("1", {"1.weight", "1.bias"}),
        (("3.weight",), {"3.weight"}),
        (["1", "3.bias"], None),
    ]:
        sent = thrown(Withhold(layers=layers))
        zero = {name for name, leaf in sent.items() if not bool(leaf.any())}
        assert zero == (gone or {"1.weight", "1.bias", "3.bias"})
        assert all(torch.equal(leaf, plain()[name]) for name, leaf in sent.items() if name not in zero)


def test_dropout_trains_the_network_with_the_mask_in_front_of_the_classifier():
    """Against a network in which the mask is a layer, one record at a time."""
    task, _ = task_of(network())
    x, y = batch(1)
    sent = thrown(Dropout(rate=0.4), 1)
    gone = (sent["3.weight"] == 0).all(0)
    assert 0 < int(gone.sum()) < 12

    class Masked(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features * (~gone).double() / 0.6

    flatten, one, act, two = network()
    twin = nn.Sequential(flatten, one, act, Masked(), two)
    twin.zero_grad()
    nn.functional.cross_entropy(twin(x), y).backward()
    for ours, theirs in zip(sent.values(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)
    assert not task.model[3]._forward_pre_hooks


def test_dropout_in_front_of_another_layer_and_of_several():
    sent = thrown(Dropout(Dropout(rate=0.5), rate=0.5, layer="1"), 1)
    columns = {name: int((sent[name] == 0).all(0).sum()) for name in ("1.weight", "3.weight")}
    assert 0 < columns["1.weight"] < 16
    assert 0 < columns["3.weight"] < 12


def test_every_record_and_every_step_has_a_mask_of_its_own():
    together = thrown(Dropout(rate=0.5), 3)["3.weight"]
    assert 0 < int((together == 0).all(0).sum()) <= 5  # 1.5 of 12 by chance
    local = gl.LocalSGD(6, 1, 1.0, order="given")
    few = thrown(Dropout(local, rate=0.5), 1)["3.weight"]
    assert int((few == 0).all(0).sum()) <= 2  # 0.2 of 12: dropped six times
    # Longer local training is replayed when it is differentiated, and must find its masks.
    x, y = batch(1)
    seen = gl.observe(network(), x, y, client=Dropout(local, rate=0.5), rng=1)
    assert not equal(dict(seen.update), local(*task_of(network()), x, y))


def test_soteria_prunes_the_columns_of_the_largest_ratio():
    """Against the Jacobian of the representation, written out."""
    model = network()
    x, _ = batch(3)
    sent = thrown(Soteria(fraction=0.25), 3)
    features = model[:3]
    ratio = torch.zeros(12, dtype=torch.float64)
    for record in x:
        jacobian = torch.autograd.functional.jacobian(lambda one: features(one)[0], record[None])
        ratio += features(record[None])[0].detach().abs() / jacobian.flatten(1).norm(dim=1)
    gone = (sent["3.weight"] == 0).all(0).nonzero().flatten().tolist()
    assert sorted(gone) == sorted(ratio.topk(3).indices.tolist())
    assert all(torch.equal(sent[name], plain()[name]) for name in sent if name != "3.weight")


def test_mixup_trains_on_blends():
    task, params = task_of(network())
    x, y = batch(3)
    drawn = Mixup(alpha=1.0).drawn(3, torch.Generator().manual_seed(1))
    share, partner = drawn.blend(3)
    assert 0 < share < 1
    assert bool((partner != torch.arange(3)).all())
    assert sorted(partner.tolist()) == [0, 1, 2]
    soft = nn.functional.one_hot(y, 5).double()
    blends = [share * one + (1 - share) * one[partner] for one in (x, soft)]
    assert equal(drawn(task, params, x, y), gl.OneGradient()(task, params, *blends))
    alone = Mixup(alpha=1.0).drawn(1, torch.Generator().manual_seed(1))
    assert equal(alone(task, params, x[:1], y[:1]), plain(1))


def test_mixups_share_follows_its_law():
    """Beta(a, a) has mean 1/2 and variance 1 / 4(2a + 1)."""
    for alpha in (0.3, 1.0, 4.0):
        rng = torch.Generator().manual_seed(0)
        shares = torch.tensor([Mixup(alpha=alpha).drawn(2, rng).blend(2)[0] for _ in range(4000)])
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(shares.var()) == pytest.approx(1 / (8 * alpha + 4), rel=0.1)


def test_dpsgd_clips_every_record_before_the_mean():
    task, params = task_of(network())
    x, y = batch(3)
    sent = thrown(DPSGD(clip=0.3, noise_multiplier=0.0))
    each = [gl.OneGradient()(task, params, x[i : i + 1], y[i : i + 1]) for i in range(3)]
    lengths = [float(flat(one).norm()) for one in each]
    assert max(lengths) > 0.3
    mean = sum(flat(one) * min(1, 0.3 / length) for one, length in zip(each, lengths, strict=True)) / 3
    torch.testing.assert_close(flat(sent), mean)


def test_a_client_inside_dpsgd_throws_anew_for_each_record():
    sent = thrown(DPSGD(Dropout(rate=0.5), clip=1e6, noise_multiplier=0.0), 3)["3.weight"]
    assert int((sent == 0).all(0).sum()) <= 5


def test_a_mask_that_leaves_nothing_is_an_error_when_it_happens():
    with pytest.raises(gl.errors.InvalidUpdate, match="left nothing of the update"):
        thrown(Mask(rate=1 - 1e-12))
    with pytest.raises(gl.errors.InvalidUpdate, match="Withhold left nothing"):
        thrown(Withhold(layers=("1", "3")))
    with pytest.raises(gl.errors.InvalidInput, match="dropped all 36 features"):
        thrown(Dropout(rate=1 - 1e-12))
