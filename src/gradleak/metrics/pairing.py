"""Which guess belongs to which true sample: a gradient does not know the order of its batch."""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gradleak.errors import InvalidBatch
from gradleak.metrics.checks import comparable

Cost = Callable[[Tensor, Tensor], Tensor]


def pairwise_mse(guess: Tensor, truth: Tensor) -> Tensor:
    """[B, B]: row i, column j holds the mean squared error of guess i for truth j."""
    guess, truth = guess.reshape(len(guess), -1), truth.reshape(len(truth), -1)
    # One column at a time: all differences at once would take B times the memory of the batch. By inner
    # products it would be faster, and a perfect guess would no longer cost exactly nothing.
    return torch.stack([(guess - sample).square().mean(1) for sample in truth], dim=1)


def pair(guess: Tensor, truth: Tensor, *, cost: Cost = pairwise_mse) -> Tensor:
    """The permutation p for which guess[p[i]] is the guess for truth[i], at the smallest total cost.

    It is returned and never applied. ``cost(guess, truth)[i, j]`` is the price of guess i for truth j; it
    is handed [B, ...] tensors in float64. Non-finite prices are avoided before any other is weighed.
    """
    wide_guess, wide_truth = comparable(guess, truth)
    prices = cost(wide_guess, wide_truth)
    if prices.shape != (len(truth), len(truth)):
        raise InvalidBatch(
            f"cost must return a price for every guess and truth, {[len(truth), len(truth)]}, but returned "
            f"{list(prices.shape)}; compare guess[:, None] with truth[None]"
        )
    _, guess_of = linear_sum_assignment(_finite(prices.detach().cpu().to(torch.float64)).T.numpy())
    return torch.as_tensor(guess_of, dtype=torch.long, device=guess.device)


def _finite(prices: Tensor) -> Tensor:
    """The same problem with the same solution, in numbers that the solver can add up."""
    usable = prices.isfinite()
    # A guess gets exactly one truth, so its cheapest price can be taken off all its prices. Otherwise the
    # price of one guess that has run far away would round off the differences between the good ones.
    cheapest = prices.where(usable, torch.inf).amin(1, keepdim=True)
    excess = (prices - cheapest).where(usable, 0.0)
    # More than all the finite prices of one assignment together, so that it never pays to take one more.
    forbidden = 1 + 2 * len(prices) * excess.max()
    return excess.where(usable, forbidden).clamp_max(torch.finfo(torch.float64).max / 4 / len(prices))
