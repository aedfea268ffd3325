"""The guesses without a gradient are what they say, and the mean is the constant to beat."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradleak.errors import InvalidBatch
from gradleak.metrics import mean_picture, mse, random_picture


def test_without_a_reference_it_is_mid_gray():
    assert torch.equal(mean_picture(None, (2, 3, 4, 5)), torch.full((2, 3, 4, 5), 0.5))


def test_the_mean_is_taken_pixel_by_pixel():
    reference = torch.tensor([[[0.0, 1.0]], [[0.5, 1.0]], [[1.0, 0.25]]], dtype=torch.float64)
    expected = torch.tensor([[[0.5, 0.75]]] * 4, dtype=torch.float64)
    torch.testing.assert_close(mean_picture(reference, (4, 1, 2)), expected)


def test_its_samples_share_no_memory():
    null = mean_picture(torch.zeros(2, 3), (2, 3))
    null[0] = 1
    assert null[1].tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), step=st.floats(-1, 1))
def test_no_constant_guess_beats_the_mean_on_the_reference_itself(seed, step):
    reference = torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    null = mean_picture(reference, reference.shape)
    error, moved = mse(null, reference).mean().item(), mse(null + step, reference).mean().item()
    assert moved == pytest.approx(error + step**2, abs=1e-12)


def test_random_pixels_are_uniform_and_follow_the_seed():
    picture = random_picture((4, 3, 64, 64), rng=0)
    assert picture.shape == (4, 3, 64, 64)
    assert 0 <= picture.min() < 0.001
    assert 0.999 < picture.max() < 1
    assert picture.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert picture.var().item() == pytest.approx(1 / 12, abs=0.002)
    assert torch.equal(picture, random_picture((4, 3, 64, 64), rng=torch.Generator().manual_seed(0)))
    assert not torch.equal(picture, random_picture((4, 3, 64, 64), rng=1))


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    random_picture((2, 3), rng=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_reference_that_does_not_fit_is_refused():
    for bad in (torch.rand(4, 3, 5, 5), torch.rand(0, 3, 4, 4), torch.rand(3, 4, 4), torch.tensor(0.5)):
        with pytest.raises(InvalidBatch, match=r"samples of shape \[3, 4, 4\]"):
            mean_picture(bad, (2, 3, 4, 4))
    with pytest.raises(InvalidBatch, match="reference must be real"):
        mean_picture(torch.zeros(4, 3, dtype=torch.uint8), (2, 3))
    with pytest.raises(InvalidBatch, match="reference must be finite"):
        mean_picture(torch.tensor([[math.nan]]), (2, 1))
