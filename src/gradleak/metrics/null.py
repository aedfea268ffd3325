"""What one guesses without the gradient: only what exceeds it has leaked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradleak.errors import InvalidBatch
from gradleak.metrics.checks import check_finite, check_floating, check_tensor
from gradleak.randomness import Rng, generator


def mean_picture(reference: Tensor | None, shape: Sequence[int]) -> Tensor:
    """The mean of public pictures [N, ...], or mid-gray where there are none, for every sample of ``shape``.

    ``shape`` is that of the whole batch, [B, ...]. Of all constant guesses the mean of the data has the
    smallest expected squared error, so it is the one to beat. Mid-gray presumes data in [0, 1].
    """
    if reference is None:
        return torch.full(tuple(shape), 0.5)
    check_tensor("reference pictures", reference)
    if reference.ndim == 0 or len(reference) == 0 or list(reference.shape[1:]) != list(shape[1:]):
        raise InvalidBatch(
            f"reference pictures must be [N, ...] with N of at least 1 and samples of shape "
            f"{list(shape[1:])}, but came {list(reference.shape)}; resize them, or pass None for mid-gray"
        )
    check_floating("reference", reference)
    check_finite("reference", reference)
    return reference.detach().mean(0).expand(tuple(shape)).clone()


def random_picture(shape: Sequence[int], *, rng: Rng) -> Tensor:
    """Pixels drawn uniformly from [0, 1), on the CPU."""
    return torch.rand(tuple(shape), generator=generator(rng), dtype=torch.float32)
