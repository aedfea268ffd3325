"""``gradleak observe``: make a capture, which is what a server would hold."""

from pathlib import Path

import click

from gradleak.cli.console import json_option, print_json
from gradleak.cli.data import data_options
from gradleak.cli.models import args_option, model_option, weights_option
from gradleak.cli.training import Training, training_options
from gradleak.sources.models import arguments, build, load_weights
from gradleak.sources.pictures import Source


@click.command()
@model_option
@args_option
@weights_option
@data_options
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures of the client."
)
@training_options
@click.option(
    "--train-mode", is_flag=True, help="BatchNorm uses the batch's own statistics, and dropout draws."
)
@click.option(
    "--reveal",
    default="",
    metavar="NAMES",
    help="What the server knows besides, with commas: labels, statistics (the batch's, at every BatchNorm), "
    "order (of local training).",
)
@click.option("--reveal-labels", is_flag=True, help="The same as --reveal labels.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the model, and of the client's own dice."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("capture.safetensors"), show_default=True
)
@json_option
def observe(
    spec: str,
    pairs: tuple[str, ...],
    weights: Path | None,
    source: Source,
    batch: int,
    training: Training,
    train_mode: bool,
    reveal: str,
    reveal_labels: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run one client on pictures and keep what the server sees.

    \b
    gradleak observe --model lenet --data faces --out capture.safetensors
    gradleak attack capture.safetensors --model lenet

    With --lr the client trains for a while, and sends how far its weights have moved:

    \b
    gradleak observe --model convnet -n 4 --lr 0.05 --epochs 2 --local-batch 2
    gradleak attack capture.safetensors --model convnet --attack gdl
    """
    from gradleak.observe import observe as look
    from gradleak.observe import save

    client = training.client(batch)
    model = build(spec, arguments(pairs), seed).train(train_mode)
    load_weights(model, weights)
    x, y = source.read(batch)
    names = [name.strip() for name in reveal.split(",") if name.strip()]
    if reveal_labels and "labels" not in names:
        names.append("labels")
    seen = look(model, x, y, client=client, reveal=names, rng=seed)
    save(seen, out)
    if as_json:
        facts = {
            "capture": str(out),
            "knows": list(seen.knows),
            "x_shape": list(seen.x_shape),
            "classes": seen.classes,
        }
        print_json(facts)
    else:
        click.echo(f"{seen!r}\nwritten to {out}")
