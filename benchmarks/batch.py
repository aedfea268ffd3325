"""Exact batch recovery: how many random batches come back whole, from float32 gradients, labels unknown."""

import statistics

import click
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import show
from gradleak.attacks import Attack

EXACT = 60.0


@click.command()
@click.option(
    "--batches", "n", default=20, show_default=True, help="Random batches per row; repeats allowed."
)
@click.option("--json", "as_json", is_flag=True)
def main(n: int, as_json: bool) -> None:
    """MLP 3072-256-256-10 untrained, a digits MLP trained to about 90 %, and SPEAR on a wide first layer."""
    torch.set_num_threads(1)
    rows = [_pictures(b, gl.attacks.exact_batch(), (3072, 256, 256), n) for b in (1, 4, 8)]
    rows += [_digits(seed, 4, n) for seed in (0, 1)]
    rows += [_pictures(b, gl.attacks.spear(), (3072, 512, 256), n) for b in (8, 16)]
    show(f"Batches recovered whole: every picture above {EXACT:.0f} dB", rows, as_json)


def _pictures(b: int, attack: Attack, sizes: tuple[int, ...], n: int) -> dict[str, object]:
    # Faces 0 to 29: the photographs' crops and the later faces are what the solvers were tried on.
    pool = gl.zoo.pictures("faces", n=30)[0]
    cases = []
    for i in range(n):
        rng = torch.Generator().manual_seed(i)
        x = pool[torch.randperm(30, generator=rng)[:b]]
        y = torch.randint(10, (b,), generator=rng)
        cases.append((gl.zoo.mlp(sizes=sizes, classes=10, seed=i), x, y))
    return _row(f"MLP {'-'.join(map(str, sizes))}-10, untrained", attack, b, cases)


def _digits(seed: int, b: int, n: int) -> dict[str, object]:
    x, y = gl.zoo.pictures("digits", size=8)
    model, accuracy = trained(x[:1200], y[:1200], x[1200:], y[1200:], seed)
    cases = []
    for i in range(n):
        chosen = 1200 + torch.randperm(len(x) - 1200, generator=torch.Generator().manual_seed(1000 + i))[:b]
        cases.append((model, x[chosen], y[chosen]))
    return _row(f"digits MLP 64-128-128-10 at {accuracy:.0%}", gl.attacks.exact_batch(), b, cases)


def trained(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, seed: int) -> tuple[nn.Module, float]:
    """Adam until held-out accuracy first reaches 90 %."""
    model = gl.zoo.mlp(sizes=(64, 128, 128), classes=10, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    rng = torch.Generator().manual_seed(seed)
    accuracy = 0.0
    while accuracy < 0.9:
        chosen = torch.randint(len(x), (32,), generator=rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        accuracy = float((model(test_x).argmax(1) == test_y).double().mean())
    return model, accuracy


def _row(
    network: str, attack: Attack, b: int, cases: list[tuple[nn.Module, Tensor, Tensor]]
) -> dict[str, object]:
    lowest, seconds, converged, false = [], [], 0, 0
    for i, (model, x, y) in enumerate(cases):
        found = attack(gl.observe(model, x, y), rng=i)
        worst = float("-inf")
        if found.x is not None:
            worst = float(gl.metrics.psnr(found.x[gl.metrics.pair(found.x, x)], x).min())
        lowest.append(worst)
        seconds.append(found.cost.seconds)
        converged += found.outcome is gl.Outcome.CONVERGED
        false += found.outcome is gl.Outcome.CONVERGED and worst < EXACT
    return {
        "network": network,
        "attack": attack.name,
        "B": b,
        "exact": f"{sum(value > EXACT for value in lowest)} of {len(cases)}",
        "median of the worst picture, dB": statistics.median(lowest),
        "called converged": converged,
        "of these below 60 dB": false,
        "median seconds": statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
