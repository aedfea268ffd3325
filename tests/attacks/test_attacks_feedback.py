import dataclasses

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import feedback_blending
from gradleak.attacks.matching import Given
from gradleak.errors import InvalidInput
from gradleak.randomness import spawn

FACES, _ = gl.zoo.pictures("faces", size=8, n=12, channels=1)
BASE = gl.attacks.idlg(init="gaussian", evaluations=150, tolerance=1e-6)


def net(seed: int) -> nn.Sequential:
    return gl.zoo.mlp(sizes=(64, 24), classes=6, activation="sigmoid", seed=seed)


def seen(i: int, **told) -> gl.Observation:
    return gl.observe(net(i), FACES[i : i + 1], torch.tensor([i % 6]), **told)


def noisy(obs: gl.Observation) -> gl.Observation:
    """Its label can be read off and its picture cannot be found, so that the attack on it must fail."""
    rng = torch.Generator().manual_seed(0)
    update = dict(obs.update)
    hidden = update["linear1.weight"]
    update["linear1.weight"] = hidden.std() * torch.randn(hidden.shape, generator=rng)
    return dataclasses.replace(obs, update=update)


STREAM = [seen(i) for i in range(7)]
BROKEN = [*STREAM[:4], noisy(STREAM[4]), *STREAM[5:]]


def same(one, other) -> bool:
    return torch.equal(one.x, other.x) and (one.score, one.history) == (other.score, other.history)


def twin(stream, alpha: float, gate: bool, warmup: int, limit: float):
    """The moving average written out as a sum over all that went in, with starts that are handed over."""
    went_in, successes, starts = [], 0, []
    for obs, own in zip(stream, spawn(3, len(stream)), strict=True):
        start = None
        if successes >= warmup:
            weights = [(1 - alpha) * alpha ** (len(went_in) - 1 - k) for k in range(len(went_in))]
            weights[0] = alpha ** (len(went_in) - 1)
            start = sum(w * x for w, x in zip(weights, went_in, strict=True))
        starts.append(start)
        attack = BASE if start is None else dataclasses.replace(BASE, init=Given(start))
        found = attack(obs, rng=own)
        if start is None:
            successes += found.score <= limit
        if found.score <= limit or (start is not None and not gate):
            went_in.append(obs.domain.to_pixels(found.x).double())
        yield found, starts[-1]


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_start_is_the_moving_average_of_what_was_recovered(alpha, gate):
    attack = feedback_blending(BASE, alpha=alpha, gate=gate, warmup=2)
    slow = list(twin(BROKEN, alpha, gate, 2, BASE.tolerance))
    for found, (expected, start) in zip(attack.over(BROKEN, rng=3), slow, strict=True):
        assert bool(found.decisions) is (start is not None)
        torch.testing.assert_close(found.x, expected.x, rtol=1e-3, atol=1e-3)
    assert sum(start is not None for _, start in slow) == 5


def test_a_warm_up_that_never_ends_is_the_base_attack():
    alone = [BASE(obs, rng=own) for obs, own in zip(STREAM, spawn(0, 7), strict=True)]
    never = list(feedback_blending(BASE, warmup=8).over(STREAM))
    early = list(feedback_blending(BASE, warmup=3).over(STREAM))
    assert all(map(same, alone, never))
    assert all(map(same, alone[:3], early[:3]))
    assert not any(map(same, alone[3:], early[3:]))
    nothing_succeeds = list(feedback_blending(BASE, threshold=0.0).over(STREAM))
    assert all(map(same, alone, nothing_succeeds))


def test_blending_saves_matching_gradients_where_pictures_are_alike():
    alone = list(feedback_blending(BASE, warmup=100).over(STREAM))
    blended = list(feedback_blending(BASE).over(STREAM))
    spent = [sum(one.cost.matching_gradients for one in each[3:]) for each in (alone, blended)]
    assert spent[1] < 0.9 * spent[0]
    for i in range(3, 7):
        assert float(gl.metrics.psnr(blended[i].x, FACES[i : i + 1])) > 30


def test_the_gate_keeps_a_failure_out_of_the_blend():
    gated = list(feedback_blending(BASE).over(BROKEN))
    open_ = list(feedback_blending(BASE, gate=False).over(BROKEN))
    assert gated[4].score > BASE.tolerance
    assert all(map(same, gated[:5], open_[:5]))
    assert not same(gated[5], open_[5])
    whole = [list(feedback_blending(BASE, gate=gate).over(STREAM)) for gate in (True, False)]
    assert all(map(same, *whole))


def test_a_failure_in_the_warm_up_is_never_blended():
    late = [noisy(STREAM[0]), *STREAM[1:]]
    found = list(feedback_blending(BASE, gate=False).over(late))
    assert [bool(one.decisions) for one in found] == [False] * 4 + [True] * 3
    assert "3 reconstructions" in found[4].decisions[0]


def test_one_stream_knows_nothing_of_another():
    attack = feedback_blending(BASE, warmup=1)
    before = torch.get_rng_state()
    first = list(attack.over(STREAM[:3]))
    one, other = attack.over(STREAM[:3]), attack.over(reversed(STREAM))
    between = [(next(one), next(other))[0] for _ in range(3)]
    assert all(map(same, first, between))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_is_attacked_as_it_comes():
    asked = []

    def coming():
        for i, obs in enumerate(STREAM):
            asked.append(i)
            yield obs

    stream = feedback_blending(BASE).over(coming())
    assert asked == []
    next(stream)
    assert asked == [0]


def test_for_one_observation_it_is_the_base_attack():
    attack = feedback_blending(BASE)
    *_, last = attack.iterate(STREAM[0], rng=4)
    assert same(attack(STREAM[0], rng=4), BASE(STREAM[0], rng=4))
    assert same(last, BASE(STREAM[0], rng=4))
    assert attack.budget == BASE.budget
    assert set(BASE.citations) <= set(attack.citations)


def test_the_blend_is_of_pixels_whatever_each_client_normalises_by():
    """The second client shows the same picture and sees it otherwise: the blend is there already."""
    x = (FACES[:1] - 0.5) / 0.25
    shifted = gl.observe(net(1), x, torch.tensor([0]), normalization=((0.5,), (0.25,)))
    first, second = feedback_blending(BASE, warmup=1).over([STREAM[0], shifted])
    start = shifted.domain.from_pixels(first.x)
    assert float((start - x).abs().max()) < 0.1
    assert second.history[0][1] < 1e-3 < BASE(shifted).history[0][1]


@pytest.mark.parametrize(
    "told",
    [{"alpha": 1.5}, {"alpha": float("nan")}, {"alpha": True}, {"warmup": 0}, {"threshold": -1.0}],
)
def test_settings_that_mean_nothing_are_refused(told):
    with pytest.raises(InvalidInput):
        feedback_blending(BASE, **told)


def test_what_has_no_start_is_refused():
    with pytest.raises(InvalidInput, match="has a start"):
        feedback_blending(gl.attacks.bias())


def test_it_cites_its_paper_beside_its_base():
    said = gl.cite(feedback_blending(BASE))
    assert "Zhao, Bo" in said
    assert "2409.17767" in said
