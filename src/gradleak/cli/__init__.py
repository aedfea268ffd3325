"""The command line: one file per command, and one place where errors become sentences."""

from gradleak.cli.main import main

__all__ = ["main"]
