"""How much of the batch's multiset of labels a guess gets right, and what a guess from nothing gets."""

from collections import Counter

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from gradleak.errors import InvalidBatch
from gradleak.metrics.checks import check_classes, check_labels


def label_agreement(guess: Tensor, truth: Tensor) -> float:
    """The share of the labels that are right: the sum over classes of min(guessed, true) counts, over B.

    The order is not compared, for the gradient of a batch has none. A guess of -1, "unknown", is never right.
    """
    check_labels("guessed", guess)
    check_labels("true", truth)
    if len(guess) != len(truth) or len(truth) == 0:
        raise InvalidBatch(
            f"expected one guessed label for each true one, and at least one, but came {len(guess)} for "
            f"{len(truth)}; fill up what the attack left open with -1"
        )
    return (Counter(guess.tolist()) & Counter(truth.tolist())).total() / len(truth)


def null_label_agreement(truth: Tensor, classes: int) -> float:
    """What uniformly random labels agree with the truth, on average over all guesses there are.

    How often a class is guessed is binomial, and the average of a sum needs no more than that.
    """
    check_classes(truth, classes)
    counts, guessed = torch.bincount(truth.cpu().long(), minlength=classes), np.arange(len(truth) + 1)
    chances = binom.pmf(guessed, len(truth), 1 / classes)
    right = np.minimum.outer(counts.numpy(), guessed) @ chances
    return float(right.sum()) / len(truth)


def flat_label_agreement(truth: Tensor, classes: int) -> float:
    """What a guess of B / classes labels of each class agrees with the truth; fractions count as such."""
    check_classes(truth, classes)
    counts = torch.bincount(truth.cpu().long(), minlength=classes).double()
    return float(counts.clamp_max(len(truth) / classes).sum()) / len(truth)
