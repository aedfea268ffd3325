"""The gradient of one linear layer as a product of two thin matrices, and how noisy it is."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """``[dW | db] = U diag(S) V`` up to rank r, in float64.

    The records' own factors are Δᵀ [A, 1] with Δ [r, outputs] and A [r, inputs], so that [A, 1] = Q V and
    Δᵀ Q = U S for one unknown r x r matrix Q. ``noise`` is the standard deviation of what was added to, or
    rounded off, each entry of the gradient: everything here is judged by it.
    """

    G: Tensor  # [outputs, inputs + 1]
    U: Tensor  # [outputs, r]
    S: Tensor  # [r]
    V: Tensor  # [r, inputs + 1]
    noise: float

    @property
    def rank(self) -> int:
        return len(self.S)

    @property
    def features(self) -> Tensor:
        return self.V[:, :-1]

    @property
    def bias(self) -> Tensor:
        return self.V[:, -1]

    def blur(self, q: Tensor) -> Tensor:
        """[...]: the standard deviation that the noise leaves in each entry of q V, for rows q [..., r].

        V = S⁻¹ Uᵀ G, so that entry j of q V moves by Σᵢ (qᵢ / Sᵢ) (Uᵀ noise)ᵢⱼ.
        """
        blur: Tensor = self.noise * (q / self.S).norm(dim=-1)
        return blur


def factor(weight: Tensor, bias: Tensor | None, rank: int, eps: float, *, simplex: bool = False) -> Factors:
    """The factors of rank ``rank``, or of fewer where the gradient does not show as many.

    ``eps`` is the rounding of the numbers as they were sent. ``simplex`` says that the columns of the
    gradient sum to 0, which those of softmax cross entropy do.
    """
    G = weight if bias is None else torch.cat((weight, bias[:, None]), 1)
    u, s, v = torch.linalg.svd(G, full_matrices=False)
    noise = max(_left_over(G, s, rank, simplex), eps * float(G.square().mean().sqrt()))
    seen = int((s > 4 * noise * (G.shape[0] ** 0.5 + G.shape[1] ** 0.5)).sum())
    r = min(rank, seen)
    return Factors(G, u[:, :r], s[:r], v[:r], noise)


def _left_over(G: Tensor, s: Tensor, rank: int, simplex: bool) -> float:
    """The root mean square of what no batch of ``rank`` records can have put into the gradient.

    The directions below the rank hold noise alone. So does the sum over the classes, which is all that
    is left to look at in the largest batch that can be told apart.
    """
    rows, columns = G.shape
    free = (min(rows, columns) - rank) * (max(rows, columns) - rank)
    found = [float(s[rank:].square().sum() / free) ** 0.5] if free > 0 else []
    if simplex:
        found.append(float((G.sum(0).square().mean() / rows) ** 0.5))
    return max(found, default=0.0)
