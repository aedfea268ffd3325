"""The attack: labels, what the update leaves open, and then one of three ways to the pictures."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.gdl.defect import defect
from gradleak.attacks.gdl.ways import as_one_gradient, corrected, unrolled
from gradleak.attacks.matching import (
    Adam,
    Box,
    Cosine,
    Init,
    Matching,
    Prior,
    Statistics,
    Stretch,
    TotalVariation,
    as_init,
)
from gradleak.attacks.matching.optimizers.base import is_count, is_number
from gradleak.errors import InvalidInput, MissingInformation
from gradleak.labels import LabelGuess, LabelStrategy, Unanswerable, inferred
from gradleak.observe import LocalTraining, Observation, OneGradient, Summed, Trained
from gradleak.observe.drift import smooth_pixels
from gradleak.observe.jacobian import Jacobian, open_share
from gradleak.randomness import Rng, spawn

Way = Literal["corrected", "unrolled"]
Walk = Callable[[Observation, Generator], Iterator[Reconstruction]]
_DEFECT = 5e-4
"""1 − cos between the update and the batch's gradient, up to which correcting the gradient is enough."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A guess that was made before, for all stages to share."""

    guess: LabelGuess

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess:
        return self.guess


@dataclass(frozen=True)
class GDL:
    """See ``gdl``, which builds it. ``matching`` attacks one gradient; local training is led back to that."""

    matching: Matching
    gentle: Adam  # for a correction's small steps
    labels: LabelStrategy = field(default_factory=inferred)
    way: Way | None = None
    determined: float = 0.75
    rounds: int = 3
    name: str = "gdl"

    @property
    def budget(self) -> int:
        return self.matching.budget + self.rounds * (self.gentle.steps + 1)

    @property
    def citations(self) -> tuple[str, ...]:
        keys = ("gdl", "fedavg_leakage", *getattr(self.labels, "citations", ()), *self.matching.citations)
        return tuple(dict.fromkeys(keys))

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        *_, last = self.iterate(obs, rng=rng)
        return last

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        clock = time.perf_counter()
        for_labels, for_probe, for_stages = spawn(rng, 3)
        guess = self.labels(obs, rng=for_labels)
        if isinstance(guess, Unanswerable):
            yield Reconstruction(Outcome.NOT_APPLICABLE, reason=guess.reason)
            return
        y = guess.y if guess.logits is None else guess.logits.softmax(-1)
        if y is None:
            raise MissingInformation("a label strategy gave neither labels nor a start for them")
        dummies = obs.domain.from_pixels(smooth_pixels(obs.x_shape, for_probe).to(obs.like)), y
        share = open_share(
            Jacobian.even(_one_step(obs), *dummies), for_probe, enough=(1 - self.determined) / 4
        )
        told = [_told_labels(guess), f"the update leaves {share:.0%} of the pictures' directions open"]
        if share > 1 - self.determined:
            yield Reconstruction(
                Outcome.NOT_APPLICABLE, reason=_open(share, obs), decisions=tuple(told), cost=_since(clock)
            )
            return
        base = dataclasses.replace(self.matching, labels=Settled(guess))
        walk, why = self._way(base, obs, dummies)
        for found in walk(obs, for_stages):
            yield dataclasses.replace(found, decisions=(*told, why, *found.decisions))

    def _way(self, base: Matching, obs: Observation, dummies: tuple[Tensor, Tensor]) -> tuple[Walk, str]:
        """How the update is met, and why so."""
        client = obs.client
        if not isinstance(client, LocalTraining) or obs.plainest is not obs:
            summed = isinstance(client, Summed) and obs.plainest is obs
            met = "a sum, and simulated as one" if summed else "one gradient"
            return partial(as_one_gradient, base), f"the update is {met}"
        step_by_step = partial(unrolled, base, client)
        walks: dict[Way, Walk] = {
            "corrected": partial(corrected, base, self.gentle, self.rounds, client),
            "unrolled": step_by_step,
        }
        if obs.gradient is None:
            return step_by_step, "unrolled: this client's update is no gradient"
        if self.way is not None:
            return walks[self.way], f"{self.way}, as asked"
        apart = defect(obs, *dummies)
        way: Way = "corrected" if apart <= _DEFECT else "unrolled"
        return walks[way], f"{way}: on random pictures the update is {apart:.1e} off their gradient (1 - cos)"


