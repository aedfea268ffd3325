"""The privacy budget, as Opacus counts it."""

import builtins
import math

import pytest

import gradleak as gl
from gradleak.defenses import epsilon, noise_for

opacus = pytest.importorskip("opacus.accountants")


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_epsilon_is_that_of_opacus(accountant):
    keeper = opacus.create_accountant(mechanism=accountant)
    for _ in range(20):
        keeper.step(noise_multiplier=1.1, sample_rate=0.02)
    assert epsilon(1.1, 0.02, 20, 1e-5, accountant) == pytest.approx(keeper.get_epsilon(delta=1e-5), rel=1e-9)


def test_one_release_of_everything_is_the_gaussian_mechanism():
    """Rényi divergence a / 2σ² at order a, turned into (ε, δ): within the accountant's grid of orders."""
    sigma, delta = 2.0, 1e-5
    orders = [1 + n / 1000 for n in range(1, 60_000)]
    best = min(a / (2 * sigma**2) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1) for a in orders)
    assert epsilon(sigma, 1.0, 1, delta) == pytest.approx(best, rel=1e-3)


def test_more_noise_fewer_steps_and_rarer_records_spend_less():
    base = epsilon(1.0, 0.01, 100, 1e-5)
    assert epsilon(2.0, 0.01, 100, 1e-5) < base
    assert epsilon(1.0, 0.01, 10, 1e-5) < base
    assert epsilon(1.0, 0.001, 100, 1e-5) < base
    assert epsilon(0, 0.01, 100, 1e-5) == math.inf


@pytest.mark.parametrize("budget", [0.5, 3.0, 30.0])
def test_the_noise_for_a_budget_is_the_least_that_keeps_it(budget):
    noise = noise_for(budget, 0.02, 200, 1e-5)
    assert epsilon(noise, 0.02, 200, 1e-5) <= budget
    assert epsilon(noise * (1 - 2e-3), 0.02, 200, 1e-5) > budget


def test_a_budget_that_no_noise_keeps():
    with pytest.raises(gl.errors.InvalidInput, match=r"an epsilon of [\d.e-]+ or more"):
        noise_for(1e-6, 1.0, 1000, 1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"noise_multiplier": -1}, "noise_multiplier"),
        ({"sample_rate": 0}, "sample_rate as a number above 0 to 1"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"steps": 0}, "steps as a whole number"),
        ({"steps": 2.5}, "steps"),
        ({"delta": 0}, "delta as a number above 0 to below 1"),
        ({"delta": 1}, "delta"),
        ({"accountant": "gdp"}, "'rdp' or 'prv'; came 'gdp'"),
    ],
)
def test_bad_settings(settings, says):
    right = {"noise_multiplier": 1.0, "sample_rate": 0.01, "steps": 10, "delta": 1e-5}
    with pytest.raises(gl.errors.InvalidInput, match=says):
        epsilon(**right | settings)
    if "noise_multiplier" not in settings:
        del right["noise_multiplier"]
        with pytest.raises(gl.errors.InvalidInput, match=says):
            noise_for(1.0, **right | settings)


def test_without_opacus_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("opacus"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(gl.errors.NotInstalled, match=r"pip install 'gradleak\[dp\]'"):
        epsilon(1.0, 0.01, 10, 1e-5)
    with pytest.raises(ImportError):
        noise_for(1.0, 0.01, 10, 1e-5)
