"""Defended pictures: what attackers make of them, who know of the defense or not, and what it costs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradleak import metrics, zoo
from gradleak.attacks import Outcome, Reconstruction, dlg
from gradleak.attacks import attack as router
from gradleak.attacks.matching import Matching
from gradleak.defenses import Utility, utility
from gradleak.observe import Client, Observation, OneGradient, observe
from gradleak.reproduce.sample import Case, Sample, public, sample
from gradleak.reproduce.table import Column, Table, Told, Value

HIDDEN = 0.3
"""A median SSIM below which a defense counts as hiding: our choice, as we know of none in the papers."""

_EVALUATIONS = 400
_TEST = 597  # digits: a third
_ROUNDS, _SEEDS = 200, 3

DLG = "DLG, not told"
TOLD = "told"
ATTACKERS = (
    f"{DLG}: gradleak's dlg with a line search, a gray start and at most {_EVALUATIONS} matching "
    "gradients, by a server that believes in a plain gradient. As released, without a search, it often fails "
    f"on a plain gradient too. {TOLD}: gradleak.attack, closed forms and then MAP, by a server that knows "
    "the defense and its strength; where MAP does not converge, the same dlg as well, simulating the "
    "defense, and the guess that explains more. Labels are found as well. Guesses are clamped to [0, 1]."
)
NULL = (
    "null: the mean of other pictures of the set, 20 of a bundled one, else 200 of its training part. Scores "
    "are medians over the pictures, each on an untrained LeNet of its own. What is no better than the null "
    "shows nothing of the picture: faces are so alike that theirs is above the SSIM at which others hide."
)
ACCURACY = (
    f"on digits: accuracy of an MLP 64-64-10 on {_TEST} held-out digits of 8 x 8, after {_ROUNDS} rounds of "
    f"10 participants with 16 records each who all use the defense, mean of {_SEEDS} seeds; cost: beside no "
    "defense, with half its 95 % interval; its null is the best constant guess. Neither network nor data are "
    "those that were attacked. The server's rate is the same for all, so that a shorter update also learns "
    "more slowly."
)
COSTS = (Column("on digits", ".3f"), Column("cost", "+.3f"), Column("±", ".3f"))
"""What ``cost`` says."""


@dataclass(frozen=True, eq=False)
class Reached:
    """Scores of one guess per picture."""

    all_ssim: Tensor
    all_mse: Tensor

    @property
    def ssim(self) -> float:
        return float(statistics.median(self.all_ssim.tolist()))

    @property
    def psnr(self) -> float:
        return float(-10 * torch.tensor(max(statistics.median(self.all_mse.tolist()), 1e-30)).log10())

    @property
    def rmse(self) -> float:
        return float(statistics.median(self.all_mse.sqrt().tolist()))

    @property
    def hidden(self) -> bool:
        return self.ssim < HIDDEN


@dataclass(frozen=True, eq=False)
class Victims:
    """Pictures of one set, each on a network of its own; whatever the defense, its dice are the same."""

    private: Sample
    public: Sample

    @classmethod
    def of(cls, name: str, n: int) -> "Victims":
        return cls(sample(name, n), public(name, n))

    def cases(self, client: Client, assumed: Client | None = None) -> list[Case]:
        """``assumed`` is what the server believes in; the default is the truth."""
        return [self._case(i, client, assumed) for i in range(len(self.private))]

    def untold(self, client: Client) -> Reached:
        found = naive().together([case.obs for case in self.cases(client, OneGradient())])
        return self.reached(found)

    def told(self, client: Client) -> Reached:
        return self.reached([adaptive(case.obs) for case in self.cases(client)])

    def reached(self, found: Sequence[Reconstruction]) -> Reached:
        guesses = [gray(one, x) for one, x in zip(found, self.private.x, strict=True)]
        return self._scored(torch.stack(guesses))

    @cached_property
    def null(self) -> Reached:
        return self._scored(metrics.mean_picture(self.public.x, self.private.x.shape))

    def _scored(self, guesses: Tensor) -> Reached:
        return Reached(metrics.ssim(guesses, self.private.x), metrics.mse(guesses, self.private.x))

    def _case(self, i: int, client: Client, assumed: Client | None) -> Case:
        x, y = self.private.x[[i]], self.private.y[[i]]
        return Case(x, y, observe(self.private.lenet(i), x, y, client=client, assumed=assumed, rng=i))


def naive(evaluations: int | None = None) -> Matching:
    return dlg(evaluations=evaluations or _EVALUATIONS, tolerance=1e-8)


def adaptive(obs: Observation) -> Reconstruction:
    """What a server makes of it that simulates the client as it believes it to be, by its own score."""
    found = router(obs)
    return (
        found if found.outcome is Outcome.CONVERGED else min(found, naive()(obs), key=lambda one: one.score)
    )


def gray(found: Reconstruction, x: Tensor) -> Tensor:
    """The guess at one picture, mid-gray where there is none, and within [0, 1]."""
    if found.x is None:
        return torch.full_like(x, 0.5)
    return torch.nan_to_num(found.x[0], nan=0.5, posinf=1, neginf=0).clamp(0, 1)


def accuracies(clients: Mapping[str, Client], tell: Told) -> Utility:
    """Federated runs on digits, shuffled: the same hands are in both parts, on other digits."""
    x, y = zoo.pictures("digits", size=8, seed=1)
    return utility(
        lambda seed: zoo.mlp(sizes=(64, 64), seed=seed),
        (x[:-_TEST], y[:-_TEST]),
        (x[-_TEST:], y[-_TEST:]),
        clients=clients,
        rounds=_ROUNDS,
        seeds=_SEEDS,
        evaluations=1,
        progress=lambda name, share: tell(f"training with {name}", share),
    )


def cost(found: Utility, name: str) -> tuple[float, float | None, float | None]:
    """Accuracy, what is lost, and half the interval of that."""
    spread = found.cost(name)
    if name == found.baseline:
        return found.courses[name].final.mean, None, None
    half = (spread.high - spread.low) / 2
    return found.courses[name].final.mean, spread.mean, None if half != half else half


def costs(spent: Utility, paper: Mapping[str, Value]) -> Table:
    """What each client costs, beside what the paper says of the one by that name."""
    rows = [(name, *cost(spent, name), spent.null, paper.get(name)) for name in spent.courses]
    columns = (Column("defense"), *COSTS, Column("null", ".3f"), Column("paper"))
    return Table("What they cost", columns, tuple(rows), (ACCURACY,))


def between(tell: Told, start: float, end: float) -> Told:
    """A part of the whole."""
    return lambda what, share: tell(what, start + (end - start) * share)
