"""What low-rank adapters tell of the words: less than the layers that they stand beside, and often enough."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.text.span import Span, span


@dataclass(frozen=True, eq=False)
class Adapter:
    """B A x, added to what a layer makes of x.

    A's gradient Bᵀ Σ δ xᵀ is one of a layer that reads x, and zero while B is, as it is at first. B's is
    Σ δ (A x)ᵀ: its rows span what A lets through, which says no in as many dimensions as A has more rows
    than there are words.
    """

    rows: Tensor  # the gradient of B [out, r]
    inner: Tensor  # A [r, d]


def adapter_span(adapters: list[Adapter], dtype: torch.dtype, rounding: float) -> Span | str:
    """Of all of B's gradients, in the coordinates of x."""
    found = []
    for one in adapters:
        scale = torch.linalg.matrix_norm(one.inner, 2)
        inside = span([one.rows], dtype, rounding)
        if isinstance(inside, str):
            return f"of an adapter with {len(one.inner)} rows, {inside}"
        if inside.noisy:
            return (
                f"the gradient of an adapter with {len(one.inner)} rows has noise, or too many words, in it"
            )
        found.append((one.inner.T / scale, inside))
    null = torch.cat([A @ inside.null / inside.sigma for A, inside in found], 1)
    weighted = torch.cat([A @ inside.weighted for A, inside in found], 1) / len(found) ** 0.5
    basis = null.new_zeros(len(null), 0)
    own = rounding / min(one.sigma for _, one in found)
    return Span(null, weighted, 1.0, own, False, max(one.rank for _, one in found), basis, [])
