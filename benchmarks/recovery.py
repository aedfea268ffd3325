"""How often DLG and iDLG recover a picture from one LeNet gradient, and what that costs."""

import statistics

import click
import torch

import gradleak as gl
from benchmarks.common import CLASSES, pairs, public, show


@click.command()
@click.option("--pairs", "n", default=20, show_default=True, help="Pictures, each with a network of its own.")
@click.option("--json", "as_json", is_flag=True)
def main(n: int, as_json: bool) -> None:
    """LeNet with U(-0.5, 0.5), 32 x 32 colour, 100 classes, float32 gradients, labels unknown."""
    torch.set_num_threads(1)
    batch = pairs(n)
    observations = [gl.observe(gl.zoo.lenet(classes=CLASSES, seed=i), x, y) for i, (x, y) in enumerate(batch)]
    rows = [_row(name, observations, batch) for name in ("dlg", "idlg")]
    show(f"Recovery from one gradient, {n} picture and seed pairs, one trial each", rows, as_json)


def _row(name, observations, batch):
    found = gl.attacks.ATTACKS[name]().together(observations, rng=0)
    scores = [
        gl.metrics.score(one.x, one.y, x, y, classes=CLASSES, reference=public())
        for one, (x, y) in zip(found, batch, strict=True)
    ]
    psnr = [float(score.psnr) for score in scores]
    spent = [one.cost.matching_gradients for one in found]
    return {
        "attack": name,
        "above 40 dB": f"{sum(p > 40 for p in psnr)} of {len(psnr)}",
        "median dB": statistics.median(psnr),
        "lowest dB": min(psnr),
        "null dB": statistics.median(float(score.null_psnr) for score in scores),
        "labels right": f"{sum(score.label_agreement == 1 for score in scores)} of {len(psnr)}",
        "converged": sum(one.outcome is gl.Outcome.CONVERGED for one in found),
        "median matching gradients": statistics.median(spent),
        "median seconds": statistics.median(one.cost.seconds for one in found),
    }


if __name__ == "__main__":
    main()
