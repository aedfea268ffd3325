"""GradInversion's ablation (Yin et al. 2021): what each term of its objective adds."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from gradleak import metrics, zoo
from gradleak.attacks import gradinversion
from gradleak.attacks.matching import Matching
from gradleak.labels import known
from gradleak.observe import observe
from gradleak.randomness import reseed, spawn, undisturbed
from gradleak.reproduce.sample import Sample, batches
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.reproduce.training import accuracy, pools, train

_K = 4
_STEPS = 300
_TRIALS = 3
_TRAINED_ON, _EPOCHS = 2000, 3
_COLUMNS = (
    Column("network"),
    Column("terms"),
    Column("pictures"),
    Column("PSNR", ".2f"),
    Column("null: mean picture", ".2f"),
    Column("against the row it is held to"),
    Column("mismatch", ".1e"),
    Column("paper"),
)
_ON_RESNET = ("gradient alone", "total variation alone", "BatchNorm alone", "all")
_PAPER = {
    "gradient alone": "10.75",
    "all but group": "12.06",
    "all": "12.52",
    "all, group registered": "12.93",
}


def gradinversion_ablation(n: int, data: Sequence[str], tell: Told) -> Table:
    """PSNR with each term on and off, over ``n`` batches of four, on a network that shows much and on one
    that shows little."""
    rows: list[tuple[Value, ...]] = []
    told = []
    arms = _arms()
    for name in data:
        one, public = pools(name, max(40, 10 * n), _TRAINED_ON)
        quiet = zoo.resnet(10, one.x.shape[1], one.x.shape[2], depth=8, seed=0)
        tell(f"training on {name}", len(rows) / (2 * len(data) * len(arms)))
        train(quiet, public, _EPOCHS)
        told.append(f"{accuracy(quiet, one):.0%} of {name}")
        networks: dict[str, nn.Module] = {
            f"two convolutions, untrained, {name}": _open(one),
            f"ResNet-8, trained, {name}": quiet,
        }
        for network, model in networks.items():
            found: dict[str, list[float]] = {}
            for arm, (attack, held_to) in _tried(arms, model).items():
                tell(f"{arm}: {network}", len(rows) / (2 * len(data) * len(arms)))
                found[arm], null, mismatch = _measured(model, attack, one, public, n)
                effect = _effect(found[arm], found[held_to]) if held_to else None
                mean = statistics.mean(found[arm])
                rows.append((network, arm, _K * n, mean, null, effect, mismatch, _PAPER.get(arm)))
    return Table(
        f"GradInversion's terms, batches of {_K}, labels known",
        _COLUMNS,
        tuple(rows),
        (
            "PSNR: the mean over pictures, in their batch's best order. against the row it is held to: the "
            "gradient alone for a term alone, and all terms for all but one; mean difference per picture ± "
            "its standard error. What is within twice that of 0 has no effect that so many pictures show.",
            "paper: ImageNet at 224 x 224, a trained ResNet-50, batches of 8, 20,000 steps and 8 seeds; its "
            "figures from someone's notes on it, each held to the one above it.",
            f"ours: {_STEPS} steps of {_TRIALS} trials. Untrained: in train mode, the batch's own statistics "
            f"sent. Trained: right on {', '.join(told)}, in eval mode, running statistics. Registration is "
            "by whole pixels.",
        ),
    )


def _arms() -> dict[str, tuple[Matching, str]]:
    """Attacks by their terms, and which earlier one each is held to."""
    attack: Callable[..., Matching] = partial(
        gradinversion, labels=known(), steps=_STEPS, trials=_TRIALS, noise=0.0
    )
    alone = {"tv": 0.0, "l2": 0.0, "bn": 0.0, "group": 0.0}
    usual = {"tv": 0.3, "l2": 1e-4, "bn": 1.0, "group": 1.0}
    only = {term: alone | {term: weight} for term, weight in usual.items()}
    return {
        "gradient alone": (attack(**alone), ""),
        "total variation alone": (attack(**only["tv"]), "gradient alone"),
        "energy alone": (attack(**only["l2"]), "gradient alone"),
        "BatchNorm alone": (attack(**only["bn"]), "gradient alone"),
        "group alone": (attack(**only["group"]), "gradient alone"),
        "noise alone": (attack(**alone | {"noise": 0.05}), "gradient alone"),
        "all": (attack(noise=0.05), ""),
        "all but total variation": (attack(noise=0.05, tv=0.0), "all"),
        "all but BatchNorm": (attack(noise=0.05, bn=0.0), "all"),
        "all but group": (attack(noise=0.05, group=0.0), "all"),
        "all but noise": (attack(), "all"),
        "all, group registered": (attack(noise=0.05, registered=True), "all"),
    }


def _tried(arms: dict[str, tuple[Matching, str]], model: nn.Module) -> dict[str, tuple[Matching, str]]:
    """All of them on a small network; on the ResNet, whose gradient takes far longer, the main ones."""
    if model.training:
        return arms
    return {arm: arms[arm] for arm in _ON_RESNET}


def _open(one: Sample) -> nn.Module:
    """Two convolutions with BatchNorm in train mode, whose gradient tells much of a batch."""
    channels, side = one.x.shape[1], one.x.shape[2]
    with undisturbed(torch.device("cpu")):
        reseed(0, torch.device("cpu"))
        return nn.Sequential(
            nn.Conv2d(channels, 24, 3, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * (-(-side // 4)) ** 2, 10),
        ).train()


def _measured(
    model: nn.Module, attack: Matching, one: Sample, public: Sample, n: int
) -> tuple[list[float], float, float]:
    """Decibels of every picture, those of the null on average, and the mismatch that is left."""
    pictures: list[float] = []
    null: list[float] = []
    left: list[float] = []
    for which, own in zip(batches(one, _K, n), spawn(0, n), strict=True):
        x, y = one.x[which], one.y[which]
        reveal = ("labels", "statistics") if model.training else ("labels",)
        found = attack(observe(model, x, y, reveal=reveal), rng=own)
        guess = torch.full_like(x, 0.5) if found.x is None else found.x.clamp(0, 1)
        pictures += metrics.psnr(guess[metrics.pair(guess, x)], x).tolist()
        null += metrics.psnr(public.x.mean(0).expand_as(x), x).tolist()
        left.append(found.score)
    return pictures, statistics.mean(null), statistics.mean(left)


def _effect(ours: Sequence[float], theirs: Sequence[float]) -> str:
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5
    return f"{statistics.mean(apart):+.2f} ± {error:.2f}"
