"""iDLG (Zhao, Mopuri and Bilen 2020): the label of a single record, read off the last layer's gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.residual import explained
from gradleak.labels.sent import gradient_of
from gradleak.observe import Head, Observation, OneGradient, cross_entropy, head, logistic
from gradleak.observe.uncertainty import Defended
from gradleak.randomness import Rng
from gradleak.trees import Tree


@dataclass(frozen=True)
class SignRule:
    """Under cross entropy dL/dlogit_i = p_i − 1[i = label]: negative for the label alone.

    With a bias that is the bias's own gradient. Without one, the weight's row i is that number times
    the features, so the label's row is the one whose product with every other row is not positive.

    The paper stops at the sign. ``certain`` says more: that the gradient explains itself, as one of plain
    cross entropy with one hard label does. Noise, a soft label, or another client or loss does not.
    """

    citations: tuple[str, ...] = ("idlg",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        if obs.batch_size != 1:
            return Unanswerable(
                f"the sign rule reads one record's label, and this batch holds {obs.batch_size}"
            )
        last = head(obs)
        if last is None:
            return Unanswerable("the model does not end in a linear layer whose gradient was sent")
        gradient = gradient_of(obs)
        if isinstance(obs.client, Defended) and obs.steps == 1 and obs.loss is not logistic:
            return _among_blurred(obs.update, last)
        if gradient is None:
            return Unanswerable(f"the update of {obs.client!r} is no gradient, whose signs could be read")
        if obs.loss is logistic:
            return _side(obs, gradient, last)
        rows = gradient[last.weight] if last.bias is None else gradient[last.bias][:, None]
        if last.bias is None and len(rows) == 2:
            return Unanswerable(
                "without a bias, the gradients of two classes differ in nothing but their sign"
            )
        signs = row_products(rows) if last.bias is None else rows[:, 0]
        if float(signs.min()) >= 0:
            return Unanswerable(
                f"some class should stand out below zero in the gradient of '{last.weight}', and none does: "
                "the record is fitted to the last bit, or this is no plain cross entropy"
            )
        # Under noise the lowest is still the best guess, though no proof.
        y = signs.argmin().reshape(1)
        possible = opposed(rows) if last.bias is None else signs < 0
        plain = obs.loss is cross_entropy and type(obs.client) is OneGradient
        proven = bool(possible[y]) and int(possible.sum()) == 1 and cancels(rows)
        return LabelGuess(y=y, certain=plain and proven and _explained(obs, gradient, last, int(y)))


def _among_blurred(update: Tree, last: Head) -> LabelGuess | Unanswerable:
    """A defense may have dropped any one entry, or left only signs: all of the layer's are asked together.

    The rows are d_i h for one h, and the label's d is the one below zero. Which side is below, the bias
    says, whose gradient is d; without one, features that are positive, as after a sigmoid or a ReLU.
    """
    rows = update[last.weight].double()
    if not bool(rows.any()):
        return Unanswerable(f"nothing was sent of '{last.weight}', whose gradient tells the label")
    shares, _, features = torch.linalg.svd(rows, full_matrices=False)
    d = shares[:, 0]
    by_bias = 0.0 if last.bias is None else float(update[last.bias].double() @ d)
    up = by_bias or float(features[0].sum())
    return LabelGuess(y=(d if up >= 0 else -d).argmin().reshape(1))


def _explained(obs: Observation, gradient: Tree, last: Head, y: int) -> bool:
    W = obs.params[last.weight]
    stem = last.weight.removesuffix("weight") + "bias"
    b = obs.params.get(stem, obs.constants.get(stem, W.new_zeros(len(W))))
    bias = None if last.bias is None else gradient[last.bias]
    return explained(gradient[last.weight], bias, W, b, y)


def _side(obs: Observation, gradient: Tree, last: Head) -> LabelGuess | Unanswerable:
    """One logit: dL/dlogit = p − y is negative for the label 1 and positive for 0."""
    if last.bias is None:
        return Unanswerable(
            "one logit without a bias: the label's sign and the features' cannot be told apart"
        )
    slope = gradient[last.bias]
    y = (slope < 0).long().reshape(1)
    plain = bool(slope.abs().max() > 0) and type(obs.client) is OneGradient
    return LabelGuess(y=y, certain=plain and _explained(obs, gradient, last, int(y)))


def row_products(rows: Tensor) -> Tensor:
    """Each row's summed products with all the others.

    Row i is d_i h with the features h and d summing to zero, so this is −d_i² |h|² and lowest for the
    label, whose |d| is the sum of all the others.
    """
    products = rows @ rows.T
    return products.sum(1) - products.diagonal()


def opposed(rows: Tensor) -> Tensor:
    """Which rows have no positive product with another: the label's alone, given three that are not zero."""
    products = (rows @ rows.T).fill_diagonal_(0)
    return (products <= 0).all(1) & (rows != 0).any(1)


def cancels(rows: Tensor) -> bool:
    """Whether the rows sum to zero, as far as their precision can tell: Σ p_i = 1 = Σ 1[i = label]."""
    tolerance = torch.finfo(rows.dtype).eps ** 0.5
    return bool(rows.sum(0).norm() <= tolerance * rows.norm(dim=1).max())


def idlg() -> SignRule:
    """Read one record's label off the sign of the last layer's gradient (Zhao et al. 2020)."""
    return SignRule()
