"""``gradleak``: the group that all commands hang on."""

import os
import sys

import click
import torch
from rich.text import Text

from gradleak.cli.attack import attack
from gradleak.cli.audit import audit
from gradleak.cli.check import check
from gradleak.cli.cite import cite
from gradleak.cli.console import EXIT_BAD_INPUT, EXIT_INTERRUPTED, console
from gradleak.cli.defend import defend
from gradleak.cli.demo import demo
from gradleak.cli.fetch import fetch
from gradleak.cli.ladder import ladder
from gradleak.cli.list import list_
from gradleak.cli.observe import observe
from gradleak.cli.plan import plan
from gradleak.cli.reproduce import reproduce
from gradleak.cli.risk import risk
from gradleak.cli.runs import runs
from gradleak.errors import GradleakError

_EPILOG = """\b
Exit codes: 0 done; 1 the attack ended without an answer, or a limit is broken; 2
something handed in cannot be used; 130 interrupted (what was finished is kept)."""


class _Sentences(click.Group):
    """Turns the library's errors into one clear paragraph; ``--debug`` keeps the traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GradleakError as error:
            if ctx.params.get("debug"):
                raise
            console.print("[bold red]error[/]:", Text(str(error)))
            sys.exit(EXIT_BAD_INPUT)
        except BrokenPipeError:
            raise  # click ends quietly when a reader like `head` has left
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            _drop_unwritten()
            console.print("[bold red]error[/]:", Text(f"the result could not be written: {error}"))
            sys.exit(EXIT_BAD_INPUT)
        except KeyboardInterrupt:
            console.print("interrupted before anything was finished")
            sys.exit(EXIT_INTERRUPTED)


def _drop_unwritten() -> None:
    """What standard output could not take is not tried again at exit, where it would end in a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Sentences, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks instead of one-paragraph errors.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of torch. Small models are fastest on one; beside a busy neighbour, two can cost 100 times more.",
)
@click.version_option(package_name="gradleak")
def main(debug: bool, threads: int) -> None:
    """Find out how much private training data a run gives away through its gradients.

    \b
    Start here:
      gradleak demo                 faces come back out of gradients, in a minute
      gradleak plan init            your own training: a plan, then `audit` and `check`
      gradleak list models          what can be attacked without writing code
      gradleak observe --help       make a capture: what a server would hold
      gradleak attack --help        attack a capture, yours or one made here
      gradleak ladder --help        what a server must know for pictures to leak
      gradleak defend --help        how much of which defense is enough, and its price
      gradleak risk rank --help     which layers give their input away, before any attack
    """
    torch.set_num_threads(threads)


for command in (
    demo,
    audit,
    attack,
    observe,
    ladder,
    risk,
    defend,
    plan,
    check,
    runs,
    reproduce,
    fetch,
    list_,
    cite,
):
    main.add_command(command)
