import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.nn.functional import one_hot

import gradleak as gl
from gradleak.attacks.closed_form.batch.counts import estimate, labels_of, multisets, present
from gradleak.attacks.closed_form.batch.dense import backward, forward, stages
from gradleak.attacks.closed_form.batch.descent import Head, _equations, watched
from gradleak.attacks.closed_form.batch.factors import factor
from gradleak.attacks.closed_form.batch.peel import peel
from gradleak.attacks.closed_form.batch.polish import _Problem, polish
from gradleak.attacks.closed_form.batch.rows import by_programs, by_subsets, distinct, recognised, roots
from gradleak.attacks.closed_form.batch.spear import _refined, directions, labels_from_deltas, unmix
from gradleak.layers import chain

EPS = torch.finfo(torch.float64).eps


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(b, seed=0, sizes=(40, 60, 50), classes=8, activation="relu"):
    net = gl.zoo.mlp(classes, sizes=sizes, activation=activation, seed=seed).double()
    x = rand(b, sizes[0], seed=seed).abs().clamp_max(1)
    y = torch.randint(classes, (b,), generator=torch.Generator().manual_seed(seed))
    net = stages(chain(gl.observe(net, x, y)))
    return net, x, y


def head_of(net, b):
    last = net[-1]
    return Head(factor(last.dW, last.db, b, EPS, simplex=True), last.W, last.b, b, True)


