"""mse, psnr and ssim against closed forms, against loops, and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from gradleak.errors import InvalidBatch
from gradleak.metrics import mse, psnr, ssim

exactly = {"rtol": 0, "atol": 0}


def pictures(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_ssim(guess, truth):
    """One sample, by the definition: a variance is a mean of squares, not a difference of two means."""
    side = min(guess.shape[1:])
    size = 11 if side >= 11 else max(k for k in range(1, side + 1, 2))
    gauss = [math.exp(-((i - size // 2) ** 2) / (2 * 1.5**2)) for i in range(size)]
    weight = np.outer(gauss, gauss) / sum(gauss) ** 2
    places = []
    for a, b in zip(guess.numpy(), truth.numpy(), strict=True):
        for i in range(a.shape[0] - size + 1):
            for j in range(a.shape[1] - size + 1):
                p, q = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
                mp, mq = (weight * p).sum(), (weight * q).sum()
                vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
                cov = (weight * (p - mp) * (q - mq)).sum()
                light = (2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2)
                places.append(light * (2 * cov + 0.03**2) / (vp + vq + 0.03**2))
    return sum(places) / len(places)


@pytest.mark.parametrize("shape", [(2,), (2, 7), (2, 3, 5, 4), (2, 1, 2, 3, 4)])
def test_mse_is_the_mean_of_squared_differences_of_each_sample(shape):
    guess, truth = pictures(*shape, seed=1), pictures(*shape, seed=2)
    for got, g, t in zip(mse(guess, truth).tolist(), guess, truth, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(g.reshape(-1).tolist(), t.reshape(-1).tolist(), strict=True)]
        assert got == pytest.approx(sum(squares) / len(squares), rel=1e-12)


def test_psnr_of_a_known_offset():
    truth = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    guess = truth + torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(psnr(guess, truth), torch.tensor([0.0, 20.0, 40.0], dtype=torch.float64))


def test_identical_pictures():
    x = pictures(2, 3, 12, 13)
    torch.testing.assert_close(mse(x, x), torch.zeros(2, dtype=torch.float64), **exactly)
    torch.testing.assert_close(psnr(x, x), torch.full((2,), math.inf, dtype=torch.float64), **exactly)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_nothing_is_clamped():
    truth = torch.ones(1, 1, 4, 4)
    assert mse(truth + 2, truth).item() == 4
    assert psnr(truth + 9, truth).item() == pytest.approx(10 * math.log10(1 / 81))
    assert ssim(truth + 2, truth).item() < ssim(truth, truth).item() - 0.1


@pytest.mark.parametrize("shape", [(3, 11, 11), (1, 32, 32), (3, 28, 17), (4, 12, 40)])
def test_ssim_agrees_with_scikit_image(shape):
    # With sigma 1.5 scikit-image truncates its Gaussian at 3.5 sigma, a window of 11, pads, and then leaves
    # the padded border of 5 out of the mean: the places that are left are those without padding.
    truth = pictures(2, *shape, seed=3)
    guess = (truth + 0.2 * pictures(2, *shape, seed=4)).clamp(0, 1)
    expected = [
        structural_similarity(
            g.numpy(),
            t.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
        for g, t in zip(guess, truth, strict=True)
    ]
    torch.testing.assert_close(ssim(guess, truth), torch.tensor(expected).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 4, 4), (1, 6, 20), (3, 10, 10), (1, 11, 12), (2, 13, 11)])
def test_ssim_agrees_with_its_definition_also_where_the_window_shrinks(shape):
    truth = pictures(2, *shape, seed=5)
    guess = 0.7 * truth + 0.3 * pictures(2, *shape, seed=6)
    expected = torch.tensor([slow_ssim(g, t) for g, t in zip(guess, truth, strict=True)])
    torch.testing.assert_close(ssim(guess, truth), expected.double(), rtol=0, atol=1e-12)


def test_ssim_of_two_constant_pictures_is_the_luminance_term():
    a, b = 0.25, 0.75
    got = ssim(torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b))
    assert got.item() == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-12)


def test_a_negative_has_negative_ssim():
    x = (pictures(1, 1, 16, 16) > 0.5).double()
    assert ssim(1 - x, x).item() < -0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_sample_gets_the_worst_values_and_spoils_no_other(bad):
    truth, guess = pictures(3, 3, 12, 12, seed=7), pictures(3, 3, 12, 12, seed=8)
    alone = [metric(guess, truth) for metric in (mse, psnr, ssim)]
    guess[1, 2, 11, 0] = bad
    for metric, before, worst in zip((mse, psnr, ssim), alone, (math.inf, -math.inf, -1), strict=True):
        after = metric(guess, truth)
        assert after[1].item() == worst
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **exactly)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    side=st.integers(3, 14),
    scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e4, 1e10, 1e30, 1e100, 1e200]),
)
def test_no_guess_however_far_out_gives_a_nan_or_leaves_the_range(seed, side, scale):
    truth = pictures(2, 1, side, side + 1, seed=seed)
    guess = scale * (pictures(2, 1, side, side + 1, seed=seed + 1) - 0.5)
    similarity = ssim(guess, truth)
    assert bool(((similarity >= -1 - 1e-12) & (similarity <= 1 + 1e-12)).all())
    assert not bool(psnr(guess, truth).isnan().any() | mse(guess, truth).isnan().any())


@pytest.mark.parametrize("offset", [1e6, 1e7, 1e8, 1e9])
def test_ssim_stays_in_its_range_where_variances_are_nothing_but_rounding(offset):
    guess, truth = (offset + pictures(8, 1, 16, 16, seed=seed) for seed in (11, 12))
    similarity = ssim(guess, truth)
    assert bool(((similarity > -1) & (similarity <= 1 + 1e-12)).all())  # -1 is for what diverged
    assert bool((ssim(guess + 1e-3, guess) <= 1 + 1e-12).all())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), side=st.integers(3, 14))
def test_all_three_are_symmetric_and_follow_the_samples(seed, side):
    a, b = pictures(3, 2, side, side, seed=seed), pictures(3, 2, side, side, seed=seed + 1)
    order = torch.tensor([2, 0, 1])
    for metric in (mse, psnr, ssim):
        torch.testing.assert_close(metric(a, b), metric(b, a))
        torch.testing.assert_close(metric(a[order], b[order]), metric(a, b)[order])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_pictures_are_compared_in_float64(dtype):
    guess, truth = pictures(2, 3, 12, 12, seed=9).to(dtype), pictures(2, 3, 12, 12, seed=10).to(dtype)
    for metric in (mse, psnr, ssim):
        assert metric(guess, truth).dtype == torch.float64
        torch.testing.assert_close(metric(guess, truth), metric(guess.double(), truth.double()), **exactly)


def test_inputs_are_left_alone_and_no_graph_is_kept():
    truth = pictures(2, 3, 12, 12)
    guess = pictures(2, 3, 12, 12, seed=1).requires_grad_()
    before = truth.clone(), guess.detach().clone()
    for metric in (mse, psnr, ssim):
        assert not metric(guess, truth).requires_grad
    torch.testing.assert_close((truth, guess.detach()), before, **exactly)


@pytest.mark.parametrize("metric", [mse, psnr, ssim])
def test_what_cannot_be_compared_is_refused(metric):
    x = pictures(2, 3, 12, 12)
    with pytest.raises(InvalidBatch, match=r"\[1, 3, 12, 12\].*\[2, 3, 12, 12\]"):
        metric(x[:1], x)
    with pytest.raises(InvalidBatch, match=r"guess must be real.*uint8"):
        metric((x * 255).to(torch.uint8), x)
    with pytest.raises(InvalidBatch, match=r"truth must be real.*complex"):
        metric(x, x.to(torch.complex128))
    with pytest.raises(InvalidBatch, match="at least one sample"):
        metric(x[:0], x[:0])
    with pytest.raises(InvalidBatch, match="at least one sample"):
        metric(x[0, 0, 0, 0], x[0, 0, 0, 0])
    broken = x.clone()
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(InvalidBatch, match="truth must be finite, but 1 of its 864"):
        metric(x, broken)


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 1, 2, 12), (2, 1, 12, 2), (2, 1, 3, 12, 12)])
def test_ssim_wants_pictures(shape):
    with pytest.raises(InvalidBatch, match=r"\[B, C, H, W\]"):
        ssim(pictures(*shape), pictures(*shape))
