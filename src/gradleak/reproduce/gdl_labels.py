"""GDL's labels (Geng et al. 2021): counts with repeats, against rules that know of no repeats."""

import statistics
from collections.abc import Sequence

import torch
from torch import nn

from gradleak import labels, metrics, zoo
from gradleak.labels import LabelGuess, LabelStrategy
from gradleak.observe import Client, LocalSGD, OneGradient, observe
from gradleak.randomness import spawn
from gradleak.reproduce.sample import Sample
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.reproduce.training import accuracy, pools, train

_SIZES = (4, 8, 16, 32, 64)
_CLASSES = 10
_TRAINED_ON, _EPOCHS = 4000, 4
_LOCAL = LocalSGD(epochs=3, batch_size=8, lr=0.01)
_METHODS: dict[str, LabelStrategy] = {
    "row sums": labels.row_sum(),
    "row minima": labels.row_minimum(),
    "GDL": labels.zero_shot(pictures="uniform"),
    "GDL smooth": labels.zero_shot(),
    "best": labels.best(),
}
_NULLS = ("null random", "null flat")
_COLUMNS = (
    Column("data"),
    Column("network"),
    Column("client"),
    Column("K"),
    Column("batches"),
    *(Column(name, ".1%") for name in _METHODS),
    Column("GDL exact"),
    *(Column(name, ".1%") for name in _NULLS),
)


def gdl_labels(n: int, data: Sequence[str], tell: Told) -> Table:
    """The share of labels that are right, over ``n`` batches of K pictures drawn without regard to class."""
    rows: list[tuple[Value, ...]] = []
    told = []
    for name in data:
        pool, public = pools(name, 1000, _TRAINED_ON)
        networks = {"untrained": [_network(pool, seed) for seed in range(n)]}
        tell(f"training on {name}", len(rows) / (len(data) * 20))
        learnt = _network(pool, 0)
        train(learnt, public, _EPOCHS)
        networks["trained"] = [learnt] * n
        told.append(f"{accuracy(learnt, pool):.0%} of {name}")
        for network, models in networks.items():
            for client in (OneGradient(), _LOCAL):
                for size in _SIZES:
                    said = "FedSGD" if isinstance(client, OneGradient) else "FedAvg"
                    tell(f"{network} on {name}, {said}, K = {size}", len(rows) / (len(data) * 20))
                    rows.append((name, network, said, size, n, *_cell(pool, models, client, size)))
    return Table(
        "Labels recovered from the update of K pictures, labels as they come, with repeats",
        _COLUMNS,
        tuple(rows),
        (
            "a share counts classes with their repeats, in no order. row sums: iDLG's rule for K "
            "pictures; row minima: GradInversion's; neither has an answer for more than 10. GDL: with "
            "uniformly random dummies, as in the released code; smooth: with gradleak's. best: gradleak's "
            "choice. null random: labels drawn at random; null flat: K / 10 of each class.",
            "paper: it says that GDL adapts to more labels than GradInversion's rule; its figures we "
            "could not read, so none stand here.",
            f"ConvNet of width 16, ReLU. trained: on the first {_TRAINED_ON} training pictures for {_EPOCHS} "
            f"epochs, after which it is right on {', '.join(told)}; one such network for all batches.",
            f"FedAvg: {_LOCAL.epochs} local epochs in batches of {_LOCAL.batch_size} at a rate of "
            f"{_LOCAL.lr}; the rules of one gradient read the mean of the local steps.",
        ),
    )


def _network(pool: Sample, seed: int) -> nn.Sequential:
    return zoo.convnet(_CLASSES, pool.x.shape[1], pool.x.shape[2], width=16, seed=seed)


def _cell(pool: Sample, models: Sequence[nn.Module], client: Client, size: int) -> tuple[Value, ...]:
    shares: dict[str, list[float]] = {name: [] for name in (*_METHODS, *_NULLS)}
    for model, own in zip(models, spawn(size, len(models)), strict=True):
        chosen = torch.randperm(len(pool), generator=own)[:size]
        x, y = pool.x[chosen], pool.y[chosen]
        obs = observe(model, x, y, client=client)
        for name, method in _METHODS.items():
            guess = method(obs, rng=own)
            if isinstance(guess, LabelGuess) and guess.y is not None:
                shares[name].append(metrics.label_agreement(guess.y, y))
        shares["null random"].append(metrics.null_label_agreement(y, _CLASSES))
        shares["null flat"].append(metrics.flat_label_agreement(y, _CLASSES))
    means = {name: statistics.mean(each) if each else None for name, each in shares.items()}
    exact = sum(share == 1 for share in shares["GDL"])
    return (*(means[name] for name in _METHODS), exact, *(means[name] for name in _NULLS))
