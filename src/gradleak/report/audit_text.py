"""An audit's report as Markdown: the sentences and tables of the page, and no picture."""

import re
from collections.abc import Iterable

from gradleak.cases import Record
from gradleak.report import audit_tables, audit_words
from gradleak.report.audit_table import Cell, Table


def text(record: Record) -> str:
    """Names and reasons come from others: none of them is markup here."""
    tables = audit_tables.every(record)
    defended = any(way.defenses for way in record.ways)
    parts = [f"# {said(record.title)}"]
    parts += [f"> **{said(bold)}** {said(rest)}" for bold, rest, _ in audit_words.notices(record)]
    parts += [f"**{said(record.verdict)}**", said(audit_words.caveat(record)), "In the tables, ■ is a leak."]
    parts += ["## Way by way", *_shown(tables, "ways", "trained")]
    parts += ["## What came back", *_shown(tables, "came_back")]
    parts += ["## What the server must know", _rungs(record), *_shown(tables, "rungs"), _left_out(record)]
    parts += ["## What each defense leaves", *_shown(tables, "defenses")] * defended
    parts += ["## Forecast and outcome", said(audit_words.foretold(record)), *_shown(tables, "forecasts")]
    parts += ["## Who is exposed", *_shown(tables, "classes", "samples")]
    parts += [
        "## What to do now",
        "\n".join(f"- {_with_code(step)}" for step in audit_words.next_steps(record)),
    ]
    parts += ["## What was run", said(audit_words.ran(record))]
    parts += _shown(tables, "failed", "missing", "rates", "spared", "cases")
    parts += ["## What it took", _list(audit_words.costs(record))]
    parts += [_fenced("json", audit_words.plan(record))] * bool(audit_words.plan(record))
    parts += ["## How to read this", _list(audit_words.MEANINGS)]
    parts += ["## Whom to cite", _fenced("bibtex", str(record.facts.get("bibtex", "")))]
    return "\n\n".join(part for part in parts if part) + "\n"


def said(words: str) -> str:
    """Text that stays text: no markup of Markdown's, and none of HTML's."""
    one_line = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~!$])", r"\\\1", one_line)


def _with_code(words: str) -> str:
    """What stands between two ` stays code."""
    pieces = re.split(r"(`[^`]*`)", words)
    return "".join(part if part.startswith("`") else _edged(part) for part in pieces)


def _edged(words: str) -> str:
    """Text that stays text, with the spaces around it."""
    return f"{' ' * words.startswith(' ')}{said(words)}{' ' * words.endswith(' ')}"


def _shown(tables: dict[str, Table], *names: str) -> list[str]:
    return [_table(tables[name]) for name in names if tables[name].rows]


def _table(table: Table) -> str:
    head = [said(column.name) for column in table.columns]
    ruled = ["---:" if column.number else "---" for column in table.columns]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (head, ruled, *rows)]
    return "\n".join([f"{said(table.label)}. {said(table.caption)}", "", *lines])


def _cell(cell: Cell) -> str:
    return said(f"{'■ ' if cell.leaks else ''}{cell.text}{f' {cell.note}' if cell.note else ''}")


def _rungs(record: Record) -> str:
    named = enumerate(audit_words.rungs(record), 1)
    return "\n".join(f"{number}. {said(name)}: {said(what)}" for number, (name, what) in named)


def _left_out(record: Record) -> str:
    return "\n".join(
        f"- Left out: {said(rung)}{f' under {said(under)}' if under else ''}, since {said(why)}"
        for rung, why, under in audit_words.left_out(record)
    )


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {said(name)}: {said(value)}" for name, value in pairs)


def _fenced(language: str, content: str) -> str:
    """Between marks that are longer than any within."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content.strip()}\n{fence}"
