"""``gradleak list``: what there is to attack, to attack with, and to look at."""

import inspect

import click
from rich.table import Table

from gradleak.cli.console import json_option, print_json, results


@click.command("list")
@click.argument("what", type=click.Choice(["attacks", "models", "data"]))
@json_option
def list_(what: str, as_json: bool) -> None:
    """List the attacks, the models of the zoo, or the bundled pictures."""
    rows = {"attacks": _attacks, "models": _models, "data": _data}[what]()
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    results.print(table)


def _attacks() -> list[dict[str, str]]:
    from gradleak.attacks import ATTACKS

    return [{"name": name, "what": _first_line(build)} for name, build in ATTACKS.items()]


def _models() -> list[dict[str, str]]:
    from gradleak.zoo import MODELS

    return [{"name": name, "what": _first_line(build)} for name, build in MODELS.items()]


def _data() -> list[dict[str, str]]:
    from gradleak.zoo import PICTURES

    return [
        {"name": name, "what": one.description, "source": one.source, "licence": one.licence}
        for name, one in PICTURES.items()
    ]


def _first_line(build: object) -> str:
    return (inspect.getdoc(build) or "").splitlines()[0]
