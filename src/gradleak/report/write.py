"""A folder that holds the report: the page, the numbers and, unless unwanted, the pictures."""

import json
import re
from pathlib import Path
from typing import Any

from gradleak.examination.findings import Findings
from gradleak.files import write_together
from gradleak.report.html import render, render_ladder
from gradleak.report.pictures import png
from gradleak.report.sheet import contact_sheet
from gradleak.threats import Ladder

_OURS = re.compile(r"\d{2,}-(true|recovered)\.png")


def write(findings: Findings, folder: Path, *, pictures: bool = True) -> list[Path]:
    """Write the report and return its files; a picture's number is its place in findings.json, from 1.

    What an earlier report left in ``folder`` is removed, so that a folder written without pictures holds
    none.
    """
    folder = Path(folder)
    contents = {
        folder / "report.html": _encoded(render(findings, pictures=pictures)),
        folder / "findings.json": _numbers(findings.to_dict()),
    }
    if pictures:
        contents[folder / "pictures.png"] = contact_sheet(findings)
        contents |= _pictures(findings, folder / "pictures")
    write_together(contents, _earlier(folder))
    return list(contents)


def write_ladder(ladder: Ladder, folder: Path, *, pictures: bool = True) -> list[Path]:
    """Write a ladder's report and return its files, as ``write`` does.

    The sheet of pictures is that of the lowest rung on which one leaks, and of the first where none does.
    """
    folder = Path(folder)
    contents = {
        folder / "report.html": _encoded(render_ladder(ladder, pictures=pictures)),
        folder / "ladder.json": _numbers(ladder.to_dict()),
    }
    shown = ladder.lowest or next(iter(ladder.tried), None)
    if pictures and shown is not None and shown.findings is not None:
        contents[folder / "pictures.png"] = contact_sheet(shown.findings)
    write_together(contents, _earlier(folder))
    return list(contents)


def _encoded(page: str) -> bytes:
    # A file name that is not text in any encoding can reach the page as a lone surrogate.
    return page.encode("utf-8", "replace")


def _numbers(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=2, allow_nan=False).encode() + b"\n"


def _pictures(findings: Findings, folder: Path) -> dict[Path, bytes]:
    digits = max(2, len(str(len(findings.findings))))
    made: dict[Path, bytes] = {}
    for number, finding in enumerate(findings.findings, 1):
        for what, picture in (("true", finding.truth), ("recovered", finding.guess)):
            content = None if picture is None else png(picture)
            if content is not None:
                made[folder / f"{number:0{digits}}-{what}.png"] = content
    return made


def _earlier(folder: Path) -> list[Path]:
    """What a report of either kind may have left here, besides its page."""
    numbered = (path for path in (folder / "pictures").glob("*.png") if _OURS.fullmatch(path.name))
    return [folder / "findings.json", folder / "ladder.json", folder / "pictures.png", *numbered]
