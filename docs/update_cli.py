"""``python docs/update_cli.py``: copy what each command says to --help into the command line's page."""

import re
import sys
from pathlib import Path

from click.testing import CliRunner

from gradleak.cli import main

PAGE = Path(__file__).parent / "cli.md"
_BLOCK = re.compile(r"(<!-- help:(?: (?P<command>\w+(?: \w+)?))? -->\n```text\n).*?(```\n)", re.DOTALL)


def help_of(command: str | None) -> str:
    """The text in 80 columns, whatever terminal this runs in."""
    arguments = [*(command or "").split(), "--help"]
    done = CliRunner().invoke(main, arguments, prog_name="gradleak", terminal_width=80)
    if done.exit_code != 0:
        raise SystemExit(f"gradleak {' '.join(arguments)} failed: {done.output}")
    return done.output


def updated(page: str) -> str:
    """The page with every marked block as it should be."""
    return _BLOCK.sub(lambda found: found[1] + help_of(found["command"]) + found[3], page)


def documented(page: str) -> list[str]:
    """The commands that have a block, as in "risk rank"; gradleak itself is an empty string."""
    return [found["command"] or "" for found in _BLOCK.finditer(page)]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = updated(before)
    PAGE.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {'unchanged' if before == after else 'updated'}\n")
