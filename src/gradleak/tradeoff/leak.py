"""What leaks under one client: as predicted, to an attacker who does not know it, and to one who does."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack, Reconstruction, attack
from gradleak.attacks.kinks import kinked
from gradleak.attacks.named import dlg, inverting_gradients
from gradleak.errors import InvalidInput
from gradleak.identity import identity
from gradleak.labels import inferred
from gradleak.metrics import identified, mean_picture, psnr, score
from gradleak.observe import Client, Observation, OneGradient, observe
from gradleak.risk import decibels
from gradleak.tradeoff.store import Facts, Store

EXACT = 100.0  # decibels: beyond, two pictures are one
MARGIN = 3.0  # decibels of a prediction above what is to be held, which no attack's failure outweighs
STEPS = 300  # of the attacker who does not know the defense
_VERSION = 2  # of what is kept: another one when the attackers here change

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Target:
    """What the best attacker may reach at most: on the worst picture, and of all of them identified."""

    psnr: float | None = None
    ssim: float | None = None
    identified: float | None = None

    def __post_init__(self) -> None:
        if self.psnr is None and self.ssim is None and self.identified is None:
            raise InvalidInput("expected a target for PSNR, SSIM or the share identified; came none")
        for name, low, high in (("psnr", None, None), ("ssim", -1, 1), ("identified", 0, 1)):
            value = getattr(self, name)
            within = low is None or high is None or value is None or low <= value <= high
            if value is not None and not (isfinite(value) and within):
                kind = "a finite number" if low is None else f"a number from {low} to {high}"
                raise InvalidInput(f"expected the target for {name} as {kind}; came {value}")

    def holds(self, leak: "Leak") -> bool:
        below_psnr = self.psnr is None or leak.worst < self.psnr
        below_ssim = self.ssim is None or max(leak.ssim, default=-1.0) < self.ssim
        return below_psnr and below_ssim and (self.identified is None or leak.share <= self.identified)

    def doubts(self, leak: "Leak", predicted: Sequence[float]) -> bool:
        """Whether it is held only because attacks fell short of what was predicted.

        A target for no PSNR is doubted where attacks and prediction disagree: only decibels are predicted.
        """
        limit = leak.worst if self.psnr is None else self.psnr
        return self.holds(leak) and max(predicted) >= limit + MARGIN

    def __str__(self) -> str:
        said = [] if self.psnr is None else [f"below {self.psnr:g} dB"]
        said += [] if self.ssim is None else [f"below an SSIM of {self.ssim:g}"]
        said += [] if self.identified is None else [f"at {self.identified:.0%} identified or less"]
        return " and ".join(said)


@dataclass(frozen=True)
class Leak:
    """One attacker's scores, by picture; ``ssim`` is empty where there are no pictures to compare so."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    identified: tuple[bool, ...]

    @property
    def worst(self) -> float:
        return max(self.psnr)

    @property
    def reached(self) -> str:
        """The worst picture, in words."""
        return "an exact copy" if self.worst >= EXACT else f"{self.worst:.1f} dB"

    @property
    def median(self) -> float:
        return median(self.psnr)

    @property
    def share(self) -> float:
        return sum(self.identified) / len(self.identified)

    def or_better(self, other: "Leak") -> "Leak":
        """Of two attackers, the better one picture by picture, in each measure."""
        pairs = (
            tuple(map(max, getattr(self, name), getattr(other, name)))
            for name in ("psnr", "ssim", "identified")
        )
        return Leak(*pairs)

    def to_dict(self) -> Facts:
        return {
            "psnr": list(self.psnr),
            "ssim": list(self.ssim),
            "identified": list(self.identified),
            "worst": self.worst,
            "median": self.median,
            "share_identified": self.share,
        }

    @classmethod
    def from_dict(cls, facts: Facts) -> "Leak":
        return cls(tuple(facts["psnr"]), tuple(facts["ssim"]), tuple(facts["identified"]))


