"""``gradleak observe``: make a capture, which is what a server would hold."""

from pathlib import Path

import click

from gradleak.cli.console import json_option, print_json
from gradleak.cli.data import pictures
from gradleak.cli.models import args_option, build, load_weights, model_option


@click.command()
@model_option
@args_option
@click.option("--weights", type=click.Path(path_type=Path), help="The model's weights, as safetensors.")
@click.option(
    "--data",
    default="faces",
    show_default=True,
    help="Bundled pictures by name (see `gradleak list data`), a picture file, or a folder of them; in a "
    "folder of folders, each folder is a class.",
)
@click.option(
    "--size", type=click.IntRange(4, 4096), default=32, show_default=True, help="Height and width in pixels."
)
@click.option(
    "--first", type=click.IntRange(0), default=0, show_default=True, help="Which picture to begin with."
)
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures in the batch."
)
@click.option("--channels", type=click.IntRange(1), help="3 or 1; the set's own by default.")
@click.option("--reveal-labels", is_flag=True, help="The server knows the labels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Initialises the model.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("capture.safetensors"), show_default=True
)
@json_option
def observe(
    spec: str,
    pairs: tuple[str, ...],
    weights: Path | None,
    data: str,
    size: int,
    first: int,
    batch: int,
    channels: int | None,
    reveal_labels: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run one client on pictures and keep what the server sees.

    \b
    gradleak observe --model lenet --data faces --out capture.safetensors
    gradleak attack capture.safetensors --model lenet
    """
    from gradleak.observe import observe as look
    from gradleak.observe import save

    model = build(spec, pairs, seed).eval()
    load_weights(model, weights)
    x, y = pictures(data, size=size, first=first, n=batch, channels=channels)
    seen = look(model, x, y, reveal=("labels",) if reveal_labels else ())
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
