"""``gradleak list``: what there is to attack, to attack with, and to look at."""

import inspect

import click
from rich.table import Table

from gradleak.cli.console import json_option, print_json, results


@click.command("list")
@click.argument("what", type=click.Choice(["attacks", "models", "data"]))
@json_option
def list_(what: str, as_json: bool) -> None:
    """List the attacks, the models of the zoo, or the bundled pictures and texts."""
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
    from gradleak.text import TEXT_ATTACKS

    return [
        {"name": name, "on": on, "what": _first_line(build)}
        for on, known in (("pictures", ATTACKS), ("texts", TEXT_ATTACKS))
        for name, build in known.items()
    ]


def _models() -> list[dict[str, str]]:
    from gradleak.zoo import MODELS, TEXT_MODELS

    return [
        {"name": name, "on": on, "what": _first_line(build)}
        for on, known in (("pictures", MODELS), ("texts", TEXT_MODELS))
        for name, build in known.items()
    ]


def _data() -> list[dict[str, str]]:
    from gradleak.zoo import PICTURES

    return [
        {"name": name, "what": one.description, "source": one.source, "licence": one.licence}
        for name, one in PICTURES.items()
    ] + [
        {
            "name": "sentences",
            "what": "English sentences, each private or harmless; for texts",
            "source": "our own",
            "licence": "Apache-2.0",
        }
    ]


def _first_line(build: object) -> str:
    return (inspect.getdoc(build) or "").splitlines()[0]
