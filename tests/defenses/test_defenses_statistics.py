"""Noise, masks and rounding by chance are distributed as they say, and their entries are independent."""

import pytest
import torch

from gradleak.defenses import DPSGD, GaussianNoise, LaplaceNoise, LowPrecision, Mask

N = 200_000


def drawn(defense, leaf, seed=0):
    return defense.sent({"w": leaf}, torch.Generator().manual_seed(seed))["w"]


@pytest.mark.parametrize(
    ("defense", "kurtosis"), [(GaussianNoise(std=0.3), 3.0), (LaplaceNoise(scale=0.3 / 2**0.5), 6.0)]
)
def test_noise(defense, kurtosis):
    noise = drawn(defense, torch.zeros(N, dtype=torch.float64))
    assert defense.deviation == pytest.approx(0.3)
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)  # 4.5 deviations
    assert float(noise.var()) == pytest.approx(0.09, rel=0.02)
    assert float((noise / noise.std()).pow(4).mean()) == pytest.approx(kurtosis, rel=0.06)
    neighbours = torch.corrcoef(torch.stack([noise[1:], noise[:-1]]))[0, 1]
    assert abs(float(neighbours)) < 0.01


def test_noise_by_its_variance():
    assert GaussianNoise.with_variance(0.09).deviation == pytest.approx(0.3)
    assert LaplaceNoise.with_variance(0.09).deviation == pytest.approx(0.3)


@pytest.mark.parametrize("rescaled", [False, True])
def test_masks(rescaled):
    leaf = torch.ones(N, dtype=torch.float64)
    masked = drawn(Mask(rate=0.3, rescaled=rescaled), leaf)
    assert float((masked == 0).double().mean()) == pytest.approx(0.3, abs=0.005)
    assert set(masked.unique().tolist()) == {0.0, 1 / 0.7 if rescaled else 1.0}
    assert float(masked.mean()) == pytest.approx(1.0 if rescaled else 0.7, abs=0.008)
    neighbours = torch.corrcoef(torch.stack([masked[1:], masked[:-1]]))[0, 1]
    assert abs(float(neighbours)) < 0.01


@pytest.mark.parametrize("format", ["fp16", "bf16", "int8"])
def test_rounding_by_chance_keeps_the_mean(format):
    value = torch.full((N,), 0.73001, dtype=torch.float64)
    value[0] = 1.0  # the largest, which says how long int8's steps are
    defense = LowPrecision(format=format, stochastic=True)
    step = float(defense.step(value)[1])
    off = (drawn(defense, value)[1:] - value[1:]) / step
    share = float(value[1] / step) % 1
    assert float(off.mean()) == pytest.approx(0, abs=0.006)
    assert float(off.var()) == pytest.approx(share * (1 - share), rel=0.05)
    assert len(off.unique()) == 2


def test_what_float32_rounds_is_never_a_step_off_where_nothing_is_missing():
    exact = torch.arange(-127, 128, dtype=torch.float32).repeat(400)
    defense = LowPrecision(format="int8", stochastic=True)
    torch.testing.assert_close(drawn(defense, exact), exact, rtol=1e-6, atol=0)


def test_the_noise_of_dpsgd_is_shared_by_the_records():
    assert DPSGD(clip=0.5, noise_multiplier=1.2).deviation(6) == pytest.approx(0.1)
