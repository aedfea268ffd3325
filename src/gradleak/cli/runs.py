"""``gradleak runs``: audits that were run before, and what came of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from gradleak.cli.console import console, json_option, print_json, results
from gradleak.cli.kept import FOLDER, Kept, every, folder_option, kept
from gradleak.errors import InvalidInput

if TYPE_CHECKING:
    from gradleak.audit.diff import Diff, WayChange
    from gradleak.cases import Record
    from gradleak.examination.scale import Scale

_MOST = 20  # records of a comparison that are printed


@click.group()
def runs() -> None:
    """Look at audits that were run before: list, show, compare and export them."""


@runs.command("list")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@json_option
def list_(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the runs in FOLDERS of audits, by default in the folder `audit`."""
    found = [one for folder in folders or (FOLDER,) for one in every(f"{folder}", folder)]
    if as_json:
        print_json([_line(one) for one in found])
        return
    table = _table("run", "title", "finished", "cases", "failed", "records", "verdict")
    for one in found:
        record = one.record
        ended = "yes" if record.finished else record.facts["stopped"] or "no"
        counts = (len(record.done), len(record.failed), len(record.samples))
        table.add_row(str(one), record.title, ended, *map(str, counts), record.verdict)
    results.print(table)


@runs.command()
@click.argument("run")
@folder_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the report there again.")
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Of the report.")
@json_option
def show(run: str, folder: Path, out: Path | None, pictures: bool, as_json: bool) -> None:
    """Show RUN: its number, a folder for its last run, or folder#number."""
    record = kept(run, folder).record
    written = []
    if out is not None:
        from gradleak.report.audited import Report

        written = [str(path) for path in Report(record).write(out, pictures=pictures)]
    if as_json:
        print_json(record.to_dict() | ({"written": written} if written else {}))
        return
    _print_record(record)
    for path in written:
        click.echo(f"written to {path}")


@runs.command()
@click.argument("a")
@click.argument("b")
@folder_option
@json_option
def diff(a: str, b: str, folder: Path, as_json: bool) -> None:
    """Say what changed in the leak from run A to run B.

    \b
    gradleak runs diff 1 2
    gradleak runs diff before/audit after/audit
    gradleak runs diff audit#3 audit#5 --json

    Ways of training and records are matched by their names. A difference of less than 1 dB counts as none,
    and so does one between pictures that are both the same as the true one.
    """
    from gradleak.audit.diff import diff as compared

    first, second = kept(a, folder), kept(b, folder)
    found = compared(first.record, second.record)
    if as_json:
        print_json({"runs": [str(first), str(second)]} | found.to_dict())
        return
    _print_diff(found, first, second)


@runs.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@folder_option
@click.option(
    "--csv", "file", type=click.Path(path_type=Path), help="Write a table with a header there; - prints it."
)
@json_option
def export(names: tuple[str, ...], folder: Path, file: Path | None, as_json: bool) -> None:
    """Export runs as a table with one row for each record and attack, for pandas or a spreadsheet.

    RUN is a number, folder#number, or a folder for all of its runs; without any, all runs of --folder.
    """
    from gradleak.audit.rows import as_csv, rows
    from gradleak.files import write_whole

    if (file is None) == (not as_json):
        raise InvalidInput(
            "expected one of --csv FILE and --json; came " + ("none" if file is None else "both")
        )
    found = [one for name in names or (str(folder),) for one in every(name, folder)]
    table = [{"folder": str(one.folder), **row} for one in found for row in rows(one.record)]
    if file is None:
        print_json(table)
        return
    if str(file) == "-":
        click.echo(as_csv(table), nl=False)
        return
    write_whole(file, as_csv(table).encode("utf-8", "replace"))
    console.print(f"{len(table)} rows written to {file}", highlight=False, markup=False)


def _line(one: Kept) -> dict[str, Any]:
    record = one.record
    return {
        "run": str(one),
        "number": record.number,
        "folder": str(one.folder),
        "title": record.title,
        "finished": record.finished,
        "stopped": record.facts["stopped"],
        "cases": len(record.done),
        "failed": len(record.failed),
        "missing": len(record.missing),
        "records": len(record.samples),
        "ways": [way.name for way in record.ways],
        "verdict": record.verdict,
    }


def _print_record(record: "Record") -> None:
    results.print(f"Run {record.number}: {record.title}", style="bold", soft_wrap=True)
    table = _table(
        "way", "leaked", "recovered", "null guess", "forecast", "labels", "by chance", "last server"
    )
    for way in record.ways:
        labels, name = record.labels(way.name), way.name
        told = [
            _shown(record.scale, record.median(name)),
            _shown(record.scale, record.median_null(name)),
            _shown(record.scale, record.median_forecast(name)),
            *(("-", "-") if labels is None else (f"{labels[0]:.0%}", f"{labels[1]:.0%}")),
        ]
        leaked = f"{record.leaked(name)} of {len(record.samples)}"
        table.add_row(name, leaked, *told, record.lowest(name) or "-")
    results.print(table)
    for one in record.failed:
        results.print(f"failed: {one.case}: {one.error}", soft_wrap=True)
    if record.missing:
        count = len(record.missing)
        cases = "1 case was" if count == 1 else f"{count} cases were"
        results.print(f"{cases} not run: {record.missing[0].why}", soft_wrap=True)
    results.print(f"\n{record.verdict}", style="bold", soft_wrap=True)


def _print_diff(found: "Diff", first: Kept, second: Kept) -> None:
    results.print(f"From {first} ({found.titles[0]})\n  to {second} ({found.titles[1]})", soft_wrap=True)
    for way in found.ways:
        results.print(f"\n{way.name}: {way.sentence}.", style="bold", soft_wrap=True)
        _print_way(way)
    for which, names in zip((first, second), found.only_ways, strict=True):
        if names:
            results.print(f"\nways of training only in {which}: {'; '.join(names)}", soft_wrap=True)
    for which, names in zip((first, second), found.only_records, strict=True):
        if names:
            results.print(f"records only in {which}: {', '.join(names)}", soft_wrap=True)
    for note in found.notes:
        results.print(f"note: {note}", soft_wrap=True)
    if not found.ways:
        results.print("\nNo way of training is in both runs, so that nothing can be compared.")


def _print_way(way: "WayChange") -> None:
    if way.clients[0] != way.clients[1]:
        results.print(f"client: {way.clients[0]}, and now {way.clients[1]}", soft_wrap=True)
    labels = ["-" if one is None else f"{one[0]:.0%} ({one[1]:.0%} by chance)" for one in way.labels]
    results.print(f"labels: {labels[0]}, and now {labels[1]}", soft_wrap=True)
    results.print(
        f"last server to which a record leaks: {way.lowest[0] or 'none'}, and now {way.lowest[1] or 'none'}"
    )
    table = _table("record", "before", "now", "null before", "null now", "leak")
    by_change = sorted(way.records, key=lambda one: -abs(one.by or 0.0))
    for one in by_change[:_MOST]:
        change = "-" if one.by is None else f"{one.by:+.1f} {one.scale.apart}"
        table.add_row(one.name, *(_shown(one.scale, value) for value in (*one.values, *one.nulls)), change)
    results.print(table)
    if len(by_change) > _MOST:
        results.print(f"and {len(by_change) - _MOST} records that changed no more; --json has them all")


def _table(*headings: str) -> Table:
    """The first column is text, and so are titles and verdicts; figures stand to the right."""
    words = ("run", "way", "record", "title", "finished", "verdict", "last server")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")
    return table


def _shown(scale: "Scale", value: float | None) -> str:
    return "-" if value is None else scale.said(value)
