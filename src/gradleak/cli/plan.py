"""``gradleak plan``: begin a plan, look it over, and help an editor with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from gradleak.cli.console import json_option, print_json, results
from gradleak.cli.models import device_option
from gradleak.errors import CannotWrite

if TYPE_CHECKING:
    from gradleak.audit.estimate import Estimate
    from gradleak.cases import Work


@click.group()
def plan() -> None:
    """Begin a plan for `gradleak audit`, and look it over."""


@plan.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("plan.toml"))
@click.option("--force", is_flag=True, help="Replace what is there.")
def init(path: Path, force: bool) -> None:
    """Write a commented plan to PATH, which runs as it is on bundled pictures.

    PATH is plan.toml unless said. A file that is there already is left alone.
    """
    from gradleak.audit.starter import STARTER
    from gradleak.files import write_whole

    if path.exists() and not force:
        raise CannotWrite(f"{path} is there already. Name another file, or add --force to replace it.")
    write_whole(path, STARTER)
    click.echo(f"Wrote {path}. Run it: gradleak audit {path}")


@plan.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@device_option
@json_option
def check(path: Path, device: str, as_json: bool) -> None:
    """Say what PLAN would run, and roughly what that takes. Nothing is attacked.

    The model is built and the records are read, so that whatever cannot be used is told: each mistake with
    its line. The time is rough: a few steps are timed, attacks that succeed end early, and the router's
    steps by `map` cost more than they count.
    """
    from gradleak.audit.building import work_of
    from gradleak.audit.estimate import estimate
    from gradleak.audit.plan import Plan

    read = Plan.read(path)
    work = work_of(read, device).work
    taken = estimate(work)
    if as_json:
        print_json(_facts(read.title, work, taken))
    else:
        _say(read.title, work, taken, read.budget.seconds)


@plan.command()
def schema() -> None:
    """Print the JSON Schema of plans, with which editors complete and check them.

    \b
    gradleak plan schema > plan.schema.json
    """
    from gradleak.audit.plan import schema as of_plans

    print_json(of_plans())


def _facts(title: str, work: "Work", taken: "Estimate") -> dict[str, Any]:
    return {
        "title": title,
        "batches": len(work.batches),
        "records": sum(len(x) for x, _ in work.batches),
        "ways": {
            way: {"client": repr(client), "rungs": _rungs(work, way)} for way, client in work.ways.items()
        },
        "skipped": {way: work.skipped(way) for way in work.ways},
        "attacks": {name: attack.budget for name, attack in work.attacks.items()},
        "starts": work.starts,
        "cases": taken.cases,
        "matching_gradients": taken.matching_gradients,
        "seconds": taken.seconds,
    }


def _rungs(work: "Work", way: str) -> list[str]:
    skipped = work.skipped(way)
    return [rung for rung in work.rungs if rung not in skipped]


def _say(title: str, work: "Work", taken: "Estimate", seconds: float | None) -> None:
    records = sum(len(x) for x, _ in work.batches)
    results.print(title, style="bold")
    results.print(f"{len(work.batches)} batches, {records} records in all, on {type(work.model).__name__}.\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("way of training", "rungs of the ladder", "attackers"):
        table.add_column(heading, overflow="fold")
    for way in work.ways:
        table.add_row(way, "; ".join(_rungs(work, way)), "; ".join(work.attackers(way)))
    results.print(table)
    attacks = ", ".join(f"{name} (up to {attack.budget:,})" for name, attack in work.attacks.items())
    again = f", {work.starts} starts each" if work.starts > 1 else ""
    results.print(f"\nAttacks, with their matching gradients: {attacks}{again}.")
    limit = "" if seconds is None else f" The plan stops it after {_duration(seconds)}."
    results.print(
        f"At most {taken.cases} cases and {taken.matching_gradients:,} matching gradients: roughly "
        f"{_duration(taken.seconds)} here, on one core and if no attack ends early.{limit}"
    )
    if work.kind.scale.noun == "text":
        results.print("Forecasts, and what dager reads, take seconds to minutes each, and are not in that.")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
