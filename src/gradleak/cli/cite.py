"""``gradleak cite``: the bibliography of what you ran."""

import click

from gradleak.cli.console import json_option, print_json


@click.command()
@click.argument("names", nargs=-1, required=True)
@json_option
def cite(names: tuple[str, ...], as_json: bool) -> None:
    """Print BibTeX for NAMES, which are attacks, with the parts they are made of, or defenses."""
    from gradleak.attacks import ATTACKS
    from gradleak.defenses import DEFENSES
    from gradleak.errors import InvalidInput
    from gradleak.references import REFERENCES
    from gradleak.text import TEXT_ATTACKS

    attacks = ATTACKS | TEXT_ATTACKS
    unknown = [name for name in names if name not in attacks and name not in DEFENSES]
    if unknown:
        raise InvalidInput(
            f"expected attacks among {', '.join(attacks)}, or defenses among {', '.join(DEFENSES)}; came "
            f"{', '.join(unknown)}"
        )
    cited = (attacks[name]().citations if name in attacks else DEFENSES[name].references for name in names)
    keys = list(dict.fromkeys(key for each in cited for key in each))
    if as_json:
        print_json({key: REFERENCES[key] for key in keys})
    else:
        click.echo("\n\n".join(REFERENCES[key] for key in keys))
