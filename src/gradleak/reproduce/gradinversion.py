"""GradInversion's ablation (Yin et al. 2021): what each term of its objective adds."""

import statistics
from collections.abc import Sequence
from functools import partial

import torch

from gradleak import metrics, zoo
from gradleak.attacks import gradinversion
from gradleak.attacks.matching import Matching
from gradleak.labels import known
from gradleak.observe import observe
from gradleak.randomness import spawn
from gradleak.reproduce.sample import batches
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.reproduce.training import accuracy, pools, train

_K = 4
_STEPS = 300
_TRIALS = 2
_TRAINED_ON, _EPOCHS = 2000, 3
_COLUMNS = (
    Column("data"),
    Column("terms"),
    Column("pictures"),
    Column("PSNR", ".2f"),
    Column("null: mean picture", ".2f"),
    Column("mismatch", ".1e"),
    Column("paper"),
)
_PAPER = {
    "gradient alone": "10.75",
    "+ fidelity": "12.06",
    "+ group": "12.52",
    "+ registered group": "12.93",
}


def gradinversion_ablation(n: int, data: Sequence[str], tell: Told) -> Table:
    """PSNR with each term on and off, over ``n`` batches of four."""
    rows: list[tuple[Value, ...]] = []
    told = []
    for name in data:
        one, public = pools(name, max(40, 10 * n), _TRAINED_ON)
        model = zoo.resnet(10, one.x.shape[1], one.x.shape[2], depth=8, seed=0)
        tell(f"training on {name}", len(rows) / (len(data) * len(_arms())))
        train(model, public, _EPOCHS)
        told.append(f"{accuracy(model, one):.0%} of {name}")
        for arm, attack in _arms().items():
            tell(f"{arm}, {name}", len(rows) / (len(data) * len(_arms())))
            pictures: list[float] = []
            null: list[float] = []
            scores: list[float] = []
            for which, own in zip(batches(one, _K, n), spawn(0, n), strict=True):
                x, y = one.x[which], one.y[which]
                found = attack(observe(model, x, y, reveal=("labels",)), rng=own)
                guess = torch.full_like(x, 0.5) if found.x is None else found.x.clamp(0, 1)
                pictures += metrics.psnr(guess[metrics.pair(guess, x)], x).tolist()
                null += metrics.psnr(public.x.mean(0).expand_as(x), x).tolist()
                scores.append(found.score)
            means = (statistics.mean(each) for each in (pictures, null, scores))
            rows.append((name, arm, _K * n, *means, _PAPER.get(arm)))
    return Table(
        f"GradInversion's terms, batches of {_K}, labels known, trained ResNet-8 in eval mode",
        _COLUMNS,
        tuple(rows),
        (
            "PSNR: the mean over pictures, in their batch's best order.",
            "paper: ImageNet at 224 x 224, a trained ResNet-50, batches of 8, 20,000 steps and 8 seeds; its "
            "figures from someone's notes on it. Its fidelity is total variation, energy and BatchNorm.",
            f"ours: {_STEPS} steps of {_TRIALS} trials; the network is right on {', '.join(told)}. Running "
            "statistics are what BatchNorm holds, not the batch's own. Registration is by whole pixels.",
        ),
    )


def _arms() -> dict[str, Matching]:
    attack = partial(gradinversion, labels=known(), steps=_STEPS, trials=_TRIALS)
    return {
        "gradient alone": attack(tv=0, l2=0, bn=0, group=0),
        "total variation and energy": attack(bn=0, group=0),
        "BatchNorm": attack(tv=0, l2=0, group=0),
        "+ fidelity": attack(group=0),
        "+ group": attack(),
        "+ registered group": attack(registered=True),
    }
