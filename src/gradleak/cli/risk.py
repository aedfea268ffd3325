"""``gradleak risk``: what a network would give away, said before any attack is run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from rich.table import Table

from gradleak.cli import heat
from gradleak.cli.console import console, json_option, print_json, results
from gradleak.cli.data import data_options
from gradleak.cli.defending import defense_option
from gradleak.cli.models import args_option, weights_option
from gradleak.cli.training import Training, training_options
from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.sources.defenses import defended
from gradleak.sources.models import arguments, build, load_weights
from gradleak.sources.pictures import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradleak.observe import Client
    from gradleak.risk import Forecast


class _Forecasts(click.Group):
    """A group whose first word may be a model instead of a command: then the forecast is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, ["predict", *args] if args and args[0] not in known else args)


@click.group(cls=_Forecasts, subcommand_metavar="MODULE:CALLABLE | rank MODULE:CALLABLE [ARGS]...")
def risk() -> None:
    """Predict the leak without an attack.

    \b
    gradleak risk lenet --data faces --size 16 --arg size=16
    gradleak risk rank lenet --input 3,32,32

    The first is short for `gradleak risk predict lenet ...`, whose --help has the options.
    """


@risk.command()
@click.argument("spec", metavar="MODULE:CALLABLE")
@click.option("--input", "shape", required=True, metavar="C,H,W", help="One record's shape, such as 3,32,32.")
@args_option
@click.option("--seed", type=int, default=0, show_default=True, help="The model's, and the stand-in's.")
@click.option(
    "--exact/--counts",
    default=True,
    show_default=True,
    help="Rank the equations in numbers, in seconds to minutes, or only count them.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Records in the batch.")
@click.option("--advice", is_flag=True, help="Find small changes that leave a layer's input open.")
@json_option
def rank(
    spec: str,
    shape: str,
    pairs: tuple[str, ...],
    seed: int,
    exact: bool,
    batch: int,
    advice: bool,
    as_json: bool,
) -> None:
    """Count and rank the equations that a gradient brings on each layer's input.

    \b
    gradleak risk rank cnn6_d --input 3,32,32
    gradleak risk rank my_package.nets:build --input 1,28,28 --counts --advice

    MODULE:CALLABLE builds the model; a name from `gradleak list models` will do. "open" is how many
    dimensions of a layer's input its own equations leave undetermined.
    """
    from gradleak import risk as room

    model, record = build(spec, arguments(pairs), seed).eval(), _shape(shape)
    report = room.rank(model, record, exact=exact, batch=batch, rng=seed)
    changes = None
    if advice and not report.breaks:
        changes = room.advise(model, record, exact=exact, rng=seed)
    if as_json:
        said = {} if changes is None else {"advice": [change.to_dict() for change in changes]}
        print_json(report.to_dict() | said)
        return
    _print_rows(report.table())
    for layer in report.layers:
        for note in layer.notes:
            console.print(f"{layer.path}: {note}", highlight=False, markup=False)
    if report.evidence == "stand-in":
        console.print("ranked at a random input; all but exceptional ones share a rank while no unit is off")
    results.print(f"\n{report.verdict}", highlight=False, markup=False, soft_wrap=True)
    if advice:
        _print_advice(None if changes is None else [change.says for change in changes])


