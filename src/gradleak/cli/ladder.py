"""``gradleak ladder``: one attack, and a server that knows less and less."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from gradleak.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_NO_ANSWER,
    a_bar_per_rung,
    console,
    json_option,
    print_json,
    quiet_option,
    results,
)
from gradleak.cli.data import data_options
from gradleak.cli.models import args_option, device_option, model_option, weights_option
from gradleak.cli.training import Training, training_options
from gradleak.errors import InvalidInput
from gradleak.sources.attacks import named
from gradleak.sources.models import arguments, build, load_weights, usable
from gradleak.sources.pictures import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradleak.observe import Client
    from gradleak.threats import Ladder


@click.command()
@model_option
@args_option
@weights_option
@data_options
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures of each client."
)
@click.option(
    "--clients",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="How many are attacked; one round each.",
)
@click.option(
    "--together",
    type=click.IntRange(2),
    default=2,
    show_default=True,
    help="How many are summed, on the last rung.",
)
@training_options
@click.option("--attack", "name", default="gdl", show_default=True, help="See `gradleak list attacks`.")
@click.option("--trials", type=click.IntRange(1), show_default="the attack's own", help="Starts.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    show_default="its own",
    help="Of the attack, for those that count them.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@device_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("ladder"), show_default=True, help="Folder."
)
@json_option
@quiet_option
def ladder(
    spec: str,
    pairs: tuple[str, ...],
    weights: Path | None,
    source: Source,
    batch: int,
    clients: int,
    together: int,
    training: Training,
    name: str,
    trials: int | None,
    steps: int | None,
    seed: int,
    device: str,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find out what a server must know for the pictures to leak, and write OUT/report.html.

    A rung is a server that no longer knows one thing which it knew on the rung above: first the labels,
    statistics, order and settings are all known, and at the end only what production hands a server.

    \b
    gradleak ladder --model convnet --batch 4 --lr 0.05 --epochs 2 --local-batch 2

    Each client has its own pictures; their labels are the set's, modulo the model's classes. Rungs that
    change nothing here are left out, and said. Ctrl-C ends the ladder, and keeps what was found.
    """
    from gradleak import threats
    from gradleak.files import require_folder
    from gradleak.report import write_ladder

    client, attack = training.client(batch), named(name, trials=trials, steps=steps)
    model = build(spec, arguments(pairs), seed)
    load_weights(model, weights)
    model = model.to(usable(device))
    batches = _batches(model, client, source, batch, clients)
    require_folder(out)
    with a_bar_per_rung(hidden=quiet or as_json) as tell:
        found = threats.ladder(
            model,
            batches,
            attack=attack,
            client=client,
            together=together,
            reference=source.public(batch * clients),
            title=f"{spec} on {source.data}, {batch} of them at each of {clients} clients",
            rng=seed,
            tell=tell,
        )
    written = write_ladder(found, out)
    if as_json:
        print_json(found.to_dict() | {"written": [str(path) for path in written]})
    else:
        _print(found)
        click.echo(f"Open {out / 'report.html'}")
    _leave(found)


def _batches(
    model: "nn.Module", client: "Client", source: Source, batch: int, clients: int
) -> list[tuple["Tensor", "Tensor"]]:
    """Each client's pictures and labels."""
    from gradleak.observe import observe

    x, y = source.read(batch * clients)
    # In train mode, as most rungs are: what cannot be used there is said before the first one is attacked.
    modes = [module.training for module in model.modules()]
    try:
        classes = observe(model.train(), x[:batch], y[:batch] * 0, client=client).classes
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    if classes is None:
        raise InvalidInput("expected a model that classifies; came one with another output")
    y = y % classes
    return [(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch)]


def _print(found: "Ladder") -> None:
    """A line per rung, and the verdict last."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("rung", "leaked", "recovered", "null guess", "labels", "the server no longer knows"):
        right = heading in ("recovered", "null guess")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    reason = ""
    for step, row in zip(found.steps, found.rows(), strict=True):
        if step.findings is None:
            why = Text(step.left_out)
            table.add_row(Text(row["rung"]), "", "", "", "", why, style="dim")
            continue
        told = [Text(row[key]) for key in ("rung", "leaked", "recovered", "null", "labels")]
        lost = Text(row["the server no longer knows"])
        if not step.findings.scored:
            told[2:] = [Text("-")] * 3
            lost.append(f" (no answer{', as before' if row['note'] == reason else ': ' + row['note']})")
            reason = row["note"]
        table.add_row(*told, lost, style="bold" if step.leaked else None)
    results.print(table)
    if not any(step.findings is not None and step.findings.scored for step in found.tried):
        results.print("\nAn attack that gives no answer proves nothing: another one may.")
    results.print(f"\n{found.verdict}", style="bold", soft_wrap=True)
    if found.interrupted:
        console.print("[yellow]interrupted[/]: these are the best candidates so far", highlight=False)


def _leave(found: "Ladder") -> None:
    """Exit as the ladder deserves."""
    if found.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    ends = [one.outcome for step in found.tried if step.findings for one in step.findings.findings]
    if all(end in ("not_applicable", "diverged") for end in ends):
        sys.exit(EXIT_NO_ANSWER)
