"""Which run of which folder is meant, as commands about finished audits are told."""

import re
from dataclasses import dataclass
from pathlib import Path

import click

from gradleak.cases import Record, Store
from gradleak.errors import InvalidInput

FOLDER = Path("audit")
"""Where ``gradleak audit`` keeps its runs, unless told otherwise."""

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="The audit's folder that a mere number is about.",
)


@dataclass(frozen=True)
class Kept:
    """A run and the folder that it was read from."""

    folder: Path
    record: Record

    def __str__(self) -> str:
        return f"{self.folder}#{self.record.number}"


def kept(said: str, folder: Path = FOLDER) -> Kept:
    """The run that ``said`` names: its number in ``folder``, a folder for its last run, or folder#number."""
    where, number = _split(said, folder)
    with Store(where, alone=False) as store:
        return Kept(where, store.record(number))


def every(said: str, folder: Path = FOLDER) -> list[Kept]:
    """The run that is named; of a mere folder, all of them."""
    where, number = _split(said, folder)
    with Store(where, alone=False) as store:
        numbers = [one for one, _ in store.runs()] if number is None else [number]
        return [Kept(where, store.record(one)) for one in numbers]


def _split(said: str, folder: Path) -> tuple[Path, int | None]:
    if Path(said).is_dir():
        return Path(said), None
    found = re.fullmatch(r"(?:(?P<folder>.+)#)?(?P<number>\d{1,9})", said)
    if found is None:
        raise InvalidInput(
            f"expected a run as its number, a folder, or folder#number such as {folder}#1; came '{said}', "
            "which is no folder"
        )
    return Path(found["folder"] or folder), int(found["number"])