def true_rows(net, x, head):
    H = forward(net, x)[-2]
    return torch.cat((H, torch.ones(len(x), 1, dtype=H.dtype)), 1) @ head.f.V.mT


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_backward_by_hand_is_autograd(activation):
    net, x, y = problem(3, activation=activation)
    inputs = forward(net, x)
    for stage, A, delta in zip(net, inputs, backward(net, inputs, y), strict=False):
        torch.testing.assert_close(delta.mT @ A, stage.dW, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(delta.sum(0), stage.db, rtol=1e-10, atol=1e-13)


def test_factors_see_the_rank_and_the_noise():
    exact = rand(9, 4) @ rand(4, 301, seed=1)
    f = factor(exact[:, :-1], exact[:, -1], 6, EPS)
    assert f.rank == 4
    torch.testing.assert_close((f.U * f.S) @ f.V, exact, rtol=1e-9, atol=1e-11)
    noisy = exact + 1e-4 * rand(9, 301, seed=2)
    f = factor(noisy[:, :-1], noisy[:, -1], 4, EPS)
    assert f.noise == pytest.approx(1e-4, rel=0.1)
    # the blur of q V is its spread over many draws of the noise
    q = torch.linalg.lstsq(f.V.mT, exact[:1].mT).solution.mT
    spread = []
    for seed in range(3, 40):
        moved = exact + 1e-4 * rand(9, 301, seed=seed)
        again = torch.linalg.svd(moved, full_matrices=False)[2][:4]
        project = again.mT @ again
        spread.append((f.V[:, :] @ project - f.V)[:, :])
    seen = torch.stack([q @ s for s in spread]).std()
    assert float(seen) == pytest.approx(float(f.blur(q)), rel=0.5)


def test_normal_equations_are_those_of_the_residual_by_autograd():
    net, _x, _y = problem(3)
    head = head_of(net, 3)
    Q, labels, columns = rand(1, 3, 3, seed=4), torch.tensor([[0, 0, 5]]), watched(head.f, 20)
    for scaled in (False, True):

        def residual(q, scaled=scaled):
            f = head.f
            weight = 1 / f.S if scaled else 1 / f.S.norm()
            D = ((q @ head.M + head.b).softmax(-1) - one_hot(labels[0], 8)) / 3
            r1 = (D.mT @ q - f.U * f.S) * weight
            r2, r3 = (q @ f.bias - 1) / 3, (q @ columns).clamp_max(0)
            return torch.cat((r1.reshape(-1), r2, r3.reshape(-1)))

        J = torch.func.jacrev(residual)(Q[0]).reshape(-1, 9)
        r = residual(Q[0])
        value, A, g = _equations(head, Q, labels, columns, scaled)
        torch.testing.assert_close(value[0], r.square().sum())
        torch.testing.assert_close(A[0], J.mT @ J)
        torch.testing.assert_close(g[0], J.mT @ r)


def test_multisets_come_in_the_order_of_their_distance_and_all_of_them():
    wanted, least = torch.tensor([1.3, 0.2, 2.4, -0.5]), torch.tensor([0, 0, 1, 0])
    every = [
        c
        for c in itertools.product(range(5), repeat=4)
        if sum(c) == 4 and all(a >= b for a, b in zip(c, least))  # noqa: B905
    ]
    slow = sorted(sum((a - float(w)) ** 2 for a, w in zip(c, wanted, strict=True)) for c in every)
    found = list(multisets(wanted, least, 4))
    assert sorted(map(tuple, found)) == sorted(every)
    fast = [sum((a - float(w)) ** 2 for a, w in zip(c, wanted, strict=True)) for c in found]
    assert np.allclose(fast, slow)
    assert list(multisets(wanted, torch.tensor([3, 3, 0, 0]), 4)) == []


def test_present_classes_are_proven_and_counts_are_right_on_an_untrained_network():
    for seed in range(8):
        net, _x, y = problem(5, seed=seed)
        head = head_of(net, 5)
        truth = torch.bincount(y, minlength=8)
        assert bool((truth[present(head)] > 0).all())
        first = next(multisets(estimate(head), present(head).long(), 5))
        assert labels_of(first).tolist() == y.sort().values.tolist()


def test_roots_are_the_rows_of_the_records_one_by_one():
    for seed in range(5):
        net, x, y = problem(3, seed=seed)
        head = head_of(net, 3)
        rows = distinct(roots(head, torch.Generator().manual_seed(0)), 1e-8)
        for q, label in zip(true_rows(net, x, head), y, strict=True):
            gaps = (rows.q - q).norm(dim=1) / q.norm()
            assert float(gaps.min()) < 1e-7
            assert int(rows.y[gaps.argmin()]) == int(label)


@pytest.mark.parametrize("way", ["subsets", "programs"])
def test_rows_from_zeros_are_records_and_a_plain_program_agrees(way):
    net, x, y = problem(4, seed=3)
    head, rng = head_of(net, 4), torch.Generator().manual_seed(0)
    q = by_subsets(head, rng, draws=4000) if way == "subsets" else by_programs(head, rng, programs=12)
    rows = distinct(recognised(head, q), 1e-6)
    truth = true_rows(net, x, head)
    gaps = (rows.q[:, None] - truth).norm(dim=-1) / truth.norm(dim=-1)
    assert len(rows.q) >= 1
    assert float(gaps.amin(1).max()) < 1e-6  # whatever is recognised is a record
    assert torch.equal(rows.y, y[gaps.argmin(1)])
    # slow twin: each is the vertex of the cone that costs least on its own zeros
    f = head.f
    for row in rows.q:
        h = row @ f.features
        cost = f.features[:, h.abs() < 1e-8].sum(1)
        slow = linprog(
            cost.numpy(),
            A_ub=-f.features.mT.numpy(),
            b_ub=[1e-10] * len(h),
            A_eq=f.bias[None].numpy(),
            b_eq=[1.0],
            bounds=(None, None),
        )
        assert np.allclose(slow.x, row.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_peeling_the_true_head_gives_the_pixels(activation):
    net, x, y = problem(4, activation=activation)
    factors = [factor(s.dW, s.db, 4, EPS) for s in net]
    inputs = forward(net, x)
    D = backward(net, inputs, y)[-1]
    found = peel(net, factors, inputs[-2], D, torch.zeros(4, dtype=D.dtype))
    torch.testing.assert_close(found, x, rtol=1e-7, atol=1e-8)


def test_masks_come_from_the_gradient_where_a_threshold_would_fail():
    net, x, y = problem(4, seed=5)
    factors = [factor(s.dW, s.db, 4, EPS) for s in net]
    inputs = forward(net, x)
    H = inputs[-2]
    level = float(H[H > 0].quantile(0.15))  # more noise than many true features have
    noisy = H + level / 3 * rand(*H.shape, seed=6)
    found = peel(net, factors, noisy, backward(net, inputs, y)[-1], torch.full((4,), level / 3).double())
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-7)


def test_polish_has_the_right_jacobian_and_repairs_a_disturbed_batch():
    net, x, y = problem(4)
    factors = [factor(s.dW, s.db, 4, EPS) for s in net]
    p = _Problem(net, factors, y)
    Q = rand(4, 4, seed=2)
    J, step = p.jacobian(Q), 1e-7
    for i in (0, 5, 15):
        moved = Q.reshape(-1).clone()
        moved[i] += step
        slow = (p.residual(moved.reshape(4, 4)) - p.residual(Q)) / step
        torch.testing.assert_close(J[:, i], slow, rtol=1e-3, atol=1e-4 * float(J[:, i].abs().max()))
    mixing = torch.eye(4).double() + 0.01 * rand(4, 4, seed=3)
    assert float((mixing @ x - x).abs().max()) > 1e-3
    torch.testing.assert_close(polish(net, factors, mixing @ x, y).x, x, rtol=1e-6, atol=1e-8)


def test_expected_error_is_the_error_that_white_noise_makes():
    net, x, y = problem(4, seed=2)
    ratios = []
    for seed in range(12):
        noisy = [s.dW + 1e-7 * rand(*s.dW.shape, seed=100 * seed + i) for i, s in enumerate(net)]
        biases = [s.db + 1e-7 * rand(*s.db.shape, seed=100 * seed + 50 + i) for i, s in enumerate(net)]
        factors = [factor(dW, db, 4, EPS) for dW, db in zip(noisy, biases, strict=True)]
        found = polish(net, factors, x, y)
        error = (found.x - x).square().mean(1).sqrt()
        ratios.append(error / found.blur)
    assert 0.7 < float(torch.stack(ratios).median()) < 1.5


def test_spear_finds_every_delta_and_its_label():
    net, x, y = problem(6, sizes=(40, 120), seed=1)
    f = factor(net[0].dW, net[0].db, 6, EPS)
    q = directions(f, net[0], torch.Generator().manual_seed(0), draws=8192, starts=256)
    deltas, found = unmix(f, q)
    order = gl.metrics.pair(found, x)
    torch.testing.assert_close(found[order], x, rtol=1e-6, atol=1e-8)
    truth = backward(net, forward(net, x), y)[0]
    torch.testing.assert_close(deltas[order], truth, rtol=1e-6, atol=1e-10)
    assert torch.equal(labels_from_deltas(net, found, deltas)[order], y)


def test_a_direction_that_hangs_on_one_zero_is_no_record():
    rows = torch.cat((rand(20, 3), torch.zeros(20, 1).double()), 1)  # 20 outputs where the fourth is off
    direction = _refined(rows)
    torch.testing.assert_close(direction.abs(), torch.tensor([0.0, 0, 0, 1]).double(), atol=1e-9, rtol=0)
    # two records off together, and one more output where their mixture happens to vanish
    hanging = torch.cat((rand(20, 2), torch.zeros(20, 2).double()), 1)
    assert _refined(torch.cat((hanging, torch.tensor([[0.3, 0.1, 1.0, -2.0]]).double()))) is None
