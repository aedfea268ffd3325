"""Risk in decibels of a picture of 150,528 numbers, without a matrix: what it costs and how sure it is."""

import resource
import statistics
import time

import click
import torch
from torch import Tensor

import gradleak as gl
from benchmarks.common import show
from gradleak.observe import Observation

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4)


@click.command()
@click.option("--size", default=224, show_default=True)
@click.option("--pictures", "n", default=1, show_default=True, help="Photographs with seeds from 0 on.")
@click.option("--json", "as_json", is_flag=True)
def main(size: int, n: int, as_json: bool) -> None:
    """ResNet-18 of width 16, all levels of noise in one call; another seed draws other noise.

    A db is one matching gradient of the same network and picture in float32, in CPU time.
    """
    torch.set_num_threads(1)
    rows = [row for i in range(n) for row in measured(i, size)]
    show(f"Risk in decibels, {size} x {size} x 3", rows, as_json)


def measured(i: int, size: int) -> list[dict[str, object]]:
    x, _ = gl.zoo.pictures("photos", n=1, seed=i, size=size)
    y = torch.tensor([(3 * i + 1) % 10])
    model = gl.zoo.resnet(10, 3, size, width=16, seed=i)
    seen = gl.observe(model, x, y)
    gradients = [matching(seen, x, y) for _ in range(5)]
    rows: list[dict[str, object]] = []
    for seed in (0, 1):
        wall, start = time.perf_counter(), time.process_time()
        found = gl.risk.decibels(seen, x, y, noise=LEVELS, rng=seed)
        spent = time.process_time() - start
        wall = time.perf_counter() - wall
        gradients += [matching(seen, x, y) for _ in range(5)]
        for k, level in enumerate(LEVELS):
            rows.append(
                {
                    "picture": str(i),
                    "seed": str(seed),
                    "noise": f"{level:g}",
                    "dB": float(found.psnr[k, 0]),
                    "null": float(found.null_psnr[0]),
                    "dimensions": float(found.dimensions[k]),
                    "error": float(found.error[k]),
                    "sampling": float(found.sampling[k]),
                    "s": wall,
                    "db": spent / statistics.median(gradients),
                    "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                }
            )
    return rows


def matching(seen: Observation, x: Tensor, y: Tensor) -> float:
    """CPU seconds of one gradient of a squared distance between updates, with a graph of its own."""
    start = time.process_time()
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        update = seen.simulate(leaf, y)
        distance = torch.stack([(u - 0.9 * seen.update[name]).square().sum() for name, u in update.items()])
        torch.autograd.grad(distance.sum(), leaf)
    return time.process_time() - start


if __name__ == "__main__":
    main()
