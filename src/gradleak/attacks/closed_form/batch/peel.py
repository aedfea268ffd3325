"""From what is known at the logits down to the pixels, one linear layer at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradleak.attacks.closed_form.batch.dense import Activation, Stage
from gradleak.attacks.closed_form.batch.factors import Factors

_ROUNDS = 8
_CLEAR = 0.25  # of the distance between the two sides of a kink


def peel(net: Sequence[Stage], factors: Sequence[Factors], H: Tensor, D: Tensor, blur: Tensor) -> Tensor:
    """The batch [B, inputs] from the last layer's inputs H and its deltas D, both up to their noise.

    δ_l = (δ_{l+1} W_{l+1}) ∘ act'(z_l), and A_l from Δ_lᵀ A_l = dW_l, which Δ_l of full rank determines.
    ``blur`` [B] is the noise of H's entries, record by record.
    """
    A, delta = H, D
    for i in range(len(net) - 1, 0, -1):
        above = delta @ net[i].W
        below = net[i - 1]
        delta = above * _slopes(below.act, A, above, factors[i - 1], blur)
        solution = torch.linalg.lstsq(delta.mT, factors[i - 1].G).solution
        A = solution[:, : below.W.shape[1]]
        blur = factors[i - 1].noise * torch.linalg.pinv(delta).norm(dim=0)
    return A


def _slopes(act: Activation, A: Tensor, above: Tensor, f: Factors, blur: Tensor) -> Tensor:
    """act'(z) from the outputs A; at a kink from the data.

    Rounding leaves small numbers where a ReLU gave 0. Instead of a threshold, the layer's own gradient
    decides: each row of Δ lies in the span of U, so that the entries that are certain, which are many
    more than the rank, say through U c what the doubtful ones are.
    """
    if act.kink is None:
        return act.slope(A)
    slopes = act.slope(A)
    doubt = A.abs() <= 6 * blur[:, None]
    for k in range(len(A)):
        slopes[k] = _decide(act.kink, slopes[k], doubt[k], above[k], f.U)
    return slopes


def _decide(kink: float, slope: Tensor, doubt: Tensor, above: Tensor, U: Tensor) -> Tensor:
    certain = ~doubt
    for _ in range(_ROUNDS):
        if int(certain.sum()) <= U.shape[1]:
            return slope
        target = torch.where(certain, above * slope, 0.0)
        c = torch.linalg.lstsq(U * certain[:, None].to(U), target[:, None]).solution[:, 0]
        seen = U @ c
        ratio = (seen - kink * above) / ((1 - kink) * above + 1e-300)  # 1 on the open side, 0 on the other
        fresh = torch.ones_like(slope).masked_fill(ratio <= 0.5, kink)
        clear = torch.minimum(ratio.abs(), (ratio - 1).abs()) < _CLEAR
        if bool(((fresh == slope) | ~clear).all()) and bool((clear == certain).all()):
            break
        slope, certain = torch.where(clear | doubt, fresh, slope), clear
    return slope
