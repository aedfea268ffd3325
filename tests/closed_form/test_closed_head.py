import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.attacks.closed_form.head import head_guesses, margins
from gradleak.layers import chain


def seen(seed, classes, bias, loss=None, scale=1.0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = nn.Linear(12, classes, bias=bias).to(dtype)
        linear.weight.data *= scale
        h, y = torch.randn(1, 12, dtype=dtype), torch.randint(max(classes, 2), (1,))
    obs = gl.observe(nn.Sequential(linear), h, y, loss=loss)
    return h[0], int(y), chain(obs)[-1]


def truth_is_among(guesses, h, y, rtol=1e-7):
    return any(
        guess.y == y
        and torch.allclose(guess.features, h.double(), rtol=rtol, atol=rtol * float(h.abs().max()))
        for guess in guesses
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_with_a_bias_the_one_reading_is_exact(seed, classes):
    h, y, layer = seen(seed, classes, bias=True)
    (guess,) = head_guesses(layer, "cross_entropy")
    assert truth_is_among([guess], h, y)
    assert guess.residual < 1e-12


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("classes", [3, 10])
def test_without_a_bias_the_best_reading_is_the_truth_for_several_classes(seed, scale, classes):
    h, y, layer = seen(seed, classes, bias=False, scale=scale)
    guesses = head_guesses(layer, "cross_entropy")
    assert truth_is_among(guesses[:1], h, y, rtol=1e-6)
    assert guesses[0].residual < 1e-7


@pytest.mark.parametrize("seed", range(12))
def test_two_classes_without_a_bias_keep_both_signs(seed):
    h, y, layer = seen(seed, 2, bias=False)
    guesses = head_guesses(layer, "cross_entropy")
    assert truth_is_among(guesses, h, y, rtol=1e-6)
    assert {guess.y for guess in guesses} == {0, 1}


@pytest.mark.parametrize("seed", range(20))
def test_one_logit_has_up_to_four_readings_and_the_truth_is_one(seed):
    h, y, layer = seen(seed, 1, bias=False, loss=gl.logistic, scale=1 + seed % 3)
    guesses = head_guesses(layer, "logistic")
    assert 1 <= len(guesses) <= 4
    assert truth_is_among(guesses, h, y, rtol=1e-6)
    (sure,) = head_guesses(seen(seed, 1, bias=True, loss=gl.logistic)[2], "logistic")
    assert sure.residual < 1e-12


@settings(deadline=None)
@given(margin=st.floats(-30, 30))
def test_margins_solve_their_equation_and_lose_none(margin):
    s = -margin / (1 + np.exp(margin))
    found = margins(s)
    assert all(abs(-m / (1 + np.exp(m)) - s) <= 1e-9 * max(1, abs(s)) for m in found)
    # Near the turning point two roots melt into one, and no double can tell them apart.
    assert min(abs(m - margin) for m in found) < 1e-4 * max(1, abs(margin))


def test_below_the_minimum_there_is_no_margin():
    assert margins(-0.3) == []
    assert len(margins(-0.2)) == 2
    assert len(margins(0.2)) == 1
    assert margins(0.0) == [0.0]


def test_a_batch_is_not_read_as_one_record():
    linear = nn.Sequential(nn.Linear(12, 10)).double()
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 12, generator=rng, dtype=torch.float64)
    obs = gl.observe(linear, x, torch.tensor([1, 5, 5]))
    (guess,) = head_guesses(chain(obs)[-1], "cross_entropy")
    assert guess.residual > 0.05
