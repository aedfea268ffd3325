"""``gradleak risk``: what a network would give away, said before any attack is run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from rich.table import Table

from gradleak.cli.console import console, json_option, print_json, results
from gradleak.cli.data import Source, data_options
from gradleak.cli.models import args_option, build, load_weights, model_option, weights_option
from gradleak.cli.training import Training, training_options
from gradleak.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn


@click.group()
def risk() -> None:
    """Predict the leak without an attack."""


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

    model, record = build(spec, pairs, seed).eval(), _shape(shape)
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
@model_option
@args_option
@weights_option
@data_options
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures of the client."
)
@training_options
@click.option(
    "--noise", type=float, default=0.0, show_default=True, help="Std of what is added to every entry."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@json_option
def predict(
    spec: str,
    pairs: tuple[str, ...],
    weights: Path | None,
    source: Source,
    batch: int,
    training: Training,
    noise: float,
    seed: int,
    as_json: bool,
) -> None:
    """Say how near an attacker would come to each picture, and which labels can be read off.

    \b
    gradleak risk predict --model lenet --data digits --size 16 --arg channels=1 --arg size=16
    gradleak risk predict --model convnet --batch 4 --lr 0.05 --epochs 2 --local-batch 2 --noise 1e-3

    No attack is run: the update is taken for linear around the pictures, and pictures for smooth. For
    networks with kinks, such as ReLU, the number errs towards too much leakage.
    """
    from gradleak import risk as room

    client = training.client(batch)
    model = build(spec, pairs, seed).eval()
    load_weights(model, weights)
    x, y = source.read(batch)
    found = room.predict(model, x, y % classes_of(model, x), client=client, noise=noise, rng=seed)
    if as_json:
        print_json(found.to_dict())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, right in (
        ("picture", True),
        ("predicted", True),
        ("null", True),
        ("label", False),
        ("", False),
    ):
        table.add_column(heading, justify="right" if right else "left")
    for i, one in enumerate(found.samples, start=1):
        label = {True: "read off", False: "not read", None: "-"}[one.label_read]
        style = "bold" if one.leaks else None
        table.add_row(
            str(i), f"{one.psnr:.1f} dB", f"{one.null_psnr:.1f} dB", label, one.verdict, style=style
        )
    results.print(table)
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    for reason in found.samples[0].reasons[:1]:
        results.print(f"\n{reason}; {found.client}; {found.seconds:.1f} s", highlight=False, markup=False)
    results.print(found.verdict, highlight=False, markup=False, style="bold", soft_wrap=True)


def classes_of(model: "nn.Module", x: "Tensor") -> int:
    """How many logits the model has for these pictures."""
    from gradleak.observe import observe

    found = observe(model, x, torch.zeros(len(x), dtype=torch.int64)).classes
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
