"""From estimated counts, which are real numbers, to whole ones that add up to the batch."""

import torch
from torch import Tensor


def allocate(
    estimate: Tensor, total: int, *, least: Tensor | None = None, only: Tensor | None = None
) -> Tensor:
    """[classes]: the whole numbers of sum ``total`` that are nearest, none below ``least``.

    One after another each record goes where it is missed most, which is optimal since the distance is
    convex in each count. Classes outside ``only`` get nothing beyond their least.
    """
    wanted = torch.nan_to_num(estimate.double(), nan=0.0, posinf=float(total), neginf=0.0)
    counts = torch.zeros(len(wanted), dtype=torch.int64) if least is None else least.cpu().long().clone()
    while int(counts.sum()) > total:  # more classes proven than there are records: some proof is wrong
        counts[int(torch.where(counts > 0, wanted.cpu() - counts, torch.inf).argmin())] -= 1
    missing = wanted.cpu() - counts
    if only is not None and bool(only.any()):
        missing = missing.masked_fill(~only.cpu(), -torch.inf)
    for _ in range(total - int(counts.sum())):
        n = int(missing.argmax())
        counts[n] += 1
        missing[n] -= 1
    return counts


def records(counts: Tensor, device: torch.device) -> Tensor:
    """[B]: the labels, in order, of so many records of each class."""
    return torch.repeat_interleave(torch.arange(len(counts)), counts.cpu()).to(device)
