"""``gradleak check``: the gate. Whether a plan, or a run of one, keeps to its limits."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradleak.audit.limits import FAULTS, Judged, Limits, judge, require_ways
from gradleak.cli.console import EXIT_INTERRUPTED, console, json_option, print_json, quiet_option
from gradleak.cli.kept import FOLDER, kept
from gradleak.cli.models import device_option, ray_option, workers_option
from gradleak.cli.watching import watching
from gradleak.errors import InvalidInput

if TYPE_CHECKING:
    from gradleak.cases import Record

EXIT_BROKEN = 1


@click.command()
@click.argument("source", metavar="PLAN|FOLDER")
@click.option("--max-psnr", type=float, help="Decibels, of any picture.")
@click.option("--max-ssim", type=float, help="Of any picture.")
@click.option("--max-rouge", type=float, help="ROUGE-L in percent, of any text.")
@click.option("--max-leaked", type=float, help="Share of records that leak, from 0 to 1.")
@click.option("--max-label-accuracy", help="Share of labels that come back, or random+0.2 for above chance.")
@click.option(
    "--max-forecast",
    type=float,
    help="What the forecast may say of any record, in the same unit.",
)
@click.option("--way", "ways", multiple=True, help="Judge only this way of training; may be repeated.")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(FAULTS),
    help="Let this pass: cases not run, cases that failed, or limits and records without an answer.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Folder that the audit of a plan is kept in.",
)
@workers_option
@ray_option
@device_option
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write JUnit XML there.")
@click.option("--sarif", "sarif_file", type=click.Path(path_type=Path), help="Write SARIF 2.1.0 there.")
@json_option
@quiet_option
def check(
    source: str,
    ways: tuple[str, ...],
    allow: tuple[str, ...],
    out: Path,
    workers: int,
    ray: str | None,
    device: str,
    junit_file: Path | None,
    sarif_file: Path | None,
    as_json: bool,
    quiet: bool,
    **maxima: float | str | None,
) -> None:
    """Hold an audit against limits: exit code 0 where all are kept, and 1 with a line for each that is not.

    \b
    gradleak check plan.toml --max-psnr 18 --max-label-accuracy random+0.2
    gradleak check audit --max-leaked 0 --way fedavg --sarif leak.sarif

    A plan is run first, and goes on where an earlier run of it ended. A folder, or folder#number, is judged
    as it is. Limits that are not said here are those of the plan's [limits]. They hold for every way of
    training in the plan, unless --way names some, and against every server of its ladder.
    """
    path = Path(source)
    there = kept(source) if path.is_dir() or ("#" in source and not path.is_file()) else None
    planned = _planned(path, ways) if there is None else there.record.facts["plan"].get("limits", {})
    limits = _limits(planned, maxima | {"ways": ways, "allow": allow})
    record = (
        there.record
        if there
        else _audited(path, out, workers=workers, ray=ray, device=device, quiet=quiet or as_json)
    )
    judged = judge(record, limits)
    _write(record, judged, there.folder if there else path, junit_file, sarif_file)
    if as_json:
        print_json(_facts(record, judged))
    else:
        _say(judged)
    if there is None and record.facts["stopped"] == "interrupted":
        sys.exit(EXIT_INTERRUPTED)
    if not all(one.holds for one in judged):
        sys.exit(EXIT_BROKEN)


def _limits(planned: Mapping[str, Any], said: Mapping[str, Any]) -> Limits:
    """What is said here goes before what the plan says."""
    together = dict(planned) | {name: one for name, one in said.items() if one not in (None, ())}
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in together.items()}
    limits = Limits(**settings)
    if not limits.asked:
        raise InvalidInput(
            "expected at least one limit, here or in the plan's [limits]; came none. Say one, such as "
            "--max-psnr 18."
        )
    return limits


def _planned(path: Path, ways: Sequence[str]) -> dict[str, Any]:
    """What is wrong is said before hours of attacks."""
    from gradleak.audit.plan import Plan

    plan = Plan.read(path)
    require_ways(ways, list(plan.ways))
    return vars(plan.limits)


def _audited(plan: Path, out: Path, *, quiet: bool, **how: Any) -> "Record":
    from gradleak.audit.call import run_plan

    with watching(quiet=quiet) as tell:
        return run_plan(plan, out=out, tell=tell, **how).record


def _write(
    record: "Record", judged: Sequence[Judged], source: Path, junit_file: Path | None, sarif_file: Path | None
) -> None:
    from gradleak.audit.junit import junit
    from gradleak.audit.sarif import sarif
    from gradleak.files import write_whole

    if junit_file is not None:
        write_whole(junit_file, junit(record, judged))
    if sarif_file is not None:
        write_whole(sarif_file, sarif(record, judged, source))


def _facts(record: "Record", judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "holds": all(one.holds for one in judged),
        "run": record.number,
        "title": record.title,
        "finished": record.finished,
        "broken": [one.to_dict() for one in judged if not one.holds],
        "judged": [one.to_dict() for one in judged],
    }


def _say(judged: Sequence[Judged]) -> None:
    """A line for each broken limit, or one for all that hold; what was not judged goes to the person."""
    broken = [one for one in judged if not one.holds]
    for one in broken:
        click.echo(str(one))
    said = {one.way for one in broken if one.limit == "unanswered"}
    for one in judged:
        if one.value is None and one.way not in said:
            console.print(f"not judged: {one.limit}, {one}", highlight=False, markup=False, soft_wrap=True)
    if not broken:
        limits = dict.fromkeys(one.limit for one in judged if one.limit not in FAULTS)
        ways = dict.fromkeys(f"“{one.way}”" for one in judged)
        click.echo(f"All limits hold ({', '.join(limits)}) under {', '.join(ways)}.")
