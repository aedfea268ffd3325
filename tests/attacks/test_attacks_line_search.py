import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradleak.attacks.matching.optimizers.line_search import Probe, strong_wolfe


def search(f, slope, step=1.0, evaluations=40):
    """Drive the coroutine; returns whether it found a step, the last step it asked for, and all of them."""
    asked = []
    coroutine = strong_wolfe(Probe(0.0, f(0.0), slope(0.0)), step, evaluations)
    step = next(coroutine)
    while True:
        asked.append(step)
        try:
            step = coroutine.send((f(step), slope(step)))
        except StopIteration as ended:
            return ended.value, asked[-1], asked


def satisfies_strong_wolfe(f, slope, step):
    armijo = f(step) <= f(0.0) + 1e-4 * step * slope(0.0)
    return armijo and abs(slope(step)) <= 0.9 * abs(slope(0.0))


@settings(deadline=None)
@given(a=st.floats(0.01, 10), b=st.floats(0.01, 50), wiggle=st.floats(0, 3), step=st.floats(1e-6, 1e3))
def test_every_step_it_takes_satisfies_the_conditions(a, b, wiggle, step):
    def f(t):
        return a * (t - b) ** 2 + wiggle * math.sin(3 * t)

    def slope(t):
        return 2 * a * (t - b) + 3 * wiggle * math.cos(3 * t)

    if slope(0.0) >= -1e-3:
        return
    found, last, _ = search(f, slope, step)
    assert found
    assert satisfies_strong_wolfe(f, slope, last)


def test_a_perfect_first_guess_costs_one_evaluation():
    found, last, asked = search(lambda t: (t - 1) ** 2, lambda t: 2 * (t - 1))
    assert (found, last, len(asked)) == (True, 1.0, 1)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -math.nan])
def test_it_backs_out_of_what_is_not_finite(bad):
    found, last, _ = search(
        lambda t: (t - 0.01) ** 2 if t < 0.5 else bad,
        lambda t: 2 * (t - 0.01) if t < 0.5 else bad,
        step=100.0,
    )
    assert found
    assert last < 0.5


def test_it_says_so_when_no_step_helps():
    # The slope at 0 is a lie: the value rises everywhere, as it does under rounding.
    found, _, asked = search(lambda t: 1 + t, lambda t: -1.0 if t == 0 else 1.0, evaluations=15)
    assert not found
    assert len(asked) <= 15


def test_it_goes_far_when_the_first_step_is_tiny():
    found, last, asked = search(lambda t: (t - 1000) ** 2, lambda t: 2 * (t - 1000), step=1e-3)
    assert found
    assert last > 50
    assert len(asked) < 12
