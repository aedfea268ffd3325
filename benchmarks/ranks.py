"""Does the rank analysis foresee what R-GAP recovers? A confusion table over random chains."""

from collections import Counter

import click
import torch
from torch import nn

import gradleak as gl
from benchmarks.common import show

RECOVERED = 40.0


@click.command()
@click.option("--chains", "n", default=40, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(n: int, as_json: bool) -> None:
    """Random depth, channels, strides and activations on 12 x 12 photographs, float64 gradients."""
    torch.set_num_threads(1)
    pictures = gl.zoo.pictures("photos", size=12, n=20)[0].double()
    table: Counter[tuple[bool, bool]] = Counter()
    joined = 0
    for seed in range(n):
        model = chain(seed)
        report = gl.risk.rank(model, (3, 12, 12), rng=seed)
        predicted = not report.deficient
        x = pictures[seed % 20 : seed % 20 + 1]
        found = gl.attacks.r_gap()(gl.observe(model, x, torch.tensor([seed % 10])))
        recovered = found.x is not None and float(gl.metrics.psnr(found.x, x)) > RECOVERED
        table[predicted, recovered] += 1
        joined += recovered and not predicted
    rows = [
        {
            "predicted": "recoverable layer by layer" if predicted else "some layer leaves dimensions open",
            f"recovered above {RECOVERED:.0f} dB": table[predicted, True],
            "not": table[predicted, False],
        }
        for predicted in (True, False)
    ]
    show(f"{n} random chains; {joined} of the deficient ones closed by virtual constraints", rows, as_json)


def chain(seed: int) -> nn.Sequential:
    """One to three convolutions and a linear head, drawn from the seed."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    acts = (nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.Softplus())
    act = acts[draw(0, 1, 2, 3)]
    layers: list[nn.Module] = []
    channels, side = 3, 12
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(draw(1, 2, 3)):
            width, stride = draw(2, 4, 6, 9, 12, 16), draw(1, 1, 2)
            layers += [nn.Conv2d(channels, width, 3, stride, 1), act]
            channels, side = width, (side + 2 - 3) // stride + 1
        layers += [nn.Flatten(), nn.Linear(channels * side**2, 10)]
        return nn.Sequential(*layers).double()


if __name__ == "__main__":
    main()