def _one_step(obs: Observation) -> Observation:
    """What is open after one gradient bounds from below what is open at all, and is cheaper to look at."""
    return dataclasses.replace(obs, client=OneGradient()) if isinstance(obs.client, Trained) else obs


def _told_labels(guess: LabelGuess) -> str:
    if guess.y is None:
        return "labels are learnt with the pictures"
    sure = "certain" if guess.certain else "guessed"
    confidence = "" if guess.confidence is None else f", {guess.confidence:.0%} of them expected to be right"
    note = f"; {guess.note}" if guess.note else ""
    return f"labels {sure}: {guess.y.tolist()}{confidence}{note}"


def _open(share: float, obs: Observation) -> str:
    sent = sum(leaf.numel() for leaf in obs.update.values())
    pixels = torch.Size(obs.x_shape).numel()
    return (
        f"the update leaves {share:.0%} of the pictures' directions open: its {sent:,} numbers do not "
        f"determine {pixels:,} pixels, and what an attack put there would be its prior's. Pass determined=0 "
        "to try all the same"
    )


def _since(clock: float) -> Cost:
    return Cost(0, time.perf_counter() - clock, 1)


def gdl(
    *,
    labels: LabelStrategy | None = None,
    way: Way | None = None,
    tv: float = 3e-3,
    clip: float = 0.0,
    stretch: float = 0.0,
    statistics: float = 0.01,
    init: str | Tensor | Init | None = None,
    trials: int = 1,
    steps: int = 300,
    lr: float = 0.05,
    rounds: int = 3,
    determined: float = 0.75,
    tolerance: float = 1e-9,
    double: bool = False,
) -> GDL:
    """General deep leakage: repeated labels, from a gradient or from local training (Geng et al. 2021).

    Where an update is local training's, ``way`` says how it is met: "corrected" takes it for the batch's
    gradient, and then takes off, in ``rounds``, what local training adds at the pictures found so far;
    "unrolled" goes through every local step, and learns the order of the records where it is not known.
    None measures on random pictures how far the two are apart, and chooses.

    ``clip`` and ``stretch`` are the paper's fidelity terms: the squared distance of the pictures to
    [0, 1], and to themselves stretched over [0, 1]. As published: squared distances instead of the cosine,
    and no hard box; their weights are not to be had from the paper. Here pixels are projected into [0, 1].
    ``statistics`` weighs what the BatchNorm layers saw, where the server knows it.
    Where the update leaves more than 1 − ``determined`` of the pictures' directions open, the attack says
    so instead of returning the prior's picture.
    """
    if not is_number(determined) or not 0 <= determined <= 1:
        raise InvalidInput(f"expected determined as a share from 0 to 1; came {determined!r}")
    if rounds != 0 and not is_count(rounds):
        raise InvalidInput(f"expected rounds as a whole number of 0 or more; came {rounds!r}")
    if labels is not None and not callable(labels):
        raise InvalidInput(f"expected labels as a strategy, such as gl.labels.best(); came {labels!r}")
    if way not in (None, "corrected", "unrolled"):
        raise InvalidInput(f'expected way as "corrected", "unrolled" or None; came {way!r}')
    terms: list[Prior] = [TotalVariation(tv)] if tv else []
    terms += [Box(clip)] if clip else []
    terms += [Stretch(stretch)] if stretch else []
    terms += [Statistics(statistics, "auto")] if statistics else []
    matching = Matching(
        name="gdl",
        objective=Cosine(),
        priors=tuple(terms),
        init=as_init(init) if init is not None else as_init("gray"),
        optimizer=Adam(steps, lr=lr, sign=True, schedule="cosine"),
        box=True,
        trials=trials,
        evaluations=steps + 1,
        tolerance=tolerance,
        double=double,
    )
    gentle = Adam(max(steps // 5, 1), lr=lr / 10, sign=True, schedule="cosine")
    return GDL(matching, gentle, labels or inferred(), way, determined, rounds)
