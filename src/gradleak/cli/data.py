"""Which pictures, as options that commands share."""

import functools
from collections.abc import Callable
from typing import Any

import click

from gradleak.sources.pictures import Source

_OPTIONS = (
    click.option(
        "--data",
        default="faces",
        show_default=True,
        help="Bundled pictures by name (see `gradleak list data`), a picture file, or a folder of them; in a "
        "folder of folders, each folder is a class.",
    ),
    click.option(
        "--size",
        type=click.IntRange(4, 4096),
        default=32,
        show_default=True,
        help="Height and width in pixels.",
    ),
    click.option(
        "--first", type=click.IntRange(0), default=0, show_default=True, help="Which picture to begin with."
    ),
    click.option("--channels", type=click.IntRange(1), help="3 or 1; the set's own by default."),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Hands the command one ``source`` for all of these options."""

    @functools.wraps(command)
    def called(*, data: str, size: int, first: int, channels: int | None, **others: Any) -> Any:
        return command(source=Source(data, size, first, channels), **others)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called
