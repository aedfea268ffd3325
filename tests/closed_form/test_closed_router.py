import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.closed_form.router import kinked, ssras

FACES, _ = gl.zoo.pictures("faces", size=8, n=12, channels=1)
PHOTOS, _ = gl.zoo.pictures("photos", size=8, n=12)


def tried(found):
    return [decision.split(":")[0] for decision in found.decisions]


def smooth_batch_net():
    return gl.zoo.lenet(classes=6, size=8, seed=0).double()


ROUTES = {
    "bias": (lambda: gl.zoo.mlp(sizes=(64, 40), classes=6, seed=1).double(), FACES[:1], [2], ["bias"]),
    "exact_batch": (
        lambda: gl.zoo.mlp(sizes=(64, 40), classes=6, seed=1).double(),
        FACES[:3],
        [2, 2, 5],
        ["bias", "exact_batch"],
    ),
    "r_gap": (smooth_batch_net, PHOTOS[:1], [4], ["bias", "exact_batch", "r_gap"]),
}


@pytest.mark.parametrize(("build", "x", "y", "route"), ROUTES.values(), ids=ROUTES)
def test_the_surest_attack_answers_and_those_behind_it_are_not_tried(build, x, y, route):
    x, y = x.double(), torch.tensor(y)
    found = gl.attack(gl.observe(build(), x, y), rng=0)
    order = gl.metrics.pair(found.x, x)
    assert found.outcome is gl.Outcome.CONVERGED
    assert float(gl.metrics.psnr(found.x[order], x).min()) > 60
    assert found.y[order].tolist() == y.tolist()
    assert tried(found) == route


def test_where_no_closed_form_holds_it_optimises_and_says_why():
    x, y = PHOTOS[:2].double(), torch.tensor([1, 4])
    found = ssras(evaluations=60)(gl.observe(smooth_batch_net(), x, y), rng=0)
    assert tried(found)[:4] == ["bias", "exact_batch", "r_gap", "spear"]
    assert found.decisions[4].startswith("optimisation by map, since the batch is small")
    assert found.outcome is gl.Outcome.CONVERGED
    assert float(gl.metrics.psnr(found.x[gl.metrics.pair(found.x, x)], x).min()) > 60
    alone = ssras(evaluations=60)(gl.observe(smooth_batch_net().float(), x[:1].float(), y[:1]), rng=0)
    assert alone.outcome is gl.Outcome.CONVERGED  # by the recursion
    assert "one record" in found.decisions[2]


def test_kinks_choose_the_other_optimiser():
    x, y = PHOTOS[:2], torch.tensor([1, 4])
    model = gl.zoo.convnet(width=4, size=8, seed=0)
    obs = gl.observe(model, x, y)
    assert kinked(obs)
    assert not kinked(gl.observe(nn.Sequential(nn.Flatten(), nn.Linear(192, 6)), x, y))
    found = ssras(evaluations=30)(obs, rng=0)
    assert found.decisions[4].startswith("optimisation by map, since the network has kinks")
    assert found.decisions[6].startswith("map: ")
    assert found.decisions[7].startswith("optimisation by inverting_batches, since the network has kinks")
    assert found.decisions[8].startswith("inverting_batches: ")
    assert found.x is not None


def test_where_the_head_shows_no_features_the_router_goes_on():
    x = PHOTOS[:2].repeat(3, 1, 1, 1)[:6]  # as many records as classes are too many for the head
    model = gl.zoo.convnet(classes=6, width=4, size=8, seed=0)
    found = ssras(evaluations=30)(gl.observe(model, x, torch.arange(6)), rng=0)
    assert found.decisions[8].startswith("inverting_batches: not applicable")
    assert found.decisions[9].startswith("optimisation by inverting_gradients, since the network has kinks")
    assert found.x is not None


def test_local_training_goes_to_general_deep_leakage():
    x, y = PHOTOS[:2], torch.tensor([1, 4])
    model = gl.zoo.convnet(width=8, size=8, seed=0)
    many = ssras(evaluations=30)(gl.observe(model, x, y, client=gl.LocalSGD(2, 1, 0.05)), rng=0)
    assert any(told.startswith("optimisation by gdl, since the update is local") for told in many.decisions)
    assert all("not applicable" in told for told in many.decisions[:4])
    once = ssras(evaluations=30)(gl.observe(model, x, y, client=gl.LocalSGD(1, 2, 0.05)), rng=0)
    assert not any("gdl" in told for told in once.decisions)


def test_the_router_beats_matching_alone_on_a_relu_network():
    x, y = gl.zoo.pictures("faces", size=16, n=1, channels=3)[0], torch.tensor([3])
    seen = gl.observe(gl.zoo.convnet(size=16, width=16, seed=0), x, y)
    routed, alone = ssras()(seen, rng=0), gl.attacks.inverting_gradients(steps=300)(seen, rng=0)
    ours, theirs = (float(gl.metrics.psnr(found.x, x)) for found in (routed, alone))
    assert ours > theirs + 6


def test_candidates_come_on_the_way_and_the_last_one_carries_the_decisions():
    x, y = PHOTOS[:2].double(), torch.tensor([1, 4])
    seen = gl.observe(smooth_batch_net(), x, y)
    candidates = list(ssras(evaluations=60).iterate(seen, rng=0))
    assert len(candidates) >= 3
    assert all(one.outcome is gl.Outcome.RUNNING for one in candidates[:-1])
    assert candidates[-1].decisions[-1].startswith("map: converged")


def test_the_score_is_what_the_answer_leaves_of_the_update():
    x, y = PHOTOS[:2].double(), torch.tensor([1, 4])
    seen = gl.observe(gl.zoo.convnet(width=4, size=8, seed=0).double(), x, y, reveal=("labels",))
    found = ssras(evaluations=40)(seen, rng=0)
    again = gl.attacks.matching.SquaredError()(seen.simulate(found.x, found.y), seen.update)
    assert found.score == pytest.approx(float(again), rel=1e-9)


def test_the_same_seed_takes_the_same_way():
    x, y = PHOTOS[:2], torch.tensor([1, 4])
    seen = gl.observe(smooth_batch_net().float(), x, y)
    a, b = (ssras(evaluations=25)(seen, rng=3) for _ in "ab")
    assert torch.equal(a.x, b.x)
    assert a.decisions == b.decisions
