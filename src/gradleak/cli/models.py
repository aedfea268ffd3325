"""Which model, and where it is run, as options that commands share."""

from pathlib import Path

import click

model_option = click.option(
    "--model",
    "spec",
    required=True,
    metavar="MODULE:CALLABLE",
    help="What builds the model, such as my_package.nets:build. A name from `gradleak list models` will do.",
)
args_option = click.option(
    "--arg",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument for the callable; may be repeated. Numbers, true, false and none are understood.",
)
weights_option = click.option(
    "--weights", type=click.Path(path_type=Path), help="The model's weights, as safetensors."
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where to compute, such as cuda."
)
workers_option = click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes."
)
ray_option = click.option(
    "--ray", metavar="ADDRESS", help='A Ray cluster to run on, or "local" for one of WORKERS here.'
)
