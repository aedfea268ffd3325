"""pair against all permutations, and as the undoing of any shuffle."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradleak.errors import InvalidBatch
from gradleak.metrics import mse, pair


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def total(guess, truth, order):
    return mse(guess[list(order)], truth).sum().item()


@settings(deadline=None, max_examples=60)
@given(batch=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_no_permutation_is_cheaper(batch, seed):
    guess, truth = draw(batch, 1, 2, 2, seed=seed), draw(batch, 1, 2, 2, seed=seed + 1)
    p = pair(guess, truth)
    assert sorted(p.tolist()) == list(range(batch))
    best = min(total(guess, truth, order) for order in permutations(range(batch)))
    assert total(guess, truth, p.tolist()) == pytest.approx(best, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(batch=st.integers(1, 12), seed=st.integers(0, 10**6), data=st.data())
def test_pairing_undoes_any_shuffle(batch, seed, data):
    truth = draw(batch, 3, seed=seed)
    shuffle = data.draw(st.permutations(range(batch)))
    guess = truth[shuffle]
    p = pair(guess, truth)
    assert torch.equal(guess[p], truth)
    assert p.dtype == torch.long


def test_a_cycle_comes_back_as_its_inverse_and_not_as_itself():
    truth = torch.tensor([[0.0], [1.0], [2.0]])
    assert pair(truth[[1, 2, 0]], truth).tolist() == [2, 0, 1]


def test_pairing_is_global_and_not_greedy():
    # Guess 0 is nearest to truth 1, but taking it costs 0.01 + 25 in all; the other way costs 1.21 + 16.
    guess, truth = torch.tensor([1.1, 5.0]), torch.tensor([0.0, 1.0])
    assert pair(guess, truth).tolist() == [0, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e20, 1e200])
@pytest.mark.parametrize("diverged", [0, 1, 2, 3])
def test_a_diverged_guess_is_left_with_the_truth_that_nobody_found(bad, diverged):
    truth = draw(4, 6, seed=3)
    shuffle = torch.tensor([2, 0, 3, 1])
    guess = truth[shuffle] + 1e-3 * draw(4, 6, seed=4)
    guess[diverged] = bad
    assert pair(guess, truth).tolist() == [1, 3, 0, 2]


def test_all_guesses_diverged():
    assert sorted(pair(torch.full((3, 2), math.nan), draw(3, 2)).tolist()) == [0, 1, 2]


def test_a_forbidden_price_is_never_taken_where_it_can_be_avoided():
    prices = torch.tensor([[1.0, math.inf, 900.0], [0.0, 900.0, math.nan], [900.0, 0.0, 0.0]])
    # Rows are guesses: 0 must not take truth 1, 1 must not take truth 2.
    p = pair(draw(3, 2), draw(3, 2), cost=lambda _guess, _truth: prices)
    costs = {order: sum(prices[order[j], j].item() for j in range(3)) for order in permutations(range(3))}
    assert tuple(p.tolist()) == min(costs, key=lambda order: (not math.isfinite(costs[order]), costs[order]))


def test_prices_that_cannot_be_added_up_are_paired_all_the_same():
    # Both guesses want truth 0, and what truth 1 costs them more is beyond the largest float64.
    prices = torch.tensor([[-1e308, 1e308], [-1e308, 0.0]], dtype=torch.float64)
    assert pair(draw(2, 2), draw(2, 2), cost=lambda _guess, _truth: prices).tolist() == [0, 1]
    assert sorted(pair(draw(2, 2), draw(2, 2), cost=lambda _guess, _truth: prices[[0, 0]]).tolist()) == [0, 1]


def test_the_cost_is_the_callers():
    # Squared error gives the long guess the truth along its longer side; by angle it belongs to the other,
    # for the short guess fits the first perfectly.
    guess, truth = torch.tensor([[10.0, 8.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def minus_cosine(g, t):
        return -torch.nn.functional.cosine_similarity(g[:, None], t[None], dim=2)

    assert pair(guess, truth).tolist() == [0, 1]
    assert pair(guess, truth, cost=minus_cosine).tolist() == [1, 0]


def test_nothing_is_applied_in_place():
    guess, truth = draw(4, 3, seed=1).float().requires_grad_(), draw(4, 3, seed=2).float()
    before = guess.detach().clone(), truth.clone()
    pair(guess, truth)
    assert torch.equal(guess, before[0])
    assert torch.equal(truth, before[1])


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(InvalidBatch, match="one shape"):
        pair(draw(2, 3), draw(3, 3))
    with pytest.raises(InvalidBatch, match=r"\[3, 3\].*returned \[3\]"):
        pair(draw(3, 2), draw(3, 2), cost=mse)
