"""Trials solved together through vmap, against the same trials one after another."""

import time

import click
import torch

import gradleak as gl
from benchmarks.common import show
from gradleak.attacks.matching import Matching
from gradleak.randomness import spawn


@click.command()
@click.option("--trials", default=32, show_default=True)
@click.option("--steps", default=60, show_default=True, help="Matching gradients per trial.")
@click.option("--repeats", default=3, show_default=True, help="The median of this many is shown.")
@click.option("--json", "as_json", is_flag=True)
def main(trials: int, steps: int, repeats: int, as_json: bool) -> None:
    """LeNet, 32 x 32, 10 classes, one thread: records together, and each alone."""
    torch.set_num_threads(1)
    x, _ = gl.zoo.pictures("faces", n=trials)
    model = gl.zoo.lenet(classes=10, seed=0)
    records = [gl.observe(model, x[i : i + 1], torch.tensor([i % 10])) for i in range(trials)]
    attacks = {
        "inverting_gradients": gl.attacks.inverting_gradients(steps=steps - 1, tolerance=0),
        "dlg, float32, history 20": gl.attacks.dlg(evaluations=steps, tolerance=0, double=False, history=20),
        "dlg, its defaults": gl.attacks.dlg(evaluations=steps, tolerance=0),
    }
    rows = [_row(name, attack, records, repeats) for name, attack in attacks.items()]
    show(
        f"{trials} trials together against one after another, {steps} matching gradients each", rows, as_json
    )


def _row(name: str, attack: Matching, records, repeats: int) -> dict[str, object]:
    ratios, together_ms, alone_ms = [], [], []
    for _ in range(repeats):
        # In turn, so that a machine whose speed drifts is unfair to neither.
        start = time.perf_counter()
        together = attack.together(records, rng=0)
        middle = time.perf_counter()
        alone = [attack(obs, rng=rng) for obs, rng in zip(records, spawn(0, len(records)), strict=True)]
        end = time.perf_counter()
        spent = sum(one.cost.matching_gradients for one in together)
        together_ms.append(1e3 * (middle - start) / spent)
        alone_ms.append(1e3 * (end - middle) / spent)
        ratios.append((end - middle) / (middle - start))
    furthest = max(float((a.x - b.x).abs().max()) for a, b in zip(together, alone, strict=True))
    return {
        "attack": name,
        "together, ms per matching gradient": sorted(together_ms)[repeats // 2],
        "one by one, ms": sorted(alone_ms)[repeats // 2],
        "ratio": sorted(ratios)[repeats // 2],
        "largest pixel difference": furthest,
    }


if __name__ == "__main__":
    main()
