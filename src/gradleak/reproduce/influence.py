"""The inversion influence function (Zhang et al. 2023): predicted against reached, and its three insights."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from gradleak import zoo
from gradleak.attacks import dlg
from gradleak.labels import known
from gradleak.observe import Observation, observe
from gradleak.reproduce.agreement import agreement, failures, strongest
from gradleak.reproduce.calibration import Point, points
from gradleak.reproduce.sample import Sample, sample
from gradleak.reproduce.scatter import scatter
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.risk.directions import directions_of
from gradleak.risk.fairness import fairness as fairness_of
from gradleak.risk.gram import jacobian, spectrum
from gradleak.risk.initialization import initialization as initialization_of
from gradleak.trees import Tree, add, norm

_EVALUATIONS = 1200


def influence(n: int, data: Sequence[str], tell: Told) -> Table:
    """What is predicted, and what attacks reach, over networks, pictures, defenses and their strengths."""
    found = list(points(n, data, tell))
    families = agreement(
        found, "Predicted against reached error of a pixel, by family", lambda p: p.family, every=True
    )
    return replace(
        families,
        notes=(
            "I2F: of an unbiased attacker without a prior, for the very change of the update. decibels: of "
            "one with a Gaussian prior who knows the defense, in the mean. DLG is of the first kind, MAP of "
            "the second. Inverting Gradients has a prior of another kind, and is held against decibels.",
            "Pearson, Spearman: of logarithms. off: the median distance of predicted and reached. arrived: "
            "where the answer explains the update at least as well as the true picture does.",
            "Not in the numbers: infinite predictions, and decibels of a defense that the server does not "
            "know of. Noise is in units of the update's root mean square.",
            "paper: its figures are plots, over noise and pruning, on LeNet and ResNet-18.",
        ),
        more=(
            strongest(found),
            agreement(found, "By network, each attack against its own predictor", lambda p: p.network),
            agreement(found, "By defense, each attack against its own predictor", lambda p: p.defense),
            failures(found),
        ),
        files={
            "influence.png": scatter(found),
            "influence-points.json": _written(found),
        },
    )


def influence_directions(n: int, data: Sequence[str], tell: Told) -> Table:
    """One length of noise along the most and the least protective direction, and what each does to DLG."""
    rows: list[tuple[Value, ...]] = []
    for name in data:
        one = sample(name, n)
        found: dict[str, list[tuple[float, float]]] = {"most protective": [], "middle": [], "least": []}
        for i in range(n):
            tell(f"picture {i + 1} of {n}, {name}", i / n)
            x, y, model = _case(one, i)
            seen = observe(model, x, y, reveal=("labels",))
            known_directions = directions_of(spectrum(jacobian(model, x, y)))
            length = 1e-3 * float(norm(seen.update))
            last = len(known_directions.errors) - 1
            for which, place in zip(found, (0, last // 2, last), strict=True):
                change = known_directions.perturbation(place, length)
                predicted = length * float(known_directions.errors[place]) / x.numel() ** 0.5
                found[which].append((predicted, _reached(seen, change, x)))
        rows += [(name, which, len(pairs), *_agreement(pairs)) for which, pairs in found.items()]
    return Table(
        "I2F's first insight: noise of one length, along three directions",
        (
            Column("data"),
            Column("direction"),
            Column("pictures"),
            Column("predicted", ".2e"),
            Column("reached", ".2e"),
            Column("off, median %", ".2f"),
            Column("off, worst %", ".1f"),
        ),
        tuple(rows),
        (
            "The change is a thousandth of the update long. Root mean square error of a pixel, medians.",
            "paper: the smaller the eigenvalue, the larger the error at the same length of noise.",
        ),
    )


def influence_fairness(n: int, data: Sequence[str], tell: Told) -> Table:
    """How far pictures and classes lie apart under the same noise."""
    rows: list[tuple[Value, ...]] = []
    for name in data:
        one = sample(name, n)
        for seed in range(2):
            tell(f"network {seed + 1} of 2, {name}", seed / 2)
            model = zoo.lenet(10, one.x.shape[1], one.x.shape[2], seed=seed).double()
            for noise in (1e-3, 1e-2):
                told = fairness_of(model, one.x.double(), one.y % 10, noise=noise)
                classes = list(told.by_class.items())
                rows.append(
                    (
                        name,
                        seed,
                        noise,
                        n,
                        float(told.psnr.median()),
                        told.spread,
                        f"{classes[0][0]} ({classes[0][1]:.1f}), {classes[-1][0]} ({classes[-1][1]:.1f})",
                    )
                )
    return Table(
        "I2F's second insight: the same noise does not protect alike",
        (
            Column("data"),
            Column("network"),
            Column("noise", ".0e"),
            Column("pictures"),
            Column("median dB", ".1f"),
            Column("spread dB", ".1f"),
            Column("most and least exposed class"),
        ),
        tuple(rows),
        (
            "dB: of an unbiased attacker without a prior. spread: from the lower to the upper tenth.",
            "paper: protection is unfair over samples and classes; its figures are plots.",
        ),
    )


def influence_initialization(n: int, data: Sequence[str], tell: Told) -> Table:
    """What each scheme of first weights gives away under the same noise."""
    rows: list[tuple[Value, ...]] = []
    for name in data:
        one = sample(name, n)
        model = zoo.lenet(10, one.x.shape[1], one.x.shape[2], seed=0).double()
        found = initialization_of(
            model,
            one.x.double(),
            one.y % 10,
            tell=lambda scheme, i, total, name=name: tell(f"{scheme}, {name}", i / total),  # type: ignore[misc]
        )
        rows += [
            (name, r.scheme, r.cases, r.largest, r.median, r.smallest, r.psnr, r.relative_psnr)
            for r in found.rows
        ]
    return Table(
        "I2F's third insight: first weights decide what a gradient gives away",
        (
            Column("data"),
            Column("scheme"),
            Column("cases"),
            Column("largest λ", ".1e"),
            Column("median λ", ".1e"),
            Column("smallest λ", ".1e"),
            Column("dB at noise 1e-3", ".1f"),
            Column("dB at noise of 1 %", ".1f"),
        ),
        tuple(rows),
        (
            "dB: of an unbiased attacker without a prior, medians over pictures and three seeds. 1 %: of the "
            "gradient's own root mean square, since schemes differ in its size.",
            "paper: initialisation changes privacy, and Xavier and Kaiming hide more than uniform weights.",
        ),
    )


def _written(found: Sequence[Point]) -> bytes:
    """JSON has no infinity: null stands for it."""
    rows = [
        {name: None if value in (math.inf, -math.inf) else value for name, value in asdict(p).items()}
        for p in found
    ]
    return json.dumps(rows, indent=1, allow_nan=False).encode() + b"\n"


def _case(one: Sample, i: int) -> tuple[Tensor, Tensor, torch.nn.Module]:
    x, y = one.x[i : i + 1].double(), one.y[i : i + 1] % 10
    return x, y, zoo.lenet(10, x.shape[1], x.shape[2], seed=i).double()


def _reached(seen: Observation, delta: Tree, x: Tensor) -> float:
    attack = dlg(labels=known(), evaluations=_EVALUATIONS)
    found = attack(replace(seen, update=add(seen.update, delta)), rng=0)
    return float("inf") if found.x is None else float((found.x - x).square().mean().sqrt())


def _agreement(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    off = [100 * abs(a - b) / b for a, b in pairs]
    predicted, reached = (statistics.median(each) for each in zip(*pairs, strict=True))
    return predicted, reached, statistics.median(off), max(off)
