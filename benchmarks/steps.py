"""Memory and time of one matching gradient through many local steps, replayed and with all graphs kept."""

import dataclasses
import json
import resource
import subprocess
import sys
import time

import click
import torch

import gradleak as gl
from benchmarks.common import show
from gradleak.trees import squared_norm

_WAYS = {"replayed": False, "graphs kept": True}


@click.command()
@click.option("--steps", default=50, show_default=True)
@click.option("--width", default=64, show_default=True, help="Of the ConvNet, on pictures of 3 x 32 x 32.")
@click.option("--batch", default=16, show_default=True, help="Records per step, two batches in all.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--child", hidden=True, help="The way that this process measures.")
def main(steps: int, width: int, batch: int, as_json: bool, child: str | None) -> None:
    """Each way in a process of its own, whose peak memory is read at its end."""
    torch.set_num_threads(1)
    if child is not None:
        print(json.dumps(_measured(steps, width, batch, whole=_WAYS[child])))
        return
    rows = []
    for way in _WAYS:
        sizes = ["--steps", str(steps), "--width", str(width), "--batch", str(batch)]
        command = [sys.executable, "-m", "benchmarks.steps", *sizes, "--child", way]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({"way": way, **json.loads(out)})
    show(f"One matching gradient through {steps} local steps of a ConvNet", rows, as_json)


def _measured(steps: int, width: int, batch: int, *, whole: bool) -> dict[str, object]:
    x = torch.rand(2 * batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(2 * batch) % 10
    seen = gl.observe(gl.zoo.convnet(width=width, seed=0), x, y)
    client = gl.LocalSGD(-(-steps // 2), batch, 0.01, order="given")
    task = dataclasses.replace(seen.task, transformed=False, whole=whole)
    before = _peak()
    start = time.perf_counter()
    x.requires_grad_()
    (slope,) = torch.autograd.grad(squared_norm(client(task, seen.params, x, y)), x)
    return {
        "steps": client.steps(len(x)),
        "seconds": round(time.perf_counter() - start, 1),
        "GB before": round(before, 2),
        "GB at the peak": round(_peak(), 2),
        "slope": float(slope.norm()),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
