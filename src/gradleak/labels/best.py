"""The labels by the surest way that the update allows, and how sure that is."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput
from gradleak.labels.allocate import allocate, records
from gradleak.labels.combined import proven_classes, spread
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.factorized import Part, factored
from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.labels.idlg import SignRule
from gradleak.labels.presence import Presence
from gradleak.labels.sanity import wrong_sign_or_scale
from gradleak.labels.sent import drift_of
from gradleak.labels.simulated import Simulated
from gradleak.labels.zero_shot import ZeroShot
from gradleak.observe import Observation
from gradleak.randomness import Rng, generator, spawn

_WHOLE = 0.25  # how far from whole numbers estimated counts may be to be believed
_ALIKE = 0.015  # by how much the dummies' probabilities vary, in a network that has learnt little
_MOST = 64  # records, beyond which no batch is taken apart


@dataclass(frozen=True)
class Best:
    """Asks, in this order, for what is exact, for what checks itself, and for what is likely.

    One record: the sign rule. A network to which all pictures look alike, or whose counts come out whole:
    GDL's counts. Else the records that the gradient falls apart into, exactly, and for the others the
    proven classes, weighed. After local training with a drift, the simulated client.
    """

    ways: int = 120
    citations: tuple[str, ...] = ("idlg", "gdl", "fedavg_leakage", "spear")

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        rng = generator(rng)
        if obs.batch_size == 1:
            alone = SignRule()(obs, rng=rng)
            if isinstance(alone, Unanswerable):
                return alone
            fault = wrong_sign_or_scale(obs)
            confidence = 1.0 if alone.certain else 0.9
            return _doubted(dataclasses.replace(alone, classes=obs.classes, confidence=confidence), fault)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        return _doubted(self._batch(obs, found, rng), wrong_sign_or_scale(obs))

    def _batch(self, obs: Observation, found: Evidence, rng: Generator) -> LabelGuess:
        dummies, taking_apart, sharing = spawn(rng, 3)
        seen = proven_classes(obs, found, dummies)
        device = obs.like.device
        everyone = found.plain and seen.proven and int(seen.present.sum()) == found.batch
        counted = None if everyone else _counted(obs, found, seen, dummies)
        if counted is not None:
            return counted
        part: Part | None = None
        if found.plain and found.bias is not None and found.batch <= _MOST:
            part = factored(obs, found, taking_apart, ways=self.ways)
        if part is not None and part.n == found.batch and (part.whole or not everyone):
            confidence = 1.0 if part.whole else 0.96
            return LabelGuess(
                y=part.y.to(device), certain=part.whole, classes=found.classes, confidence=confidence
            )
        if everyone:  # which no more than signs say: a soft label would have left the same
            y = records(seen.present.long(), device)
            return LabelGuess(y=y, classes=found.classes, confidence=0.99)
        return _shared(obs, found, seen, part, sharing)


def best(ways: int = 120) -> Best:
    """The labels by the surest way that the update allows; ``confidence`` says how sure.

    ``gl.labels.best()(seen)`` asks; ``ways`` is how many are tried to take a batch apart.
    """
    if not isinstance(ways, int) or isinstance(ways, bool) or ways < 0:
        raise InvalidInput(
            f"expected ways as a whole number of 0 or more; came {type(ways).__name__}. Build, then ask: "
            "gl.labels.best()(seen)."
        )
    return Best(ways)


def _counted(obs: Observation, found: Evidence, seen: Presence, rng: Generator) -> LabelGuess | None:
    """Counts from dummies, where these say that they can stand in for the batch."""
    rule = ZeroShot()
    looked = rule.seen(obs, rng)
    estimate = rule.estimate(obs, found, rng)
    if isinstance(estimate, Unanswerable):
        return None
    vague = float(looked.p.std(0).mean())
    drift = drift_of(obs)
    if drift > _WHOLE and found.batch * vague < 1:
        corrected = Simulated().estimate(obs, found, rng)
        estimate = estimate if isinstance(corrected, Unanswerable) else corrected
    off = float((estimate - estimate.round().clamp_min(0)).abs().max())
    whole = off < _WHOLE and bool((estimate.round()[seen.present] >= 1).all())
    if not whole and vague > _ALIKE:
        return None
    least = seen.present.long() if int(seen.present.sum()) <= found.batch else None
    counts = allocate(estimate, found.batch, least=least)
    confidence = _trust(off, vague, drift)
    return LabelGuess(y=records(counts, obs.like.device), classes=found.classes, confidence=confidence)


def _trust(off: float, vague: float, drift: float) -> float:
    still = 1 / (1 + 0.02 * drift)
    return round((0.99 if off < _WHOLE else 0.95) * still, 3)


def _shared(
    obs: Observation, found: Evidence, seen: Presence, part: Part | None, rng: Generator
) -> LabelGuess:
    """What is known exactly, and the rest of the batch by its own signs."""
    if part is None:
        counts, certain, confidence = spread(obs, found, seen, rng)
        return LabelGuess(
            y=records(counts, obs.like.device), certain=certain, classes=found.classes, confidence=confidence
        )
    known = torch.bincount(part.y, minlength=found.classes)
    left = found.without(part.share, part.n)
    missing = seen.present & (known.to(seen.present.device) == 0)
    rest = Presence(missing | _clearly(left), False, "what is left")
    if int(rest.present.sum()) > left.batch:
        rest = Presence(missing, False, "what is left")
    counts, _, confidence = spread(obs, left, rest, rng)
    share = (part.n * 0.96 + left.batch * confidence) / found.batch
    return LabelGuess(
        y=records(counts + known.cpu(), obs.like.device), classes=found.classes, confidence=share
    )


def _clearly(left: Evidence) -> Tensor:
    """Negative by far more than what the records that were taken out may have left behind."""
    return left.full.amin(1) < -1e-3 * left.full.abs().max()


def _doubted(guess: LabelGuess, fault: str | None) -> LabelGuess:
    if fault is None:
        return guess
    low = min(0.1, guess.confidence or 0.1)
    return dataclasses.replace(guess, certain=False, confidence=low, note=fault)
