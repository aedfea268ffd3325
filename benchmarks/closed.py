"""Closed forms against DLG on the same gradients: decibels, matching gradients, seconds and memory."""

import resource
import statistics
import time
from collections.abc import Callable

import click
import torch

import gradleak as gl
from benchmarks.common import pairs, show
from gradleak.attacks import Attack


@click.command()
@click.option("--pictures", "n", default=20, show_default=True)
@click.option(
    "--dlg", "evaluations", default=0, show_default=True, help="Matching gradients for DLG; 0 leaves it out."
)
@click.option("--json", "as_json", is_flag=True)
def main(n: int, evaluations: int, as_json: bool) -> None:
    """R-GAP on CNN6 and LeNet from float32 gradients, labels unknown; DLG beside it if asked for."""
    torch.set_num_threads(1)
    networks: dict[str, Callable[[int], torch.nn.Module]] = {
        "cnn6, one logit": lambda seed: gl.zoo.cnn6(seed=seed),
        "lenet, U(-0.5, 0.5)": lambda seed: gl.zoo.lenet(classes=10, seed=seed),
        "lenet, default init": lambda seed: gl.zoo.lenet(classes=10, init="default", seed=seed),
    }
    attacks: list[Attack] = [gl.attacks.r_gap()]
    if evaluations:
        attacks.append(gl.attacks.dlg(evaluations=evaluations))
    rows = [_row(name, build, attack, n) for name, build in networks.items() for attack in attacks]
    show(f"Closed forms, {n} pictures, float32, label unknown", rows, as_json)


def _row(name: str, build: Callable[[int], torch.nn.Module], attack: Attack, n: int) -> dict[str, object]:
    psnr, seconds, units, converged = [], [], [], 0
    for i, (x, y) in enumerate(pairs(n)):
        one_logit = name.startswith("cnn6")
        y = y % 2 if one_logit else y % 10
        obs = gl.observe(build(i), x, y, loss=gl.logistic if one_logit else None)
        start = time.process_time()
        found = attack(obs, rng=i)
        seconds.append(time.process_time() - start)
        units.append(seconds[-1] / unit(obs))
        psnr.append(float("-inf") if found.x is None else float(gl.metrics.psnr(found.x, x)))
        converged += found.outcome is gl.Outcome.CONVERGED
    return {
        "network": name,
        "attack": attack.name,
        "lowest dB": min(psnr),
        "median dB": statistics.median(psnr),
        "converged": f"{converged} of {n}",
        "median CPU seconds": statistics.median(seconds),
        "median db": statistics.median(units),
        "peak memory of the process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def unit(obs: gl.Observation) -> float:
    """CPU seconds of one matching gradient (1 db) of this very network, here and now."""
    x = torch.rand(obs.x_shape, requires_grad=True)
    y = torch.zeros(1, dtype=torch.long)
    task = type(obs.task)(obs.model, obs.constants, obs.loss, transformed=False)
    times = []
    for _ in range(9):
        start = time.process_time()
        gradient = obs.client(task, obs.params, x, y)
        mismatch = sum((gradient[name] - obs.update[name]).square().sum() for name in gradient)
        torch.autograd.grad(mismatch, x)
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
