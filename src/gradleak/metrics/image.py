"""How far a guessed sample is from the true one: mean squared error, PSNR and SSIM, one value per sample.

Every picture is taken as it comes, with a data range of 1: nothing is clamped into [0, 1] here. An attack
that leaves the range is scored on what it left; a caller who wants otherwise clamps before the call.
All values are computed and returned in float64. A sample whose guess holds NaN or infinity (a diverged
attack) gets the worst value there is: mse inf, psnr -inf, ssim -1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gradleak.errors import InvalidBatch
from gradleak.metrics.checks import comparable

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
SMALLEST_SIDE = 3


def mse(guess: Tensor, truth: Tensor) -> Tensor:
    """[B], the mean over everything but the first dimension; samples may have any shape."""
    guess, truth = comparable(guess, truth)
    error = (guess - truth).square().reshape(len(truth), -1)
    return error.mean(1).nan_to_num(nan=math.inf, posinf=math.inf)


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """[B], in decibels: 10 log10(1 / mse), which is inf where the two are identical."""
    return -10 * mse(guess, truth).log10()


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """[B], for pictures [B, C, H, W] of at least 3 x 3: the mean over channels and window positions.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004), eq. 13:
    a Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, placed only where it fits whole.
    The paper does not say what to do with pictures smaller than that: here the window is the largest odd
    size that fits the shorter side, with the same sigma.
    """
    guess, truth = comparable(guess, truth)
    if truth.ndim != 4 or min(truth.shape[2:]) < SMALLEST_SIDE:
        raise InvalidBatch(
            f"ssim needs pictures [B, C, H, W] with H and W of at least {SMALLEST_SIDE}, but came "
            f"{list(truth.shape)}; compare anything else with mse or psnr"
        )
    window = _window(min(truth.shape[2:]), truth.device)
    similarity = _similarity(guess, truth, window).flatten(1).mean(1)
    # A guess that is finite but cannot be squared in float64 ends as NaN too, and has diverged as well.
    return similarity.nan_to_num(nan=-1.0)


def _similarity(guess: Tensor, truth: Tensor, window: Tensor) -> Tensor:
    """Eq. 13 at every place of the window."""
    mean_g, mean_t = _local_mean(guess, window), _local_mean(truth, window)
    # Rounding can leave a variance just below zero, or a covariance that no two variances allow; for a
    # guess far out of range the difference of squares is nothing but rounding.
    var_g = (_local_mean(guess.square(), window) - mean_g.square()).clamp_min(0)
    var_t = (_local_mean(truth.square(), window) - mean_t.square()).clamp_min(0)
    bound = var_g.sqrt() * var_t.sqrt()
    cov = (_local_mean(guess * truth, window) - mean_g * mean_t).clamp(-bound, bound)
    luminance = (2 * mean_g * mean_t + _C1) / (mean_g.square() + mean_t.square() + _C1)
    structure = (2 * cov + _C2) / (var_g + var_t + _C2)
    return luminance * structure


def _window(shorter_side: int, device: torch.device) -> Tensor:
    """One axis of the Gaussian, which is the product of its two axes."""
    size = min(_WINDOW, shorter_side - 1 + shorter_side % 2)
    offset = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    weight = torch.exp(-offset.square() / (2 * _SIGMA**2))
    return weight / weight.sum()


def _local_mean(pictures: Tensor, window: Tensor) -> Tensor:
    """The windowed mean of each channel, without padding."""
    planes = pictures.flatten(0, 1)[:, None]
    rows = F.conv2d(planes, window[None, None, :, None])
    both = F.conv2d(rows, window[None, None, None, :])
    return both.reshape(*pictures.shape[:2], *both.shape[2:])
