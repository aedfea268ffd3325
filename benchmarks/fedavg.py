"""Local training: pictures from what a client sends after two epochs of two shuffled batches each."""

import statistics
from collections.abc import Callable, Iterator

import click
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import show
from gradleak.attacks import Attack

_TUNED_ON = range(30, 60)
_SEED = 1000
_RATES = (0.01, 0.1)


def clients(n: int, classes: int = 10, records: int = 8) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """A seed, eight faces, labels, and other faces for the null."""
    faces, _ = gl.zoo.pictures("faces", n=100, channels=1)
    free = torch.tensor([i for i in range(100) if i not in _TUNED_ON])
    for seed in range(_SEED, _SEED + n):
        rng = torch.Generator().manual_seed(seed)
        mine = free[torch.randperm(len(free), generator=rng)[:records]]
        others = torch.tensor([i for i in range(100) if i not in set(mine.tolist())])
        yield seed, faces[mine], torch.randint(classes, (records,), generator=rng), faces[others]


def measure(
    name: str, attack: Attack, build: Callable[..., nn.Module], rate: float, n: int
) -> dict[str, object]:
    scores, seconds, refusals = [], [], []
    for seed, x, y, others in clients(n):
        seen = gl.observe(build(channels=1, seed=seed), x, y, client=gl.LocalSGD(2, 4, rate), rng=seed)
        found = attack(seen, rng=seed)
        if found.x is None:
            refusals.append(found.reason)
            continue
        scores.append(gl.metrics.score(found.x, found.y, x, y, classes=10, reference=others))
        seconds.append(found.cost.seconds)
    row: dict[str, object] = {"attack": name, "lr": rate, "clients": n, "refused": len(refusals)}
    if not scores:
        return row | {"PSNR": "-", "mean picture": "-", "above": refusals[0].split(":")[0]}
    psnr = [float(one.psnr.mean()) for one in scores]
    null = [float(one.null_psnr.mean()) for one in scores]
    above = [a - b for a, b in zip(psnr, null, strict=True)]
    return row | {
        "PSNR": statistics.mean(psnr),
        "mean picture": statistics.mean(null),
        "above": f"{statistics.mean(above):+.1f} ({min(above):+.1f} to {max(above):+.1f})",
        "labels": statistics.mean(one.label_agreement or 0.0 for one in scores),
        "seconds": statistics.mean(seconds),
    }


@click.command()
@click.option("--clients", "n", default=10, show_default=True, help="Clients per row, eight faces each.")
@click.option("--ways", is_flag=True, help="Compare the ways to meet the update too, on three clients.")
@click.option("--json", "as_json", is_flag=True)
def main(n: int, ways: bool, as_json: bool) -> None:
    """Faces that no setting was chosen on; labels with repeats, and they and the order are not known."""
    torch.set_num_threads(1)
    gdl, convnet = gl.attacks.gdl, gl.zoo.convnet
    rows = [measure("gdl, ConvNet", gdl(), convnet, rate, n) for rate in _RATES]
    rows.append(measure("gdl, LeNet", gdl(), gl.zoo.lenet, 0.01, min(n, 3)))
    if ways:
        others = {
            "as one gradient": gdl(way="corrected", rounds=0),
            "corrected": gdl(way="corrected"),
            "unrolled, order learnt": gdl(way="unrolled"),
            "unrolled, order as it comes": gl.attacks.inverting_gradients(tv=3e-3, lr=0.05, steps=300),
        }
        rows += [
            measure(name, attack, convnet, rate, 3) for rate in _RATES for name, attack in others.items()
        ]
    show("Local training: mean PSNR of a client's eight pictures, in decibels", rows, as_json)


if __name__ == "__main__":
    main()
