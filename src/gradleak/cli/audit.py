"""``gradleak audit``: a plan is run, and a report written."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from gradleak.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_NO_ANSWER,
    console,
    json_option,
    print_json,
    quiet_option,
    results,
)
from gradleak.cli.models import device_option, ray_option, workers_option
from gradleak.cli.watching import watching

if TYPE_CHECKING:
    from gradleak.cases import Record


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("audit"),
    show_default=True,
    help="Folder of the cases and the report.",
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished run of this plan, and begin no other.")
@click.option("--retry", is_flag=True, help="Run cases again that failed before.")
@workers_option
@ray_option
@device_option
@click.option(
    "--no-pictures",
    is_flag=True,
    help="Leave private and recovered records out of the report, pictures and texts.",
)
@json_option
@quiet_option
def audit(
    plan: Path,
    out: Path,
    resume: bool,
    retry: bool,
    workers: int,
    ray: str | None,
    device: str,
    no_pictures: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the audit that PLAN describes, and write OUT/report.html.

    \b
    gradleak plan init plan.toml       writes a plan to begin with
    gradleak audit plan.toml --workers 2
    gradleak check plan.toml --max-psnr 18

    First a forecast for every batch, then attacks from cheap to dear, for every way of training and every
    rung of what the server knows. Each finished case is kept in OUT at once: after Ctrl-C, a crash or a
    changed plan, the same command goes on with what is missing. With --json, every event is a line.
    """
    from gradleak.audit.call import run_plan
    from gradleak.sources.models import usable

    usable(device)
    with watching(quiet=quiet, as_json=as_json) as tell:
        report = run_plan(
            plan, out=out, resume=resume, retry=retry, workers=workers, ray=ray, device=device, tell=tell
        )
    written = report.write(out, pictures=not no_pictures)
    record = report.record
    if as_json:
        print_json(_summary(record, written), indent=None)
    else:
        _show(record)
        click.echo(f"Open {out / 'report.html'}")
    if record.facts["stopped"] == "interrupted":
        sys.exit(EXIT_INTERRUPTED)
    if not any(done.answered for done in record.attacks):
        sys.exit(EXIT_NO_ANSWER)


def _summary(record: "Record", written: list[Path]) -> dict[str, Any]:
    facts = record.to_dict()
    kept = ("run", "verdict", "title", "finished", "stopped", "ways", "seconds", "matching_gradients")
    said = {name: facts[name] for name in kept}
    return {
        "what": "report",
        **said,
        "failed": len(record.failed),
        "written": [str(path) for path in written],
    }


def _leaked(record: "Record", way: str) -> str:
    """Of those that there is a guess of: nothing is said of the others."""
    answered = len(record.bests(way))
    return f"{record.leaked(way)} of {answered}" if answered else "no answer"


def _show(record: "Record") -> None:
    """A line for each way of training, and what is missing."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for heading in ("leaked", "worst", "median", "null guess", "forecast", "labels", "by chance"):
        table.add_column(heading, justify="right")

    def shown(value: float | None) -> str:
        return "-" if value is None else record.scale.said(value)

    for way in record.ways:
        name, labels = way.name, record.labels(way.name)
        table.add_row(
            name,
            _leaked(record, name),
            shown(record.worst(name)),
            shown(record.median(name)),
            shown(record.median_null(name)),
            shown(record.median_forecast(name)),
            "-" if labels is None else f"{labels[0]:.0%}",
            "-" if labels is None else f"{labels[1]:.0%}",
        )
    results.print(table)
    results.print(f"\n{record.verdict}", style="bold")
    for way in record.ways:
        results.print(record.verdict_on(way.name))
    for failed in record.failed:
        console.print(f"[yellow]failed[/] {failed.case}: {failed.error}", highlight=False)
    if record.missing:
        console.print(
            f"{record.missing[0].why}: {len(record.missing)} cases were not run; the same command goes on"
        )
