"""An audit's report: one page, the same as text, and the same as numbers."""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gradleak.cases import Record
from gradleak.files import write_together
from gradleak.report.audit_page import page
from gradleak.report.audit_text import text


@dataclass(frozen=True, eq=False)
class Report:
    """What an audit found, in words, pictures and numbers. In a notebook it shows itself."""

    record: Record

    @property
    def verdict(self) -> str:
        return self.record.verdict

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain JSON."""
        return self.record.to_dict()

    def html(self, *, pictures: bool = True) -> str:
        """The page. Without ``pictures`` neither a private nor a recovered one is in it."""
        return page(self.record, pictures=pictures)

    def markdown(self) -> str:
        """The same as text; no picture is in it."""
        return text(self.record)

    def write(self, folder: Path | str, *, pictures: bool = True) -> list[Path]:
        """Write the page, the text and the numbers into ``folder``, and return the files.

        What else is there stays, such as the cases that an audit keeps.
        """
        folder = Path(folder)
        numbers = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        contents = {
            folder / "report.html": self.html(pictures=pictures).encode("utf-8", "replace"),
            folder / "report.md": self.markdown().encode("utf-8", "replace"),
            folder / "audit.json": numbers.encode(),
        }
        write_together(contents, ())
        return list(contents)

    def __repr__(self) -> str:
        return f"Report({self.verdict})"

    def _repr_html_(self) -> str:
        # In a frame of its own, the page and the notebook cannot disturb each other's look. There, links
        # within the page would lead to the notebook, if they were not told where they begin.
        page = self.html().replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
        framed = escape(page.encode("utf-8", "replace").decode(), quote=True)
        return (
            f'<iframe title="The report of an audit" sandbox srcdoc="{framed}" '
            'style="width: 100%; height: 44rem; border: 1px solid #8884"></iframe>'
        )
