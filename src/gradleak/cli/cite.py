"""``gradleak cite``: the bibliography of what you ran."""

import click

from gradleak.cli.console import json_option, print_json


@click.command()
@click.argument("names", nargs=-1, required=True)
@json_option
def cite(names: tuple[str, ...], as_json: bool) -> None:
    """Print BibTeX for the attacks NAMES, and for the parts they are made of."""
    from gradleak.attacks import ATTACKS
    from gradleak.errors import InvalidInput
    from gradleak.references import REFERENCES

    unknown = [name for name in names if name not in ATTACKS]
    if unknown:
        raise InvalidInput(f"expected attacks among {', '.join(ATTACKS)}; came {', '.join(unknown)}")
    keys = list(dict.fromkeys(key for name in names for key in ATTACKS[name]().citations))
    if as_json:
        print_json({key: REFERENCES[key] for key in keys})
    else:
        click.echo("\n\n".join(REFERENCES[key] for key in keys))
