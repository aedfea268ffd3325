"""A paper's table beside ours: columns of any kind, rows of plain values, and how to read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradleak.errors import InvalidInput

Told = Callable[[str, float], None]
"""Told what is being done, and which share of the whole is done."""

Value = str | int | float | None
"""What a cell holds; None is what cannot be said, or what the paper does not give."""


@dataclass(frozen=True)
class Column:
    """``form`` is how a number is shown to a person, as ``format`` takes it; words ignore it."""

    name: str
    form: str = ""

    def show(self, value: Value) -> str:
        if value is None:
            return "-"
        return value if isinstance(value, str) else format(value, self.form)


@dataclass(frozen=True)
class Table:
    """``more`` are tables of the same trials; ``files``, by name, are what ``--out`` writes besides."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    more: tuple["Table", ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InvalidInput(
                    f"expected {len(self.columns)} values per row, one for each column; came {row!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: each row by its columns' names, numbers in full."""
        names = [column.name for column in self.columns]
        rows = [dict(zip(names, row, strict=True)) for row in self.rows]
        told: dict[str, Any] = {"title": self.title, "rows": rows, "notes": list(self.notes)}
        return told | ({"more": [table.to_dict() for table in self.more]} if self.more else {})


@dataclass(frozen=True)
class Paper:
    """How to make one table: ``make(pictures, data, tell)``.

    ``pictures`` is how many it takes unless told otherwise, chosen so that one core needs no more than
    five minutes unless ``summary`` says so. ``data`` are the sets that it was published on and we have.
    """

    summary: str
    make: Callable[[int, Sequence[str], Told], Table]
    pictures: int
    data: tuple[str, ...]
