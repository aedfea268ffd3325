"""How much of the batch's multiset of labels a guess gets right, and what a guess from nothing gets."""

from collections import Counter

import torch
from torch import Tensor

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.metrics.checks import check_classes, check_labels
from gradleak.randomness import Rng, generator


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


def null_label_agreement(truth: Tensor, classes: int, *, rng: Rng, draws: int = 200) -> float:
    """What uniformly random labels agree with the truth, averaged over ``draws`` guesses."""
    check_classes(truth, classes)
    if draws < 1:
        raise InvalidInput(f"draws must be at least 1, but is {draws}; 200 settle the second digit")
    guesses = torch.randint(classes, (draws, len(truth)), generator=generator(rng))
    return sum(label_agreement(guess, truth) for guess in guesses) / draws


def flat_label_agreement(truth: Tensor, classes: int) -> float:
    """What a guess of B / classes labels of each class agrees with the truth; fractions count as such."""
    check_classes(truth, classes)
    counts = torch.bincount(truth.cpu().long(), minlength=classes).double()
    return float(counts.clamp_max(len(truth) / classes).sum()) / len(truth)
