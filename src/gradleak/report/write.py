"""A folder that holds the report: the page, the numbers and, unless unwanted, the pictures."""

import json
import re
from pathlib import Path

from gradleak.audit.findings import Findings
from gradleak.files import write_together
from gradleak.report.html import render
from gradleak.report.pictures import png
from gradleak.report.sheet import contact_sheet

_OURS = re.compile(r"\d{2,}-(true|recovered)\.png")


def write(findings: Findings, folder: Path, *, pictures: bool = True) -> list[Path]:
    """Write the report and return its files; a picture's number is its place in findings.json, from 1.

    Pictures that an earlier report left in ``folder`` are removed, so that a folder written without
    pictures holds none.
    """
    folder = Path(folder)
    # A file name that is not text in any encoding can reach the page as a lone surrogate.
    contents = {
        folder / "report.html": render(findings, pictures=pictures).encode("utf-8", "replace"),
        folder / "findings.json": json.dumps(findings.to_dict(), indent=2, allow_nan=False).encode() + b"\n",
    }
    if pictures:
        contents[folder / "pictures.png"] = contact_sheet(findings)
        contents |= _pictures(findings, folder / "pictures")
    write_together(contents, _earlier(folder))
    return list(contents)


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
    """The pictures that a report may have left here."""
    numbered = (path for path in (folder / "pictures").glob("*.png") if _OURS.fullmatch(path.name))
    return [folder / "pictures.png", *numbered]
