"""``gradleak reproduce``: a paper's table, its figures beside ours."""

import click
from rich.table import Table as RichTable

from gradleak.cli.console import console, json_option, print_json, quiet_option, results

_HEADINGS = (
    "network",
    "attack",
    "pictures",
    "MSE",
    "±",
    "PSNR",
    "recovered",
    "converged",
    "gradients",
    "seconds",
    "paper",
)


@click.command()
@click.argument("name", type=click.Choice(["r-gap", "ssras"]))
@click.option(
    "--pictures", "n", type=click.IntRange(1, 120), default=20, show_default=True, help="Per network."
)
@json_option
@quiet_option
def reproduce(name: str, n: int, as_json: bool, quiet: bool) -> None:
    """Run the comparison of a paper on bundled pictures, and print its figures beside ours.

    \b
    r-gap   R-GAP, DLG and their hybrid on CNN6, CNN6-d and LeNet (Zhu and Blaschko 2021)
    ssras   how many pictures each attack recovers, label known and unknown (Sensors 2022)
    """
    from gradleak.reproduce import TABLES

    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if not quiet and not as_json and what != last:
            console.print(f"{share:4.0%}  {what}", highlight=False)
            last = what

    table = TABLES[name](n, tell)
    if as_json:
        print_json(table.to_dict())
        return
    shown = RichTable(title=table.title, title_justify="left", box=None, header_style="bold")
    for heading in _HEADINGS:
        shown.add_column(heading, justify="left" if heading in ("network", "attack", "paper") else "right")
    for row in table.rows:
        shown.add_row(
            row.network,
            row.attack,
            str(row.pictures),
            f"{row.mse_mean:.1e}",
            f"{row.mse_deviation:.1e}" if row.pictures > 1 else "-",
            f"{row.psnr_median:.1f}",
            str(row.recovered),
            str(row.converged),
            f"{row.matching_gradients:.0f}",
            f"{row.seconds:.1f}",
            row.paper,
        )
    results.print(shown)
    for note in table.notes:
        results.print(note, highlight=False)
