"""One record's gradient at the head explains itself: its features say what p − y must be."""

import torch
from torch import Tensor
from torch.nn import functional as F

_CLOSE = 1e-3  # of p − y
_ROUNDINGS = 64  # of a probability, which is rounded as a number near 1
_GRID = 400


def explained(weight: Tensor, bias: Tensor | None, W: Tensor, b: Tensor, y: int) -> bool:
    """Whether dW = δ hᵀ and db = δ with δ = softmax(W h + b) − e_y: the gradient of one hard label.

    With a bias h is a quotient. Without one its length is open, and one is looked for that fits. One row
    is the logistic loss, where y is 0 or 1.
    """
    eps = torch.finfo(weight.dtype).eps
    weight, W, b = weight.double(), W.double(), b.double()
    if bias is not None:
        delta = bias.double()
        features = weight.T @ delta / delta.dot(delta)
        rest = weight - torch.outer(delta, features)
        if float(rest.norm()) > _CLOSE * float(weight.norm()):
            return False
        return _fits(delta, features[None], W, b, y, eps)
    left, sizes, right = torch.linalg.svd(weight, full_matrices=False)
    if len(sizes) > 1 and float(sizes[1]) > _CLOSE * float(sizes[0]):
        return False
    turned = -1.0 if float(left[y, 0]) > 0 else 1.0
    direction, features = turned * left[:, 0], turned * sizes[0] * right[0]
    low, high = -12.0, 1.0
    for _ in range(4):  # a grid, and finer ones around its best point
        lengths = torch.logspace(low, high, _GRID, dtype=torch.float64, device=weight.device)
        off = _off(lengths[:, None] * direction, features / lengths[:, None], W, b, y)
        best = int((off / lengths).argmin())
        step = (high - low) / (_GRID - 1)
        low, high = low + (best - 1) * step, low + (best + 1) * step
    length = lengths[best]
    return _fits(length * direction, features[None] / length, W, b, y, eps)


def _fits(delta: Tensor, features: Tensor, W: Tensor, b: Tensor, y: int, eps: float) -> bool:
    off = float(_off(delta[None], features, W, b, y)[0])
    return off <= _CLOSE * float(delta.norm()) + _ROUNDINGS * eps


def _off(delta: Tensor, features: Tensor, W: Tensor, b: Tensor, y: int) -> Tensor:
    logits = features @ W.T + b
    if len(W) == 1:
        off = logits.sigmoid() - y - delta
    else:
        off = logits.softmax(-1) - F.one_hot(torch.tensor(y), len(W)).to(delta) - delta
    return off.square().sum(-1).sqrt()
