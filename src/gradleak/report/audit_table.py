"""A table of an audit's report, and how numbers and names are said in one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """``note`` is said softly after the text, ``leaks`` puts a mark before it, and ``shade`` goes to 4."""

    text: str
    note: str = ""
    leaks: bool | None = None
    shade: int = 0


@dataclass(frozen=True)
class Column:
    name: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """The first column names its row. ``label`` is what the table is of, in a few words."""

    label: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(label: str, caption: str, columns: str | Sequence[Column], rows: Iterable[Sequence[Cell]]) -> Table:
    made = headed(columns) if isinstance(columns, str) else columns
    return Table(label, caption, tuple(made), tuple(tuple(row) for row in rows))


def headed(names: str) -> list[Column]:
    """A column whose name ends in # holds numbers."""
    return [Column(name.removesuffix(" #"), name.endswith(" #")) for name in names.split("; ")]


def listed(names: Iterable[str]) -> str:
    known = list(names)
    return " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def counted(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """In the order in which each key first came."""
    found: dict[Any, list[Any]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())
