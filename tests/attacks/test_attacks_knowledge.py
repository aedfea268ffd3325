"""Priors that know something: BatchNorm statistics, labels, and what the last layer's gradient gives away."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import matching as m
from gradleak.attacks.matching.last_layers import HeadLabels, last_layers, rows_and_inputs
from gradleak.attacks.matching.problem import Problem
from gradleak.attacks.matching.statistics import seen_by_norms
from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe.statistics import batch_statistics

RNG = torch.Generator()
PHOTOS = gl.zoo.pictures("photos", size=16, n=12)[0]


def normed(seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = (nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Conv2d(6, 6, 3, 2))
        return nn.Sequential(*body, nn.BatchNorm2d(6), nn.Sigmoid(), nn.Flatten(), nn.Linear(54, 5)).to(dtype)


def normed_record(b=3, model=None, sent=True, mode="eval"):
    model = (model or normed()).train(mode == "train")
    x, y = PHOTOS[:b].double(), torch.arange(b)
    obs = gl.observe(model, x, y, reveal=("labels",))
    known = batch_statistics(obs.task, obs.params, x) if sent else None
    return x, replace(obs, statistics=known)


def candidate(obs, x, y=None, **more):
    y = torch.arange(len(x)) if y is None else y
    return m.Candidate(x, y, obs.domain, torch.tensor(0.0), obs.task, obs.params, **more)


def adam(steps=40, **changes):
    parts = {"labels": gl.labels.known(), "tolerance": 0.0, "init": m.Gray(), "box": True}
    parts |= {"optimizer": m.Adam(steps), "evaluations": steps + 1}
    return m.Matching("test", **(parts | changes))


# --- BatchNorm statistics


def test_the_statistics_of_the_truth_cost_nothing_and_others_what_the_formula_says():
    x, obs = normed_record()
    prior = m.Statistics(2.0)
    evidence = prior.gather(obs, LabelGuess(), RNG)
    assert float(prior(candidate(obs, x, evidence=evidence))) < 1e-12
    found = seen_by_norms(obs.task, obs.params, 0.5 * x)
    gaps = sum(torch.linalg.norm(found[n] - obs.statistics[n]) for n in evidence)
    expected = 2.0 * gaps / sum(torch.linalg.norm(leaf) for leaf in obs.statistics.values())
    torch.testing.assert_close(prior(candidate(obs, 0.5 * x, evidence=evidence)), expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_layers_own_statistics_are_those_of_its_input_by_hand(mode):
    x, obs = normed_record(mode=mode, sent=False)
    before = {n: leaf.clone() for n, leaf in obs.constants.items()}
    seen = seen_by_norms(obs.task, obs.params, x)
    z = nn.functional.conv2d(x, obs.params["0.weight"], obs.params["0.bias"], stride=2)
    torch.testing.assert_close(seen["1.mean"], z.mean((0, 2, 3)))
    torch.testing.assert_close(seen["1.var"], z.transpose(0, 1).flatten(1).var(1))
    assert all(torch.equal(obs.constants[n], leaf) for n, leaf in before.items())
    assert not any(module._forward_pre_hooks for module in obs.model.modules())


def test_a_batch_is_found_better_with_its_statistics_and_the_same_without_the_prior():
    x, obs = normed_record()
    with torch.no_grad():  # of the gradient only the last layer's is sent: too little to go by
        small = {n: torch.zeros_like(u) if n != "7.weight" else u for n, u in obs.update.items()}
    poor = replace(obs, update=small)
    off, none, on = (
        adam(150, priors=priors)(poor, rng=0) for priors in ((m.Statistics(0.0),), (), (m.Statistics(1.0),))
    )
    torch.testing.assert_close(off.x, none.x)
    expected = candidate(poor, x, evidence=poor.statistics)
    far = [float(m.Statistics(1.0)(replace(expected, x=found.x))) for found in (none, on)]
    assert far[1] < 0.3 * far[0]


def test_the_statistics_run_in_one_sweep_as_they_do_in_turn():
    _, obs = normed_record()
    prior = m.Statistics(1.0)
    evidence = prior.gather(obs, LabelGuess(), RNG)
    y = torch.arange(3).expand(2, -1)
    problem = Problem([obs], (0, 0), y, m.SquaredError(), (prior,), ((evidence,), (evidence,)))
    points = torch.rand(2, problem.layout.pixels, generator=torch.Generator().manual_seed(0)).double()
    assert problem.vectorises
    together = problem.evaluate(points, [0, 1], points.new_zeros(2))
    alone = problem.evaluate(points[1:], [1], points.new_zeros(1))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1], b[0])


def test_where_the_statistics_come_from():
    _, obs = normed_record()
    _, bare = normed_record(sent=False)
    model = normed().train()
    model(torch.rand(4, 3, 16, 16, dtype=torch.float64))
    _, trained = normed_record(model=model, sent=False)

    def source(name, obs):
        return m.Statistics(1.0, name).gather(obs, LabelGuess(), RNG)

    assert source("sent", obs) is source("auto", obs) is obs.statistics
    refused = source("sent", bare)
    assert isinstance(refused, Unanswerable)
    assert "statistics" in refused.reason
    assert source("auto", bare) == {}  # running statistics that no batch has moved say nothing
    assert torch.equal(source("running", bare)["1.mean"], torch.zeros(6, dtype=torch.float64))
    assert torch.equal(source("auto", trained)["4.var"], model[4].running_var)
    found = adam(5, priors=(m.Statistics(1.0),))(bare)
    assert (found.outcome, found.reason) == (gl.Outcome.NOT_APPLICABLE, refused.reason)
    with pytest.raises(InvalidInput, match="sent, running, auto"):
        m.Statistics(1.0, "exact")


# --- labels


def test_the_pictures_are_pulled_to_what_the_network_takes_for_their_labels():
    x, obs = normed_record(sent=False)
    y = torch.tensor([0, 1, 2])
    p = obs.task.forward(obs.params, x).softmax(-1)
    by_hand = 3.0 * sum(float((p[k] - torch.eye(5)[int(y[k])]).square().sum()) for k in range(3)) / 3
    assert float(m.Agreement(3.0)(candidate(obs, x, y))) == pytest.approx(by_hand)
    soft = torch.eye(5, dtype=torch.float64)[y]
    assert float(m.Agreement(3.0)(candidate(obs, x, soft))) == pytest.approx(by_hand)
    none, off, on = (
        adam(60, priors=priors)(obs, rng=0) for priors in ((), (m.Agreement(0.0),), (m.Agreement(20.0),))
    )
    assert torch.equal(none.x, off.x)
    sure = [obs.task.forward(obs.params, one.x).softmax(-1)[range(3), [0, 1, 2]].mean() for one in (none, on)]
    assert float(sure[1]) > float(sure[0]) + 0.01


# --- the last layers


def relu_record(b=4, pool="stride", reveal=("labels",), labels=None, dtype=torch.float32):
    model = gl.zoo.convnet(classes=6, size=16, pool=pool, width=6, seed=0).to(dtype)
    y = torch.tensor([4, 1, 0, 3, 2, 5][:b]) if labels is None else torch.tensor(labels)
    return PHOTOS[:b].to(dtype), y, gl.observe(model, PHOTOS[:b].to(dtype), y, reveal=reveal)


def test_features_and_deltas_are_those_of_every_record():
    x, y, obs = relu_record()
    found = last_layers(obs, y, m.Features(1.0).search, torch.Generator().manual_seed(0)).in_order_of(y)
    body, last = obs.task.model[:-1], ("linear.weight", "linear.bias")
    h = torch.func.functional_call(
        body, {n: p for n, p in obs.params.items() if n not in last}, (x,)
    ).double()
    torch.testing.assert_close(found.features, h, rtol=1e-3, atol=1e-6)
    p = (h @ obs.params[last[0]].double().T + obs.params[last[1]].double()).softmax(-1)
    deltas = (p - torch.eye(6)[y]) / len(y) @ obs.params[last[0]].double()
    torch.testing.assert_close(found.deltas, deltas, rtol=1e-3, atol=1e-7)
    assert torch.equal(found.awake, h > 0)
    assert found.before == "conv4"
    rows, inputs = rows_and_inputs(obs.task, obs.params, x, "conv4", (deltas * found.awake).float())
    torch.testing.assert_close(rows, obs.update["conv4.weight"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(inputs.double(), h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [0.0, 0.5])
def test_the_truth_has_its_own_features_and_no_other_order_does(rows):
    x, y, obs = relu_record()
    prior = m.Features(1.0, rows=rows)
    evidence = prior.gather(obs, LabelGuess(y=y), torch.Generator().manual_seed(0))
    assert ("rows" in evidence) is (rows > 0)
    value, swapped = (float(prior(candidate(obs, one, y, evidence=evidence))) for one in (x, x.flip(0)))
    assert value < 1e-8 < 1e-3 < swapped
    assert float(prior(candidate(obs, x, y))) == 0  # without evidence there is no such term


def test_under_pooling_the_rows_are_left_out():
    _, y, obs = relu_record(pool="avg")
    evidence = m.Features(1.0).gather(obs, LabelGuess(y=y), torch.Generator().manual_seed(0))
    assert list(evidence) == ["features"]


def test_features_run_in_one_sweep_as_they_do_in_turn():
    _, y, obs = relu_record(dtype=torch.float64)
    prior = m.Features(1.0)
    evidence = prior.gather(obs, LabelGuess(y=y), torch.Generator().manual_seed(0))
    problem = Problem([obs], (0, 0), y.expand(2, -1), m.SquaredError(), (prior,), ((evidence,), (evidence,)))
    points = torch.rand(2, problem.layout.pixels, generator=torch.Generator().manual_seed(0)).double()
    assert problem.vectorises
    together = problem.evaluate(points, [0, 1], points.new_zeros(2))
    alone = problem.evaluate(points[1:], [1], points.new_zeros(1))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1], b[0])


def test_where_the_head_cannot_be_solved_the_attack_says_so_or_goes_on_without():
    _, y, obs = relu_record(b=6)
    guess = LabelGuess(y=y)
    refused = m.Features(1.0).gather(obs, guess, RNG)
    assert isinstance(refused, Unanswerable)
    assert "5 records" in refused.reason
    assert m.Features(1.0, required=False).gather(obs, guess, RNG) == {}
    without, optional = (
        adam(10, priors=priors)(obs, rng=0) for priors in ((), (m.Features(1.0, required=False),))
    )
    assert torch.equal(without.x, optional.x)
    assert adam(10, priors=(m.Features(1.0),))(obs).outcome is gl.Outcome.NOT_APPLICABLE
    other = replace(obs, loss=lambda output, y: nn.functional.cross_entropy(output, y))
    assert "cross entropy" in m.Features(1.0).gather(other, guess, RNG).reason


def test_the_heads_labels_are_the_batchs_repeats_included():
    _, _, obs = relu_record(reveal=(), labels=[2, 2, 5, 0])
    guess = HeadLabels()(obs, rng=torch.Generator().manual_seed(0))
    assert sorted(guess.y.tolist()) == [0, 2, 2, 5]


# --- natural coordinates


def test_natural_coordinates_can_be_inverted_and_their_gradient_is_the_adjoint():
    from gradleak.attacks.matching.optimizers.natural import Basis, cosines

    basis = Basis.of((2, 3, 8, 6), 1.0, 0.9, torch.zeros(1, dtype=torch.float64))
    rng = torch.Generator().manual_seed(0)
    u, g = (torch.randn(288, generator=rng, dtype=torch.float64) for _ in "12")
    torch.testing.assert_close(basis.coordinates(basis.picture(u)), u)
    torch.testing.assert_close(basis.picture(u) @ g, u @ basis.gradient(g))
    torch.testing.assert_close(cosines(8) @ cosines(8).T, torch.eye(8, dtype=torch.float64))
    assert float(basis.spectrum.square().mean()) == pytest.approx(1)
    assert float(basis.spectrum[0, 0] / basis.spectrum[3, 4]) == pytest.approx(6)


def test_without_decay_and_correlation_natural_steps_are_plain_ones():
    _, _, obs = relu_record(dtype=torch.float64)
    plain = adam(20, box=False, objective=m.SquaredError())
    natural = replace(plain, optimizer=m.Natural(m.Adam(20), decay=0.0, correlation=0.0))
    lbfgs, rotated = (
        replace(plain, optimizer=o)(obs, rng=0)
        for o in (m.LBFGS(), m.Natural(m.LBFGS(), decay=0.0, correlation=0.0))
    )
    # L-BFGS does not care how the axes are turned; Adam does
    torch.testing.assert_close(lbfgs.x, rotated.x, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain(obs, rng=0).x, natural(obs, rng=0).x, atol=1e-3)


def test_natural_steps_move_nothing_but_the_pictures_their_own_way():
    space = m.Space(2 * 1 * 4 * 4, None, (2, 1, 4, 4))
    descent = m.Natural(m.Adam(3, lr=0.1)).descend(torch.zeros(35, dtype=torch.float64), space, RNG)
    next(descent)
    point = descent.send((1.0, torch.ones(35, dtype=torch.float64)))
    torch.testing.assert_close(point[32:], torch.full((3,), -0.1, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert len(set(point[:16].tolist())) > 1 or float(point[0]) != -0.1
    with pytest.raises(InvalidInput, match=r"pictures \[B, C, H, W\]"):
        next(m.Natural(m.Adam(3)).descend(torch.zeros(4), m.Space(4, None, (2, 2)), RNG))
    with pytest.raises(InvalidInput, match="decay"):
        m.Natural(m.Adam(3), decay=-1.0)


def test_inside_the_box_natural_steps_stay_there():
    _, _, obs = relu_record()
    found = adam(20, optimizer=m.Natural(m.Adam(20, lr=1.0)))(obs, rng=0)
    assert float(found.x.min()) >= -1e-5
    assert float(found.x.max()) <= 1 + 1e-5
