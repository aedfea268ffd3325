"""The papers' tables: their figure, ours, and the trials behind it, one file each."""

from collections.abc import Callable

from gradleak.reproduce.r_gap import r_gap
from gradleak.reproduce.ssras import ssras
from gradleak.reproduce.table import Row, Table, Told

TABLES: dict[str, Callable[[int, Told], Table]] = {"r-gap": r_gap, "ssras": ssras}
"""By the name that a command line says; each takes how many pictures, and whom to tell of its progress."""

__all__ = ["TABLES", "Row", "Table", "Told", "r_gap", "ssras"]
