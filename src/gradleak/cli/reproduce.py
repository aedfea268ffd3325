"""``gradleak reproduce``: a paper's table, its figures beside ours."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table as RichTable

from gradleak.cli.console import console, json_option, print_json, quiet_option, results
from gradleak.files import require_folder, write_whole

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
    "dlg-defenses",
    "dlg-text",
    "text-attacks",
    "masking",
    "dropout",
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
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for the table as JSON, and for what else belongs to it, such as a plot.",
)
@json_option
@quiet_option
def reproduce(
    name: str, n: int | None, data: tuple[str, ...], out: Path | None, as_json: bool, quiet: bool
) -> None:
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
      predicted error against attacks', 8 networks, 6 defenses (Zhang et al. 2023)
    influence-directions
      noise of one length along three directions (Zhang et al. 2023)
    influence-fairness
      how far pictures and classes lie apart under one noise (Zhang et al. 2023)
    influence-initialization
      what each scheme of first weights gives away (Zhang et al. 2023)
    dlg-defenses
      noise, low precision and pruning, told of and not; six minutes (Zhu et al. 2019)
    dlg-text
      a sentence after 0, 10, 20, ... matching gradients, masked LM (Zhu et al. 2019)
    text-attacks
      DLG, TAG, LAMP and DAGER by batch size and length; --pictures counts batches (four papers)
    masking
      from where masking, clipping, pruning and noise hide; ten minutes (Kim and Park 2024)
    dropout
      rates of dropout, and attackers who get around it (Zheng 2021)

    The first two run on bundled pictures, dlg-text and text-attacks on sentences, which --pictures counts,
    influence on some pictures and on CIFAR-10's test set, the others on MNIST's or CIFAR-10's:

    \b
    gradleak fetch mnist cifar10
    gradleak reproduce feedback-blending --pictures 200 --json > table.json
    gradleak reproduce dlg-batch --data faces --pictures 8
    gradleak reproduce influence --data digits --data faces --out influence
    """
    from gradleak.reproduce import TABLES

    if out is not None:
        require_folder(out)
    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if not quiet and not as_json and what != last:
            console.print(f"{share:4.0%}  {what}", highlight=False)
            last = what

    paper = TABLES[name]
    table = paper.make(n or paper.pictures, data or paper.data, tell)
    if out is not None:
        for file, content in _files(name, table).items():
            write_whole(out / file, content)
    if as_json:
        print_json(table.to_dict())
    else:
        for one in (table, *table.more):
            _print(one)


def _files(name: str, table: "Table") -> dict[str, bytes]:
    return {f"{name}.json": json.dumps(table.to_dict(), indent=2).encode() + b"\n", **table.files}


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