@risk.command()
@click.argument("spec", metavar="MODULE:CALLABLE")
@args_option
@weights_option
@data_options
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures of the client."
)
@click.option(
    "--client",
    "sends",
    type=click.Choice(("fedsgd", "fedavg")),
    show_default="fedavg where there is --lr, or else fedsgd",
    help="One gradient of the whole batch, or how far local training moved the weights.",
)
@training_options
@defense_option
@click.option(
    "--noise", type=float, default=0.0, show_default=True, help="Std of what is added to every entry at last."
)
@click.option(
    "--train-mode", is_flag=True, help="BatchNorm uses the batch's own statistics, and dropout draws."
)
@click.option(
    "--layers/--no-layers", default=True, show_default=True, help="Ask each layer what it tells alone."
)
@click.option(
    "--exact", is_flag=True, help="Settle every number by a matrix of all entries, which can take minutes."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A folder for risk.html, risk.png, risk.svg and risk.json."
)
@json_option
def predict(
    spec: str,
    pairs: tuple[str, ...],
    weights: Path | None,
    source: Source,
    batch: int,
    sends: str | None,
    training: Training,
    defenses: tuple[str, ...],
    noise: float,
    train_mode: bool,
    layers: bool,
    exact: bool,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say how near an attacker would come to each picture, by which layer, and which labels can be read off.

    \b
    gradleak risk lenet --data digits --size 16 --arg channels=1 --arg size=16
    gradleak risk mlp --data faces --size 16 --arg size=16 -n 4 --defense gaussian:std=1e-3 --out risk
    gradleak risk convnet -n 4 --client fedavg --lr 0.05 --local-batch 2 --noise 1e-3

    No attack is run: the update is taken for linear around the pictures, and pictures for smooth. For
    networks with kinks, such as ReLU, the number errs towards too much leakage. MODULE:CALLABLE builds the
    model; a name from `gradleak list models` will do.
    """
    from gradleak import risk as room
    from gradleak.files import require_folder

    client = defended(_client(sends, training, batch), defenses)
    if out is not None:
        require_folder(out)
    x, y = source.read(batch)
    fit = {"channels": x.shape[1], "size": x.shape[-1]}
    model = build(spec, arguments(pairs), seed, fit=fit).train(train_mode)
    load_weights(model, weights)
    y = y % classes_of(model, x)
    found = room.predict(
        model, x, y, client=client, noise=noise, exact=exact or None, layers=layers, rng=seed
    )
    written = []
    if out is not None:
        from gradleak.report.forecast import write_forecast

        written = write_forecast(found, out, title=f"{spec} on {source.data}, a batch of {batch}")
    if as_json:
        print_json(found.to_dict() | ({"written": [str(path) for path in written]} if written else {}))
        return
    _print_forecast(found)
    if out is not None:
        click.echo(f"Open {out / 'risk.html'}")


def _client(sends: str | None, training: Training, batch: int) -> "Client":
    if sends == "fedavg" and training.lr is None:
        raise InvalidInput(
            "expected --lr beside --client fedavg, since local training needs a rate; came none. Add one, "
            "such as --lr 0.05."
        )
    if sends == "fedsgd" and training.lr is not None:
        raise InvalidInput(
            f"expected one gradient of the whole batch for --client fedsgd; came --lr {training.lr:g}. Leave "
            "it away, or take --client fedavg."
        )
    return training.client(batch)


def _print_forecast(found: "Forecast") -> None:
    width = results.width
    results.print(heat.verdicts(found))
    if found.layers:
        results.print()
        results.print(heat.heat_map(found, width))
        results.print(heat.legend(found, width), style="dim", soft_wrap=True)
    results.print()
    for reason in heat.reasons(found):
        results.print(f"- {reason}", soft_wrap=True)
    for note in found.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    results.print(f"\n{found.verdict}", style="bold", soft_wrap=True)
    results.print(f"The client is {found.client}; this took {found.seconds:.1f} s.", soft_wrap=True)


def classes_of(model: "nn.Module", x: "Tensor") -> int:
    """How many logits the model has for these pictures."""
    from gradleak.observe import observe

    try:
        found = observe(model, x, torch.zeros(len(x), dtype=torch.int64)).classes
    except InvalidBatch as error:
        if "cannot take a batch" not in str(error):
            raise
        raise InvalidBatch(
            f"{error} Choose the pictures' size and channels with --size and --channels, or give the model's "
            "callable its own with --arg, such as --arg size=16."
        ) from error
    if found is None:
        raise InvalidInput("expected a model that classifies; came one with another output")
    return found


def _print_rows(rows: list[dict[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0] if rows else ():
        table.add_column(heading, justify="left" if heading in ("layer", "kind") else "right")
    for row in rows:
        table.add_row(*row.values())
    results.print(table)


def _print_advice(changes: list[str] | None) -> None:
    if changes is None:
        console.print("no advice: it needs a chain")
    elif not changes:
        results.print("No change of one layer's width or stride leaves its input open.", highlight=False)
    else:
        results.print("Smallest changes that leave a layer's input open:", highlight=False)
        for change in changes:
            results.print(f"  {change}", highlight=False, markup=False, soft_wrap=True)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"expected --input as whole numbers with commas, like 3,32,32; came '{text}'"
        ) from error
