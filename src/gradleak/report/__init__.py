"""What a person reads: one page, one sheet of pictures, and the same numbers as JSON."""

from gradleak.report.html import render, render_ladder
from gradleak.report.sheet import contact_sheet
from gradleak.report.write import write, write_ladder

__all__ = ["contact_sheet", "render", "render_ladder", "write", "write_ladder"]
