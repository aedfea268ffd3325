"""The last layer in closed form: one record's features, logit residual and label from its gradient."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from gradleak.layers import Layer

_TURN = 1.2784645427610738  # where −μ/(1+eᵐᵘ) has its minimum
_LOWEST = -0.27846454276107374  # and that minimum
_ROUNDING = 1e-15


@dataclass(frozen=True, eq=False)
class HeadGuess:
    """What the last layer read, and what the loss sent back into it.

    ``residual`` is how badly the guess explains the layer's own gradient, relative to it.
    """

    features: Tensor  # [F]
    delta: Tensor  # [outputs], dL/dlogits
    y: int
    residual: float


def head_guesses(layer: Layer, loss: str) -> list[HeadGuess]:
    """All readings of one record's gradient at the last linear layer, the likeliest first.

    With a bias there is one, and it is exact. Without, the features' length comes from one scalar
    equation that can have several roots; whoever asks finds out which by carrying each down.
    """
    if "weight" not in layer.grads:
        return []
    if loss == "logistic":
        found = _logistic_with_bias(layer) if "bias" in layer.grads else _logistic(layer)
    else:
        found = _softmax_with_bias(layer) if "bias" in layer.grads else _softmax(layer)
    return sorted(found, key=_implausibility)


def _implausibility(guess: HeadGuess) -> tuple[float, bool, float]:
    # Features come from activations, which lean to the positive side, and an untrained net's are small.
    return (round(guess.residual, 6), float(guess.features.sum()) < 0, float(guess.features.norm()))


def _softmax_with_bias(layer: Layer) -> Iterator[HeadGuess]:
    """Here db = δ and dW = δ hᵀ, so h is the least-squares solution over all rows."""
    delta = layer.grads["bias"]
    if bool(delta.any()):
        yield _guess(layer, delta, int(delta.argmin()))


def _logistic_with_bias(layer: Layer) -> Iterator[HeadGuess]:
    delta = layer.grads["bias"]
    if bool(delta.any()):
        yield _guess(layer, delta, int(delta[0] < 0))


def _guess(layer: Layer, delta: Tensor, y: int) -> HeadGuess:
    gradient = layer.grads["weight"]
    features = gradient.T @ delta / delta.dot(delta)
    left = gradient - torch.outer(delta, features)
    return HeadGuess(features, delta, y, float(left.norm() / gradient.norm().clamp(min=1e-300)))


def _logistic(layer: Layer) -> Iterator[HeadGuess]:
    """R-GAP's equation (Zhu and Blaschko 2021): ⟨dW, W⟩ = −μ/(1+e^μ) with the margin μ = ±z.

    It has one root above 0 and two below, and the label's sign is open: up to four readings.
    """
    gradient, weight = layer.grads["weight"][0], layer.params["weight"][0]
    for margin in margins(float(gradient @ weight)):
        k = 1 / (1 + np.exp(margin))
        for y, slope in ((1, -k), (0, k)):
            if slope:
                yield HeadGuess(gradient / slope, gradient.new_tensor([slope]), y, 0.0)


def margins(s: float) -> list[float]:
    """The solutions μ of s = −μ/(1+e^μ): none below the minimum, two up to 0, one above."""

    def f(margin: float) -> float:
        return float(-margin / (1 + np.exp(margin))) - s

    if s > 0:
        return [brentq(f, -2 * s - 2, 0.0, xtol=1e-15, rtol=1e-15)]
    if s == 0:
        return [0.0]
    if s <= _LOWEST + _ROUNDING:  # at the minimum both solutions are one, and rounding may pass it by
        return [_TURN] if s >= _LOWEST - _ROUNDING else []
    near = brentq(f, 0.0, _TURN, xtol=1e-15, rtol=1e-15)
    far = brentq(f, _TURN, 700.0, xtol=1e-12, rtol=1e-15) if f(700.0) > 0 else near
    return list(dict.fromkeys((near, far)))


def _softmax(layer: Layer) -> Iterator[HeadGuess]:
    """The gradient dW = δ hᵀ has rank 1: h = β u and δ = (σ/β) v, and softmax(β W u) − e_y = (σ/β) v fixes β.

    The equation of the label's own class is solved for β on a grid of brackets; the other classes'
    equations then say which root is meant.
    """
    gradient, weight = layer.grads["weight"], layer.params["weight"]
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    if float(sizes[0]) == 0:
        return
    for sign in (1.0, -1.0):
        v, u, size = sign * left[:, 0], sign * right[0], float(sizes[0])
        y = int(v.argmin())
        if float(v[y]) >= 0:
            continue
        logits = weight @ u
        for beta in _lengths(logits, size * v, y):
            yield _measured(layer, beta * u, y)


def _lengths(logits: Tensor, target: Tensor, y: int) -> list[float]:
    """The roots β of β (1 − p_y(β)) = −target_y, with p = softmax(β · logits)."""
    needed = -float(target[y])
    scaled = logits.numpy(force=True)

    def f(beta: float) -> float:
        z = beta * (scaled - scaled[y])
        top = max(float(z.max()), 0.0)
        weights = np.exp(z - top)
        return float(beta * (1 - weights[y] / weights.sum()) - needed)

    grid = needed * np.logspace(0, 6, 400)
    values = [f(beta) for beta in grid]
    found = []
    for low, high, a, b in zip(grid, grid[1:], values, values[1:], strict=False):
        if a == 0:
            found.append(float(low))
        elif a * b < 0:
            found.append(float(brentq(f, low, high, xtol=1e-300, rtol=1e-14)))
    return found


def _measured(layer: Layer, features: Tensor, y: int) -> HeadGuess:
    gradient = layer.grads["weight"]
    delta = (layer.params["weight"] @ features).softmax(0)
    delta[y] -= 1
    left = gradient - torch.outer(delta, features)
    return HeadGuess(features, delta, y, float(left.norm() / gradient.norm()))
