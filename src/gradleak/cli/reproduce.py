"""``gradleak reproduce``: a paper's table, its figures beside ours."""

from typing import TYPE_CHECKING

import click
from rich.table import Table as RichTable

from gradleak.cli.console import console, json_option, print_json, quiet_option, results

if TYPE_CHECKING:
    from gradleak.reproduce import Table

_NAMES = (
    "r-gap",
    "ssras",
    "idlg-labels",
    "dlg-batch",
    "cpl-init",
    "feedback-blending",
    "gdl-labels",
    "gdl-images",
    "gradinversion-ablation",
    "influence",
    "influence-directions",
    "influence-fairness",
    "influence-initialization",
)
_DATA = ("mnist", "cifar10", "faces", "photos", "digits")


@click.command()
@click.argument("name", type=click.Choice(_NAMES))
@click.option(
    "--pictures",
    "n",
    type=click.IntRange(1, 10_000),
    help="How many, instead of as many as a core attacks in minutes.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Choice(_DATA),
    help="Instead of the paper's own sets; may be repeated. The last three need nothing fetched.",
)
@json_option
@quiet_option
def reproduce(name: str, n: int | None, data: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Run the comparison of a paper, and print its figures beside ours.

    \b
    r-gap
      R-GAP, DLG and their hybrid on CNN6, CNN6-d and LeNet (Zhu and Blaschko 2021)
    ssras
      pictures that each attack recovers, label known and unknown (Sensors 2022)
    idlg-labels
      labels, by DLG and by the sign rule (Zhao et al. 2020)
    dlg-batch
      matching gradients by batch size, 1 to 8 pictures (Zhu et al. 2019)
    cpl-init
      success by where the attack starts (Wei et al. 2020)
    feedback-blending
      a stream of pictures, with and without blending (Leite et al. 2024)
    gdl-labels
      labels of 4 to 64 pictures, with repeats; --pictures counts batches (Geng et al. 2021)
    gdl-images
      a wrong label and equal labels; --pictures counts batches of 4 (Geng et al. 2021)
    gradinversion-ablation
      each term on and off; --pictures counts batches of 4 (Yin et al. 2021)
    influence
      predicted error against DLG's, for noise and pruning (Zhang et al. 2023)
    influence-directions
      noise of one length along three directions (Zhang et al. 2023)
    influence-fairness
      how far pictures and classes lie apart under one noise (Zhang et al. 2023)
    influence-initialization
      what each scheme of first weights gives away (Zhang et al. 2023)

    The first two run on bundled pictures, the others on MNIST's or CIFAR-10's test set:

    \b
    gradleak fetch mnist cifar10
    gradleak reproduce feedback-blending --pictures 200 --json > table.json
    gradleak reproduce dlg-batch --data faces --pictures 8
    """
    from gradleak.reproduce import TABLES

    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if not quiet and not as_json and what != last:
            console.print(f"{share:4.0%}  {what}", highlight=False)
            last = what

    paper = TABLES[name]
    table = paper.make(n or paper.pictures, data or paper.data, tell)
    if as_json:
        print_json(table.to_dict())
    else:
        _print(table)


def _print(table: "Table") -> None:
    shown = RichTable(title=table.title, title_justify="left", box=None, header_style="bold")
    numbers = [any(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
    for column, right in zip(table.columns, numbers, strict=True):
        shown.add_column(column.name, justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(column.show(value) for column, value in zip(table.columns, row, strict=True)))
    results.print(shown)
    for note in table.notes:
        results.print(note, highlight=False)
