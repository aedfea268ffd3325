"""Whether a guess tells which picture of a gallery it was made from, though it may look poor."""

import torch
from torch import Tensor

from gradleak.errors import InvalidBatch
from gradleak.metrics.checks import comparable
from gradleak.metrics.image import mse


def identified(guess: Tensor, truth: Tensor, gallery: Tensor) -> Tensor:
    """[B] of bool: whether guess i is nearer to truth i than to every other picture, by squared error.

    ``gallery`` [N, ...] holds the others, and no private picture. One guess without the update is nearest to
    one picture, whoever's update it was: its share is about one in N + 1. A tie identifies nobody.
    """
    guess, truth = comparable(guess, truth)
    if gallery.ndim != truth.ndim or gallery.shape[1:] != truth.shape[1:] or len(gallery) == 0:
        raise InvalidBatch(
            f"expected a gallery [N, ...] of samples of shape {list(truth.shape[1:])}, with N of at least 1; "
            f"came {list(gallery.shape)}"
        )
    others = torch.stack([mse(guess, one.to(guess).expand_as(guess)) for one in gallery]).amin(0)
    found: Tensor = mse(guess, truth) < others
    return found
