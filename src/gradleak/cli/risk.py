"""``gradleak risk``: what a network would give away, said before any attack is run."""

import click
from rich.table import Table

from gradleak.cli.console import console, json_option, print_json, results
from gradleak.cli.models import args_option, build
from gradleak.errors import InvalidInput


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
