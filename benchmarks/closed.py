"""Closed forms on LeNet and CNN6: structured against a dense twin against DLG, on the same gradients."""

import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import click
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import pairs, show
from benchmarks.dense import DenseRGAP
from gradleak.layers import chain

NETWORKS = ("cnn6, one logit", "lenet, U(-0.5, 0.5)", "lenet, default init")


@click.command()
@click.option("--pictures", "n", default=20, show_default=True, help="For R-GAP.")
@click.option("--dlg", default=3, show_default=True, help="Pictures for DLG, 2,000 matching gradients each.")
@click.option("--dense", default=1, show_default=True, help="Pictures for the dense twin; LeNet only.")
@click.option(
    "--fresh", is_flag=True, help="Faces 60 to 79 and seeds from 500 on: nothing was chosen on them."
)
@click.option("--json", "as_json", is_flag=True)
def main(n: int, dlg: int, dense: int, fresh: bool, as_json: bool) -> None:
    """Float32 gradients, labels unknown. Each row is a process, so that its peak memory is its own."""
    plan = [
        (network, attack, count) for network in NETWORKS for attack, count in (("r_gap", n), ("dlg", dlg))
    ]
    plan += [(network, "r_gap, dense", dense) for network in NETWORKS if network.startswith("lenet")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        rows = [pool.submit(row, *one, fresh).result() for one in plan if one[2]]
    show("Closed forms from float32 gradients, label unknown", rows, as_json)


def row(network: str, attack: str, n: int, fresh: bool) -> dict[str, object]:
    torch.set_num_threads(1)
    psnr, seconds, units, converged = [], [], [], 0
    for i, (x, y) in enumerate(unseen(n) if fresh else pairs(n)):
        obs = observed(network, 500 + i if fresh else i, x, y)
        run = _attack(attack, obs)
        start = time.process_time()
        found = run(obs, rng=i)
        seconds.append(time.process_time() - start)
        units.append(seconds[-1] / unit(obs))
        psnr.append(float("-inf") if found.x is None else float(gl.metrics.psnr(found.x, x)))
        converged += found.outcome is gl.Outcome.CONVERGED
    return {
        "network": network,
        "attack": attack,
        "pictures": n,
        "lowest dB": min(psnr),
        "median dB": statistics.median(psnr),
        "converged": converged,
        "median CPU seconds": statistics.median(seconds),
        "median db": statistics.median(units),
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def unseen(n: int) -> list[tuple[Tensor, Tensor]]:
    """Faces that neither a default nor a tolerance was chosen on; the pairs' own were looked at for both."""
    faces = gl.zoo.pictures("faces", n=80)[0][60:][:n]
    return [(faces[i : i + 1], torch.tensor([7 * i])) for i in range(len(faces))]


def build(network: str, seed: int) -> nn.Sequential:
    if network.startswith("cnn6"):
        return gl.zoo.cnn6(seed=seed)
    return gl.zoo.lenet(classes=10, init="default" if "default" in network else "uniform", seed=seed)


def observed(network: str, seed: int, x: Tensor, y: Tensor) -> gl.Observation:
    one_logit = network.startswith("cnn6")
    y = y % 2 if one_logit else y % 10
    return gl.observe(build(network, seed), x, y, loss=gl.logistic if one_logit else None)


def _attack(name: str, obs: gl.Observation):
    if name == "dlg":
        return gl.attacks.dlg(evaluations=2000)
    if name == "r_gap":
        return gl.attacks.r_gap()
    head = chain(obs)[-1]
    delta = head.grads["bias"]
    return DenseRGAP(head.grads["weight"].T @ delta / delta.dot(delta), delta)


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
