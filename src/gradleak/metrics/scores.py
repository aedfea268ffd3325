"""All that is said about one guess: its scores, each beside what a guess without the gradient scores."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gradleak.metrics.image import SMALLEST_SIDE, mse, psnr, ssim
from gradleak.metrics.labels import flat_label_agreement, label_agreement, null_label_agreement
from gradleak.metrics.null import mean_picture, random_picture
from gradleak.metrics.pairing import pair
from gradleak.randomness import Rng, spawn

Json = list[float | int | str] | float | int | str | None


# Without eq: two Scores would be compared by the truth value of whole tensors, which has none.
@dataclass(frozen=True, eq=False)
class Scores:
    """Tensors are [B], in the order of the truth. A field is None where there was nothing to compare.

    ``pairing``: guess[pairing[i]] was compared with truth[i].
    ``ssim``, ``null_ssim``: None unless the samples are pictures of at least 3 x 3.
    ``null_psnr``, ``null_ssim``: of the mean reference picture, or of mid-gray.
    ``random_psnr``: of uniform noise, paired as the guess was.
    ``null_label_agreement``, ``flat_label_agreement``: of random labels, and of equally many of each class.
    """

    mse: Tensor
    psnr: Tensor
    ssim: Tensor | None
    pairing: Tensor
    label_agreement: float | None
    null_psnr: Tensor
    null_ssim: Tensor | None
    random_psnr: Tensor
    null_label_agreement: float | None
    flat_label_agreement: float | None

    @property
    def best_null_psnr(self) -> Tensor:
        """Of the better of the two nulls, picture by picture."""
        return torch.maximum(self.null_psnr, self.random_psnr)

    @property
    def leak(self) -> Tensor:
        """How many decibels each guess lies above the better null; at or below 0 nothing was learnt."""
        null = self.best_null_psnr
        # Where both are inf the null was perfect already, and their difference would be NaN.
        return (self.psnr - null).where(self.psnr != null, 0.0)

    def to_dict(self) -> dict[str, Json]:
        """Every field and ``leak`` as plain JSON; infinities, which JSON lacks, as "inf" and "-inf"."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {"leak": self.leak}
        return {name: _plain(value) for name, value in values.items()}


def score(
    guess_x: Tensor,
    guess_y: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    *,
    classes: int | None,
    reference: Tensor | None = None,
    rng: Rng = 0,
) -> Scores:
    """Pairs the guess with the truth, and compares; data in [0, 1], nothing is clamped.

    ``reference`` holds public pictures [N, ...], and must hold none of the private ones: they would make
    the null stronger, and the leak look smaller. Where ``classes`` is None, labels have no null and are
    not scored. ``rng`` draws the random nulls and nothing else.
    """
    (pixels,) = spawn(rng, 1)
    pairing = pair(guess_x, x)
    guess = guess_x[pairing]
    null = mean_picture(reference, x.shape)
    # Noise is paired too: the guess was given its best order, and the null deserves no less.
    noise = random_picture(x.shape, rng=pixels)
    noise = noise[pair(noise, x)]
    pictures = x.ndim == 4 and min(x.shape[2:]) >= SMALLEST_SIDE
    agreement, random_agreement, flat_agreement = _label_scores(guess_y, y, classes)
    return Scores(
        mse=mse(guess, x),
        psnr=psnr(guess, x),
        ssim=ssim(guess, x) if pictures else None,
        pairing=pairing,
        label_agreement=agreement,
        null_psnr=psnr(null, x),
        null_ssim=ssim(null, x) if pictures else None,
        random_psnr=psnr(noise, x),
        null_label_agreement=random_agreement,
        flat_label_agreement=flat_agreement,
    )


def _label_scores(
    guess: Tensor | None, truth: Tensor | None, classes: int | None
) -> tuple[float, float, float] | tuple[None, None, None]:
    if guess is None or truth is None or classes is None:
        return None, None, None
    random = null_label_agreement(truth, classes)
    return label_agreement(guess, truth), random, flat_label_agreement(truth, classes)


def _plain(value: Tensor | float | None) -> Json:
    if isinstance(value, torch.Tensor):
        return [_number(entry) for entry in value.tolist()]
    return None if value is None else _number(value)


def _number(value: float | int) -> float | int | str:
    return str(value) if math.isinf(value) else value
