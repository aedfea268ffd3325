"""GDL's pictures (Geng et al. 2021): what one wrong label does to a batch, and what equal labels do."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradleak import metrics, zoo
from gradleak.attacks import gdl
from gradleak.labels import known
from gradleak.observe import observe
from gradleak.randomness import spawn
from gradleak.reproduce.sample import Sample, batches
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.reproduce.training import pools

_K = 4
_WIDTH = 32
_STEPS = 1000
_COLUMNS = (
    Column("data"),
    Column("batch and labels"),
    Column("pictures"),
    Column("PSNR", ".1f"),
    Column("null: mean picture", ".1f"),
    Column("PSNR to the batch's mean", ".1f"),
    Column("truth to the batch's mean", ".1f"),
    Column("paper"),
)


def _as_they_are(y: Tensor) -> Tensor:
    return y


def _one_wrong(y: Tensor) -> Tensor:
    """The first label is taken for a class that the batch does not hold."""
    other = next(label for label in range(10) if label not in y.tolist())
    return torch.cat([torch.tensor([other]), y[1:]])


_ARMS: dict[str, tuple[bool, Callable[[Tensor], Tensor], str]] = {
    "different labels, all right": (False, _as_they_are, "recovered"),
    "different labels, one wrong": (False, _one_wrong, "the restoration is ruined"),
    "equal labels, all right": (True, _as_they_are, "pictures come out as a fusion"),
}


def gdl_images(n: int, data: Sequence[str], tell: Told) -> Table:
    """Batches of four from one gradient, with labels that are known, partly wrong, or equal."""
    rows: list[tuple[Value, ...]] = []
    for name in data:
        one, public = pools(name, max(40, 30 * n), 500)
        mean = public.x.mean(0)
        for arm, (equal, told, paper) in _ARMS.items():
            tell(f"{arm}, {name}", len(rows) / (len(data) * len(_ARMS)))
            which = _of_one_class(one, n) if equal else batches(one, _K, n)
            rows.append((name, arm, _K * n, *_measured(one, which, told, mean), paper))
    return Table(
        f"GDL on batches of {_K}, one gradient, untrained ConvNet",
        _COLUMNS,
        tuple(rows),
        (
            "PSNR: the median over pictures, in their batch's best order. The mean of other pictures is the "
            "null. A fusion lies nearer to its batch's mean than the truth does: compare the last two.",
            "paper: its claims in words; its figures we could not read. The attacker is handed the labels.",
            f"gradleak's gdl with {_STEPS} steps, on a ReLU ConvNet of width {_WIDTH}.",
        ),
    )


def _of_one_class(one: Sample, count: int) -> list[list[int]]:
    groups = [(one.y == label).nonzero()[:, 0].tolist() for label in range(10)]
    found = [group[i : i + _K] for group in groups for i in range(0, len(group) - _K + 1, _K)]
    return found[:count]


def _measured(
    one: Sample, which: Sequence[list[int]], told: Callable[[Tensor], Tensor], mean: Tensor
) -> tuple[Value, ...]:
    attack = gdl(labels=known(), steps=_STEPS)
    ours: list[float] = []
    null: list[float] = []
    fused: list[float] = []
    truth: list[float] = []
    for i, (batch, own) in enumerate(zip(which, spawn(0, len(which)), strict=True)):
        x, y = one.x[batch], one.y[batch]
        model = zoo.convnet(10, x.shape[1], x.shape[2], width=_WIDTH, seed=i)
        seen = observe(model, x, y, reveal=("labels",))
        found = attack(replace(seen, labels=told(y)), rng=own)
        guess = torch.full_like(x, 0.5) if found.x is None else found.x.clamp(0, 1)
        guess, middle = guess[metrics.pair(guess, x)], x.mean(0).expand_as(x)
        ours += metrics.psnr(guess, x).tolist()
        null += metrics.psnr(mean.expand_as(x), x).tolist()
        fused += metrics.psnr(guess, middle).tolist()
        truth += metrics.psnr(x, middle).tolist()
    return tuple(statistics.median(each) for each in (ours, null, fused, truth))
