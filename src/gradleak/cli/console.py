"""What all commands share: where they print, how they show progress, and what their exit codes mean."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gradleak.attacks import Outcome, Reconstruction
from gradleak.examination import Findings
from gradleak.examination import Progress as Callback
from gradleak.examination.findings import decibels

EXIT_NO_ANSWER = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

console = Console(stderr=True)
"""For people: progress, errors, tables' surroundings. Results go to standard output."""

results = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 140)
"""Takes text as it is: reasons and names come from models and files of others."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    click.echo(json.dumps(value, indent=indent))


@contextmanager
def progress_bar(what: str, *, hidden: bool) -> Iterator[Callback]:
    """A bar that moves with the budget and says the best mismatch; calm where there is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )
    said = 0.0
    with bar:
        task = bar.add_task(what, total=1.0, state="")

        def show(found: Sequence[Reconstruction], share: float) -> None:
            nonlocal said
            ended = sum(one.outcome is not Outcome.RUNNING for one in found)
            state = f"{ended}/{len(found)} ended, mismatch {min(one.score for one in found):.0e}"
            bar.update(task, completed=share, state=state)
            if not console.is_terminal and not hidden and share - said >= 0.25:
                said = share
                console.print(f"{what}: {share:.0%} of the budget, {state}")

        yield show


@contextmanager
def a_bar_per_rung(*, hidden: bool) -> Iterator[Callable[[str, int, int], Callback]]:
    """Tells a ladder where to report: one bar after another, each with its rung's name."""
    with ExitStack() as shown:

        def tell(name: str, number: int, rungs: int) -> Callback:
            shown.close()
            return shown.enter_context(progress_bar(f"rung {number} of {rungs}: {name}", hidden=hidden))

        yield tell


def print_findings(findings: Findings) -> None:
    """The verdict, a line per picture, and what it rests on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (
        ("", "left"),
        ("recovered", "right"),
        ("null guess", "right"),
        ("leak", "right"),
        ("SSIM", "right"),
        ("label", "left"),
        ("mismatch", "right"),
        ("outcome", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for one in findings.findings:
        label = "-" if one.label_guess is None else f"{one.label_guess}"
        label += "" if one.label is None or one.label_guess == one.label else f" (true {one.label})"
        table.add_row(
            one.name,
            decibels(one.psnr),
            "-" if one.guess is None else decibels(one.best_null_psnr),
            "-" if one.guess is None else f"{one.leak:+.1f} dB",
            "-" if one.ssim is None else f"{one.ssim:.3f}",
            label,
            "-" if one.guess is None else f"{one.score:.0e}",
            one.outcome + (f": {one.reason}" if one.reason else ""),
        )
    results.print(table)
    results.print(f"\n{findings.verdict}", style="bold")
    if findings.label_agreement is not None:
        results.print(
            f"Labels right: {findings.label_agreement:.0%}, by chance {findings.null_label_agreement:.0%}."
        )
    results.print(f"The null guess: {findings.null}, or noise where that is closer.")
    results.print(f"The attacker knew: {'; '.join(findings.assumptions)}.")
    if findings.interrupted:
        console.print("[yellow]interrupted[/]: these are the best candidates so far", highlight=False)


def leave(findings: Findings) -> None:
    """Exit as the findings deserve."""
    if findings.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if all(one.outcome in ("not_applicable", "diverged") for one in findings.findings):
        sys.exit(EXIT_NO_ANSWER)
