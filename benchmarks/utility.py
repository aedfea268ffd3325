"""What defenses cost in accuracy: federated runs with each of them and without, on records held out."""

from collections.abc import Callable

import click
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import show
from gradleak.defenses import (
    Clip,
    Dropout,
    GaussianNoise,
    LowPrecision,
    Mask,
    Prune,
    Utility,
    utility,
)
from gradleak.observe import Client

Records = tuple[Tensor, Tensor]
Set = tuple[Callable[[int], nn.Module], Records, Records]
_TEST = 597  # digits: a third


def clients(bare: Client) -> dict[str, Client]:
    return {
        "none": bare,
        **{f"noise {std:.0e}": GaussianNoise(bare, std=std) for std in (1e-3, 1e-2, 1e-1, 1.0)},
        "clip .1": Clip(bare, norm=0.1),
        "clip .1, noise .01": GaussianNoise(Clip(bare, norm=0.1), std=0.01),
        "prune .5": Prune(bare, fraction=0.5),
        "prune .9": Prune(bare, fraction=0.9),
        "prune .99": Prune(bare, fraction=0.99),
        "mask .5": Mask(bare, rate=0.5),
        "int8": LowPrecision(bare, format="int8"),
        "dropout .5": Dropout(bare, rate=0.5),
    }


def digits() -> Set:
    """Shuffled, since the set is in its writers' order: the same hands are in both parts, on other digits."""
    x, y = gl.zoo.pictures("digits", size=8, seed=1)
    return (
        lambda seed: gl.zoo.mlp(sizes=(64, 64), seed=seed),
        (x[:-_TEST], y[:-_TEST]),
        (x[-_TEST:], y[-_TEST:]),
    )


def cifar10() -> Set:
    from gradleak.zoo import datasets

    train, test = (datasets.load("cifar10", split) for split in ("train", "test"))
    return (
        lambda seed: gl.zoo.convnet(seed=seed),
        *((2 * x - 1, y) for x, y in (train, (test[0][:2000], test[1][:2000]))),
    )


def row(found: Utility, name: str) -> dict[str, object]:
    final, cost = found.courses[name].final, found.cost(name)
    return {
        "client": name,
        "accuracy": final.mean,
        "std": final.std,
        "cost": "-" if name == found.baseline else f"{cost.mean:+.3f}",
        "95 %": "-" if name == found.baseline else f"{cost.low:+.3f} to {cost.high:+.3f}",
        "diverged": sum(n is not None for n in found.courses[name].diverged),
    }


@click.command()
@click.option("--data", type=click.Choice(["digits", "cifar10"]), default="digits", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--rounds", default=200, show_default=True)
@click.option("--batch", default=16, show_default=True, help="Records of each participant in a round.")
@click.option("--rate", default=0.1, show_default=True, help="The server's, with momentum 0.9.")
@click.option("--alpha", type=float, help="Skews the participants' labels; small is much.")
@click.option("--local", type=float, help="Clients train for an epoch at this rate, in batches of 4.")
@click.option("--only", multiple=True, help="Some of the clients, by name; 'none' is always there.")
@click.option("--json", "as_json", is_flag=True)
def main(
    data: str,
    seeds: int,
    rounds: int,
    batch: int,
    rate: float,
    alpha: float | None,
    local: float | None,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Ten participants, all in every round; digits with an MLP 64-64-10, CIFAR-10 with the ConvNet."""
    torch.set_num_threads(1)
    model, train, test = digits() if data == "digits" else cifar10()
    chosen = clients(gl.OneGradient() if local is None else gl.LocalSGD(1, 4, local))
    if only:
        chosen = {name: client for name, client in chosen.items() if name in ("none", *only)}
    found = utility(
        model, train, test, clients=chosen, rounds=rounds, batch_size=batch, lr=rate, alpha=alpha, seeds=seeds
    )
    title = (
        f"{data}: accuracy on {found.records} held-out records after {rounds} rounds, {seeds} seeds; a "
        f"constant guess has {found.null:.3f}"
    )
    show(f"{title}. {found.note}".rstrip(" ."), [row(found, name) for name in found.courses], as_json)


if __name__ == "__main__":
    main()
