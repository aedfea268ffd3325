"""Which defenses, as an option that commands share."""

import click

defense_option = click.option(
    "--defense",
    "defenses",
    multiple=True,
    metavar="NAME:STRENGTH=VALUE,...",
    help='Something against leaks, such as "gaussian:std=1e-3", "mask:rate=0.5" or '
    '"withhold:layers=conv1+fc"; may be repeated, the outermost last.',
)
