"""What a perfect attacker without a prior would reach, said before any attack is run."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The error of an unbiased attacker: it explains the update as well as can be, and knows nothing else.

    Right only where nearly every dimension is determined. Elsewhere a real attacker does better, since it
    knows that pictures are smooth and lie in [0, 1]: where ``psnr`` is below ``null_psnr``, mid-gray is a
    better guess than this attacker's, and the number says only that the noise hides the picture from it.

    ``levels`` stands for the noise levels, and is absent where one number or a perturbation came. Errors
    are those of pixels in [0, 1], before the normalisation.

    ``rmse`` is infinite for a picture with a share in the null space, unless ``damping`` > 0. A damped
    attacker's error is I2F's ‖(JᵀJ + damping)⁻¹ Jᵀδ‖: what the damping holds back is not in it.
    """

    rmse: Tensor  # [levels, B]
    lower: Tensor  # [levels]: ‖Jᵀδ‖ / λmax as an rmse over the whole batch (I2F's lower bound, Eq. 5)
    null_psnr: Tensor  # [B]: what a mid-gray picture scores
    noise: tuple[float, ...]  # none of a perturbation
    unknowns: int  # pixels in the batch
    dimensions: Tensor  # [levels]: directions whose error is below mid-gray's; of a perturbation, the rank
    protected: int  # directions that the update does not depend on
    tolerance: float  # up to which an eigenvalue of JᵀJ, over the largest, counts as 0
    damping: float
    way: str  # "exact" or "matrix-free"
    error: float  # of rmse, relative, as estimated: of the matrix-free way, and of a mean over throws
    of: str  # which change of the update errs so, such as "the mean over 32 throws of Mask's dice"

    @property
    def psnr(self) -> Tensor:
        return -20 * torch.log10(self.rmse)

    @property
    def verdict(self) -> str:
        """One sentence, on the level with the least noise and the picture that it hides least."""
        level = min(range(len(self.noise)), key=self.noise.__getitem__, default=0)
        psnr = self.psnr.reshape(-1, len(self.null_psnr))[level]
        best = int(psnr.argmax())
        reached, null = float(psnr[best]), float(self.null_psnr[best])
        if reached > null:
            reach = f"reaches {reached:.1f} dB, where mid-gray has {null:.1f} dB"
        elif reached > -math.inf:
            reach = f"does no better than mid-gray: {reached:.1f} dB against {null:.1f} dB"
        else:
            reach = "has no finite error"
        at = f" at noise {self.noise[level]:.3g}" if self.noise else ""
        on = " on the picture that it reads best" if len(psnr) > 1 else ""
        about = f" (to about {self.error:.1%})" if self.error else ""
        known = int(self.dimensions.reshape(-1)[level])
        return (
            f"An unbiased attacker without a prior {reach}{on}{at}{about}; {known} of {self.unknowns} "
            f"directions are determined, and {self.protected} do not reach the update at all. "
            f"This is {self.of}."
        )

    def __repr__(self) -> str:
        return f"Prediction({self.verdict})"
