"""Feedback blending: what was recovered from earlier updates is where the next attack starts."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.attacks.base import Reconstruction
from gradleak.attacks.matching import Matching, as_init
from gradleak.errors import InvalidInput
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator, spawn


@dataclass(frozen=True)
class FeedbackBlending:
    """Attack a stream of updates, each from the blend of what the ones before it gave (Leite et al. 2024).

    The blend is b ← α b + (1 − α) x over the successful reconstructions x, and replaces the start of
    ``base``; labels start as ever. It is used once ``warmup`` attacks from ``base``'s own starts succeeded.
    Success is what the attacker sees: a score of at most ``threshold``, or of ``base.tolerance``.

    With ``gate``, a reconstruction that failed is thrown away, and the next attack starts from the blend as
    it was. Without (the paper's FB-NF), it is blended in like any other.

    Where the released script and we differ: it blends the first two recoveries of the warm-up, and we all of
    them; it would blend numbers that are not finite, after which every start is lost, and we never do.
    """

    base: Matching
    alpha: float = 0.5
    gate: bool = True
    warmup: int = 3
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.base, Matching):
            raise InvalidInput(
                f"expected an attack that has a start, such as dlg(), as base; came {self.base!r}"
            )
        if not _is_real(self.alpha) or not 0 <= self.alpha <= 1:
            raise InvalidInput(f"expected alpha as the blend's share, from 0 to 1; came {self.alpha!r}")
        if isinstance(self.warmup, bool) or not isinstance(self.warmup, int) or self.warmup < 1:
            raise InvalidInput(f"expected warmup as a whole number of 1 or more; came {self.warmup!r}")
        if self.threshold is not None and (not _is_real(self.threshold) or not self.threshold >= 0):
            raise InvalidInput(f"expected threshold as a score of 0 or more; came {self.threshold!r}")

    @property
    def name(self) -> str:
        return f"{self.base.name} with feedback blending"

    @property
    def citations(self) -> tuple[str, ...]:
        return (*self.base.citations, "feedback_blending")

    @property
    def budget(self) -> int:
        return self.base.budget

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        """One update has nothing before it: this is the base attack."""
        return self.base(obs, rng=rng)

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        return self.base.iterate(obs, rng=rng)

    def over(self, observations: Iterable[Observation], *, rng: Rng = 0) -> Iterator[Reconstruction]:
        """One reconstruction for each observation, in their order, each before the next is asked for.

        The blend belongs to this call and ends with it. Observation i draws from the i-th generator that
        ``rng`` spawns, so until the blend is used it gets what ``base.together`` gives it, to rounding.
        """
        parent = generator(rng)
        blend: Tensor | None = None
        warm = blended = 0
        for obs in observations:
            (own,) = spawn(parent, 1)
            start = blend if warm >= self.warmup else None
            if start is None:
                found = self.base(obs, rng=own)
            else:
                found = replace(self.base, init=as_init(start))(obs, rng=own)
                said = f"started from a blend of {blended} reconstructions"
                found = replace(found, decisions=(*found.decisions, said))
            yield found
            succeeded = self.succeeded(found)
            warm += start is None and succeeded
            new = _pixels(found, obs) if succeeded or (start is not None and not self.gate) else None
            if new is not None:
                blend = new if blend is None else self.alpha * blend + (1 - self.alpha) * new
                blended += 1

    def succeeded(self, found: Reconstruction) -> bool:
        """Whether the attacker takes it for a success; it cannot see the truth."""
        limit = self.base.tolerance if self.threshold is None else self.threshold
        return found.x is not None and found.score <= limit


def feedback_blending(
    base: Matching,
    *,
    alpha: float = 0.5,
    gate: bool = True,
    warmup: int = 3,
    threshold: float | None = None,
) -> FeedbackBlending:
    """Feedback blending: start each attack of a stream from what earlier ones recovered (Leite et al. 2024).

    ``feedback_blending(dlg()).over(observations)`` yields one reconstruction per observation. ``alpha`` is
    the share that the blend keeps when a recovery comes in; 0 starts from the last recovery alone.
    """
    return FeedbackBlending(base, alpha=alpha, gate=gate, warmup=warmup, threshold=threshold)


def _pixels(found: Reconstruction, obs: Observation) -> Tensor | None:
    """In [0, 1] where the picture is, whatever the model's normalisation; None where there is no picture."""
    if found.x is None or not bool(torch.isfinite(found.x).all()):
        return None
    return obs.domain.to_pixels(found.x).detach().cpu().double()


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
