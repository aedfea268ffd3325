"""Batches of several trials in one order, and pictures moved onto each other."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def order_like(x: Tensor, y: Tensor, reference: Tensor, reference_y: Tensor) -> Tensor:
    """The permutation that brings x [B, ...] closest to the reference, records with equal labels first.

    Records swap places only within a label, unless the two batches do not hold the same labels.
    """
    cost = torch.cdist(reference.flatten(1).double(), x.flatten(1).double()).square()
    foreign = reference_y[:, None] != y
    cost = cost + foreign * (1 + len(x) * cost.max())  # dearer than any permutation of equal labels
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(columns, device=x.device)


def aligned(x: Tensor, reference: Tensor) -> Tensor:
    """Each picture of x [B, C, H, W] rolled by the whole pixels that bring it closest to its reference.

    By phase correlation over the channels together: the inverse transform of the normalised cross power
    spectrum peaks at the shift. Shifts beyond a quarter of a side are no registration of one motif, and
    are not looked at.
    """
    spectrum = torch.fft.fft2(reference) * torch.fft.fft2(x).conj()
    spectrum = spectrum / spectrum.abs().clamp(min=torch.finfo(x.dtype).tiny)
    height, width = x.shape[-2:]
    peaks = torch.fft.ifft2(spectrum.sum(1)).real
    near = _near(height, x.device)[:, None] & _near(width, x.device)
    best = peaks.masked_fill(~near, -torch.inf).flatten(1).argmax(1).tolist()
    return torch.stack(
        [one.roll((shift // width, shift % width), dims=(-2, -1)) for one, shift in zip(x, best, strict=True)]
    )


def _near(side: int, device: torch.device) -> Tensor:
    """Which of the shifts 0 … side − 1, the upper half of which are negative, are at most a quarter."""
    shift = torch.arange(side, device=device)
    return torch.minimum(shift, side - shift) <= side // 4
