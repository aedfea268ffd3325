import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from gradleak.attacks import Outcome
from gradleak.attacks.matching import LBFGS, Adam, Space
from gradleak.attacks.matching.optimizers.lbfgs import _Memory
from gradleak.errors import InvalidInput


def drive(optimizer, start, f, steps=10_000, project=None, pixels=None, seed=0):
    """Answer one descent's questions; returns its outcome and the points that it asked for."""
    space = Space(start.numel() if pixels is None else pixels, project)
    descent = optimizer.descend(start, space, torch.Generator().manual_seed(seed))
    point, asked = next(descent), []
    for _ in range(steps):
        asked.append(point)
        leaf = point.clone().requires_grad_()
        value = f(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        try:
            point = descent.send((float(value.detach()), gradient))
        except StopIteration as ended:
            return ended.value, asked
    return Outcome.RUNNING, asked


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def two_loops(pairs, gradient):
    """The textbook recursion, Nocedal and Wright algorithm 7.4: the slow twin."""
    q, stack = gradient.clone(), []
    for s, y in reversed(pairs):
        a = (s @ q) / (s @ y)
        q = q - a * y
        stack.append(a)
    s, y = pairs[-1]
    r = q * (s @ y) / (y @ y)
    for (s, y), a in zip(pairs, reversed(stack), strict=True):
        r = r + s * (a - (y @ r) / (s @ y))
    return -r


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_compact_direction_is_that_of_the_two_loop_recursion(size):
    # More pairs than the memory holds, so that the ring goes round.
    torch.manual_seed(0)
    n = 12
    root = torch.randn(n, n, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(n, dtype=torch.float64)
    points = torch.randn(11, n, dtype=torch.float64)
    memory, pairs = _Memory(size, points[0]), []
    for before, after in pairwise(points):
        s, y = after - before, hessian @ (after - before)
        memory.descent(hessian @ before)  # as in a descent: the products with the last gradient are known
        memory.remember(s, y)
        pairs = [*pairs, (s, y)][-size:]
        gradient = hessian @ after
        torch.testing.assert_close(memory.descent(gradient), two_loops(pairs, gradient), rtol=1e-7, atol=1e-9)


def test_a_pair_without_curvature_is_not_remembered():
    memory = _Memory(4, torch.zeros(3, dtype=torch.float64))
    s = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    memory.remember(s, -s)
    memory.remember(s, torch.zeros_like(s))
    assert memory.empty


def test_lbfgs_solves_rosenbrock_in_many_dimensions():
    outcome, asked = drive(LBFGS(history=10), torch.full((30,), -1.0, dtype=torch.float64), rosenbrock)
    torch.testing.assert_close(asked[-1], torch.ones(30, dtype=torch.float64), rtol=0, atol=1e-5)
    assert outcome is Outcome.STALLED
    assert len(asked) < 400


def lowest(history, dimensions, condition, evaluations):
    scale = torch.logspace(0, condition, dimensions, dtype=torch.float64)

    def f(x):
        return (scale * x * x).sum()

    _, asked = drive(LBFGS(history=history), torch.ones(dimensions, dtype=torch.float64), f, evaluations)
    return min(float(f(x)) for x in asked)


def test_lbfgs_is_as_quick_on_a_stretched_bowl_as_that_of_torch():
    # torch.optim.LBFGS with its strong-Wolfe search is at 6e-11 after 105 evaluations of this one.
    assert lowest(10, 8, 4, 110) < 1e-9


def test_lbfgs_makes_use_of_a_longer_history():
    assert lowest(60, 60, 5, 500) < 1e-2 * lowest(3, 60, 5, 500)


def test_lbfgs_ends_diverged_where_the_start_is_not_finite():
    outcome, _ = drive(LBFGS(), torch.tensor([-1.0]), lambda x: x.log().sum())
    assert outcome is Outcome.DIVERGED


def test_lbfgs_refuses_to_project():
    with pytest.raises(InvalidInput, match="Box"):
        next(LBFGS().descend(torch.zeros(2), Space(2, lambda x: x), torch.Generator()))


@pytest.mark.parametrize("sign", [False, True])
def test_adam_is_that_of_torch(sign):
    torch.manual_seed(0)
    start = torch.randn(6, dtype=torch.float64)
    outcome, asked = drive(Adam(40, lr=0.03, sign=sign, drops=(0.5,)), start, rosenbrock)
    x = start.clone().requires_grad_()
    twin = torch.optim.Adam([x], lr=0.03)
    for n in range(40):
        torch.testing.assert_close(asked[n], x.detach(), rtol=1e-9, atol=1e-12)
        (gradient,) = torch.autograd.grad(rosenbrock(x), x)
        x.grad = gradient.sign() if sign else gradient
        twin.param_groups[0]["lr"] = 0.03 if n < 20 else 0.003
        twin.step()
    assert (outcome, len(asked)) == (Outcome.BUDGET, 41)
    torch.testing.assert_close(asked[40], x.detach(), rtol=1e-9, atol=1e-12)


def test_adam_projects_every_point_and_stops_where_the_numbers_end():
    _, asked = drive(
        Adam(30, lr=1.0), torch.zeros(3), lambda x: (x - 5).square().sum(), project=lambda x: x.clamp(0, 1)
    )
    assert all(float(x.max()) <= 1 for x in asked)
    outcome, _ = drive(Adam(30), torch.tensor([1.0]), lambda x: (x * math.nan).sum())
    assert outcome is Outcome.DIVERGED


def test_the_cosine_falls_from_the_rate_to_nearly_0_after_a_warm_up():
    plain = Adam(100, lr=0.1, schedule="cosine")
    assert [plain.rate(n) for n in (1, 51)] == pytest.approx([0.1, 0.05])
    assert 0 < plain.rate(100) < 1e-3 * plain.lr
    warm = Adam(100, lr=0.1, schedule="cosine", warmup=10)
    assert [warm.rate(n) for n in (1, 5, 10, 11)] == pytest.approx([0.01, 0.05, 0.1, 0.1])
    stepped = Adam(8, lr=1.0, warmup=2)
    assert [stepped.rate(n) for n in range(1, 9)] == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3])


@pytest.mark.parametrize("schedule", ["steps", "cosine"])
def test_noise_moves_the_pictures_by_the_rate_and_nothing_else(schedule):
    start = torch.zeros(2000, dtype=torch.float64)

    def flat(x):
        return 0 * x.sum()

    optimizer = Adam(5, lr=0.1, schedule=schedule, noise=0.2)
    _, asked = drive(optimizer, start, flat, pixels=1500)
    for n in range(1, 6):
        step = asked[n] - asked[n - 1]
        assert float(step[:1500].std()) == pytest.approx(0.2 * optimizer.rate(n), rel=0.1)
        assert not step[1500:].any()
    _, again = drive(optimizer, start, flat, pixels=1500)
    assert torch.equal(asked[-1], again[-1])
    _, other = drive(optimizer, start, flat, pixels=1500, seed=1)
    assert not torch.equal(asked[-1], other[-1])
    _, still = drive(Adam(5, lr=0.1, schedule=schedule), start, flat)
    assert not still[-1].any()


@pytest.mark.parametrize(
    "wrong", [{"schedule": "linear"}, {"warmup": 5}, {"warmup": -1}, {"warmup": 1.5}, {"noise": -0.1}]
)
def test_a_wrong_schedule_says_what_was_expected(wrong):
    with pytest.raises(InvalidInput, match="expected"):
        Adam(5, **wrong)
