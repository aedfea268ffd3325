"""Eight pictures in one gradient of a ReLU network: what the last layer's closed form adds to a search."""

import statistics

import click
import torch
from torch import Tensor

import gradleak as gl
from benchmarks.common import public, show
from gradleak.attacks.matching import Matching

BATCH, CLASSES = 8, 10

ATTACKS: dict[str, Matching] = {
    "inverting_gradients": gl.attacks.inverting_gradients(),
    "inverting_batches, no closed form": gl.attacks.inverting_batches(features=0.0),
    "inverting_batches, features only": gl.attacks.inverting_batches(rows=0.0),
    "inverting_batches": gl.attacks.inverting_batches(),
}


@click.command()
@click.option("--batches", "n", default=3, show_default=True, help="Batches of each set of pictures.")
@click.option("--set", "sets", multiple=True, type=click.Choice(["faces", "photos"]), help="Default: both.")
@click.option("--attack", "names", multiple=True, type=click.Choice(list(ATTACKS)), help="Default: all.")
@click.option("--json", "as_json", is_flag=True)
def main(n: int, sets: tuple[str, ...], names: tuple[str, ...], as_json: bool) -> None:
    """ConvNet (strides), 32 x 32, 10 classes, untrained, 8 pictures with distinct known labels, float32."""
    torch.set_num_threads(1)
    cases = [(name, i) for name in sets or ("faces", "photos") for i in range(n)]
    rows = [_row(name, cases) for name in names or ATTACKS]
    show("Eight pictures in one gradient", rows, as_json)


def batch(name: str, i: int) -> Tensor:
    """Faces 0-7, 8-15, 16-23, ... and photographs cropped with seeds 1, 2, 3, ....

    The weights were chosen on two batches of faces 30 to 59 and on photographs of the seeds 5 and 6, with
    networks from seed 100 on. There are six photographs, so that crops overlap whatever the seed.
    """
    if name == "faces":
        if 8 * i + 8 > 30:
            raise click.UsageError(f"faces 0 to 29 hold 3 batches; came number {i + 1}")
        return gl.zoo.pictures("faces", n=30)[0][8 * i : 8 * i + 8]
    if i > 3:
        raise click.UsageError(f"photographs of the seeds 1 to 4 are 4 batches; came number {i + 1}")
    return gl.zoo.pictures("photos", n=BATCH, seed=i + 1)[0]


def _row(name: str, cases: list[tuple[str, int]]) -> dict[str, object]:
    means, lowest, nulls, spent, seconds = [], [], [], [], []
    for kind, i in cases:
        x, y = batch(kind, i), torch.randperm(CLASSES, generator=torch.Generator().manual_seed(i))[:BATCH]
        seen = gl.observe(gl.zoo.convnet(CLASSES, pool="stride", seed=i), x, y, reveal=("labels",))
        found = ATTACKS[name](seen, rng=i)
        scores = gl.metrics.score(found.x, found.y, x, y, classes=CLASSES, reference=public())
        means.append(float(scores.psnr.mean()))
        lowest.append(float(scores.psnr.min()))
        nulls.append(float(scores.best_null_psnr.mean()))
        spent.append(found.cost.matching_gradients)
        seconds.append(found.cost.seconds)
    return {
        "attack": name,
        "batches": len(cases),
        "mean PSNR, dB": statistics.mean(means),
        "of the batches": " ".join(f"{mean:.1f}" for mean in means),
        "worst picture": min(lowest),
        "null": statistics.mean(nulls),
        "matching gradients": statistics.median(spent),
        "seconds": statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