@dataclass(frozen=True, eq=False)
class Subject:
    """Whose updates are attacked: a network as it is sent out, and batches that nobody else should see.

    ``reference`` holds public pictures for the null, and ``gallery`` those among which a private one is
    sought; none of them is private. Every attacker is told the labels.
    """

    model: nn.Module
    batches: Sequence[Batch]
    gallery: Tensor
    reference: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches or len({tuple(x.shape) for x, _ in self.batches}) > 1:
            raise InvalidInput("expected one batch or more, all of one shape")

    @cached_property
    def hash(self) -> str:
        public = () if self.reference is None else (self.reference,)
        batches = [part for batch in self.batches for part in batch]
        return identity(self.model, *batches, self.gallery, *public)

    @property
    def records(self) -> int:
        return len(self.batches[0][0])

    @cached_property
    def null(self) -> Leak:
        """Of the mean public picture, or mid-gray."""
        guesses = [mean_picture(self.reference, x.shape) for x, _ in self.batches]
        return self._scored(guesses)

    def updates(self, client: Client) -> list[Any]:
        return [observe(self.model, x, y, client=client, rng=self.seed).update for x, y in self.batches]

    def predicted(self, client: Client, store: Store) -> tuple[float, ...]:
        """Decibels by picture, without an attack."""

        def compute() -> Facts:
            found = [decibels(self.model, x, y, client=client).psnr.flatten() for x, y in self.batches]
            return {"psnr": [min(value, EXACT) for value in torch.cat(found).tolist()]}

        return tuple(store.get(self._key("prediction", client), compute, ("psnr",))["psnr"])

    def naive(self, client: Client, store: Store) -> Leak:
        """Of an attacker who takes the update for one that nothing was done about."""
        return self._leak("naive", client, store)

    def adaptive(self, client: Client, store: Store) -> Leak:
        """Of one who knows the defense and its strength; he also knows what the naive one finds."""
        return self._leak("adaptive", client, store).or_better(self.naive(client, store))

    def _leak(self, kind: str, client: Client, store: Store) -> Leak:
        def compute() -> Facts:
            found = [self._attacked(kind, client, i) for i in range(len(self.batches))]
            return self._scored(found).to_dict()

        return Leak.from_dict(store.get(self._key(kind, client), compute, ("psnr", "ssim", "identified")))

    def _key(self, kind: str, client: Client) -> Facts:
        return {
            "kind": kind,
            "version": _VERSION,
            "subject": self.hash,
            "client": identity(client),
            "seed": self.seed,
        }

    def _attacked(self, kind: str, client: Client, i: int) -> Tensor:
        """The guess, or the null where the attacker came to none."""
        x, y = self.batches[i]
        own = (self.seed + i) % 2**63
        taken = OneGradient() if kind == "naive" else None
        seen = observe(self.model, x, y, client=client, assumed=taken, reveal=("labels",), rng=own)
        found = attack(seen, rng=own) if kind == "adaptive" else _as_published(seen)(seen, rng=own)
        return self._guess(found, x)

    def _guess(self, found: Reconstruction, x: Tensor) -> Tensor:
        if found.x is None:
            return mean_picture(self.reference, x.shape)
        return torch.nan_to_num(found.x.detach().cpu(), nan=0.5, posinf=1, neginf=0).clamp(0, 1)

    def _scored(self, guesses: Sequence[Tensor]) -> Leak:
        every: list[Leak] = []
        for guess, (x, _) in zip(guesses, self.batches, strict=True):
            truth = x.detach().cpu()
            scores = score(guess, None, truth, None, classes=None, reference=self.reference)
            paired = guess[scores.pairing]
            every.append(
                Leak(
                    tuple(min(value, EXACT) for value in psnr(paired, truth).tolist()),
                    () if scores.ssim is None else tuple(scores.ssim.tolist()),
                    tuple(identified(paired, truth, self.gallery).tolist()),
                )
            )
        return Leak(
            *(sum((getattr(one, name) for one in every), ()) for name in ("psnr", "ssim", "identified"))
        )


def _as_published(seen: Observation) -> Attack:
    """DLG for smooth networks, and Inverting Gradients for those with kinks."""
    if kinked(seen):
        return inverting_gradients(labels=inferred(), steps=STEPS - 1)
    return dlg(labels=inferred(), evaluations=STEPS)
