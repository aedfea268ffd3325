"""Counts in a batch of a trained network: the classes that are proven, and what their rows weigh."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Generator, Tensor

from gradleak.labels.allocate import allocate, records
from gradleak.labels.dummies import look, smooth
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.presence import Presence, nonnegative, signs
from gradleak.labels.prototypes import Prototypes, prototypes
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator

_USUAL = 0.2  # the mean residual at which the weights below were fitted
_ROOT = (0.22, 0.5)  # weight of the square roots at the usual residual, and its slope
_MIXED = (0.15, 0.9)  # the same of the counts through the prototypes


@dataclass(frozen=True)
class Combined:
    """All classes with a proven record get one; the rest of the batch is shared out among them.

    A record's part in the gradient is 1 − p_y, which varies over orders of magnitude in a trained network:
    what a class weighs is more the work of its hardest record than of their number. So every count is a
    compromise between K / |P| for all proven classes and two estimates, the better the less the network
    knows: in proportion to the square root of −db, and the counts whose prototypes would give this db.
    The weights were fitted on digits with three small networks, and held on the one left out.
    """

    citations: tuple[str, ...] = ("gdl",)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        return combine(obs, found, proven_classes(obs, found, rng), rng)


def combined() -> Combined:
    """Counts where the network is trained: classes proven by signs, weighed by their rows."""
    return Combined()


def proven_classes(obs: Observation, found: Evidence, rng: Generator) -> Presence:
    """As the presence rule, and where the features' signs prove nothing those of the bias alone."""
    sign = nonnegative(obs, rng)
    if sign is not None:
        return Presence(signs(found), found.plain and sign, "signs of the head's gradient")
    if found.bias is None:
        return Presence(torch.zeros(found.classes, dtype=torch.bool, device=found.W.device), False, "")
    return Presence(found.bias < -8 * found.noise, found.plain, "signs of the bias's gradient")


def combine(obs: Observation, found: Evidence, seen: Presence, rng: Generator) -> LabelGuess:
    least, certain, confidence = spread(obs, found, seen, rng)
    return LabelGuess(
        y=records(least, obs.like.device), certain=certain, classes=found.classes, confidence=confidence
    )


def spread(obs: Observation, found: Evidence, seen: Presence, rng: Generator) -> tuple[Tensor, bool, float]:
    """The counts [classes], whether they are proven, and how much of them is likely right.

    As many classes as records are a proof of the labels for a batch of hard labels and of this size, which
    signs alone do not prove.
    """
    present = seen.present
    n = int(present.sum())
    if n == found.batch:
        return present.long().cpu(), False, 0.99 if seen.proven else 0.97
    slopes = found.bias if found.bias is not None else _slopes(obs, found, rng)
    residual = float((-slopes).clamp(min=0).sum())
    estimate = compromise(found.batch, slopes, present, prototypes(obs, rng), residual)
    only = present if n else None
    counts = allocate(estimate, found.batch, least=present.long(), only=only)
    return counts, False, expected(found.batch, n, found.classes, residual)


def compromise(batch: int, slopes: Tensor, present: Tensor, kinds: Prototypes, residual: float) -> Tensor:
    """[classes]: K/|P| times 1 and what both estimates have beyond it."""
    chosen = present.double() if bool(present.any()) else torch.ones_like(slopes)
    even = batch / float(chosen.sum())
    root = slopes.clamp_max(0).neg().sqrt() * chosen
    root = root / (root.sum() / chosen.sum()).clamp_min(1e-12) - 1
    mixed = by_prototypes(batch, slopes, kinds) / even - 1
    w_root, w_mixed = (max(at + slope * (residual - _USUAL), 0.0) for at, slope in (_ROOT, _MIXED))
    return even * (1 + w_root * root + w_mixed * mixed) * chosen


def by_prototypes(batch: int, slopes: Tensor, kinds: Prototypes) -> Tensor:
    """[classes]: λ >= 0 of sum K with (I − Mᵀ) λ = −K db, row c of M being a class's mean probabilities."""
    eye = torch.eye(len(slopes), dtype=torch.float64)
    A = torch.cat((eye - kinds.p.cpu().mT, torch.ones_like(eye[:1])))
    b = torch.cat((-batch * slopes.cpu(), torch.tensor([float(batch)], dtype=torch.float64)))
    solution, _ = nnls(A.numpy(), b.numpy())
    return torch.from_numpy(np.asarray(solution)).to(slopes)


def expected(batch: int, present: int, classes: int, residual: float) -> float:
    """The share that is likely right: proven records are, and of the others some."""
    sure = present / batch
    return min(0.97, sure + (1 - sure) * min(0.55 + 0.6 * residual, 0.9))


def _slopes(obs: Observation, found: Evidence, rng: Generator) -> Tensor:
    """What db should be, as the weight's row sums say, with the dummies' features for the batch's."""
    size = look(obs, smooth(obs, 64, rng)).features.sum(1).mean()
    return found.weight.sum(1) / size
