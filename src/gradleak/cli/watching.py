"""How an audit's progress is shown: a bar, calm lines, JSON lines, or not at all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gradleak.cases import Event, Tell
from gradleak.cli.console import console

_STEP = 0.1  # of all cases, between two lines where there is no terminal


@contextmanager
def watching(*, quiet: bool = False, as_json: bool = False) -> Iterator[Tell]:
    """What to tell an audit's events: each as a line of JSON, or for people on standard error."""
    if as_json:
        yield _json
    elif quiet:
        yield lambda event: None
    elif console.is_terminal:
        with _bar() as tell:
            yield tell
    else:
        yield _lines()


def _json(event: Event) -> None:
    if event.what != "moved":
        click.echo(json.dumps(event.to_dict()))


@contextmanager
def _bar() -> Iterator[Tell]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("audit", total=None, state="")

        def tell(event: Event) -> None:
            if event.what in ("failed", "said"):
                bar.console.print(_news(event), highlight=False)
            case = "" if event.case is None else escape(str(event.case))[:60]
            share = event.share if event.what == "moved" else 0.0
            bar.update(
                task,
                description=case or "audit",
                completed=event.finished + min(share, 0.99),
                total=event.expected or None,
                state=_state(event),
            )

        yield tell


def _lines() -> Callable[[Event], None]:
    said = 0.0

    def tell(event: Event) -> None:
        nonlocal said
        if event.what in ("failed", "said"):
            console.print(_news(event), highlight=False)
        share = event.finished / event.expected if event.expected else 0.0
        if share - said >= _STEP or (share == 1 and said < 1):
            said = share
            state = _state(event)
            console.print(f"audit: {event.finished} of {event.expected} cases{', ' if state else ''}{state}")

    return tell


def _news(event: Event) -> str:
    case = "" if event.case is None else escape(str(event.case))
    return (
        f"[yellow]failed[/] {case}: {escape(event.words)}" if event.what == "failed" else escape(event.words)
    )


def _state(event: Event) -> str:
    said = [] if event.best is None else [f"best {event.scale.said(event.best)}"]
    if event.seconds_left is not None and event.finished < event.expected:
        said.append(f"at most {_time(event.seconds_left)} left")
    return ", ".join(said)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
