"""``gradleak attack``: recover what a capture gives away."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from gradleak.attacks import ATTACKS, Outcome, Reconstruction
from gradleak.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_NO_ANSWER,
    console,
    json_option,
    print_json,
    progress_bar,
    quiet_option,
)
from gradleak.cli.models import args_option, device_option, model_option
from gradleak.observe import LocalTraining
from gradleak.sources.attacks import named
from gradleak.sources.models import arguments, build, usable

_DEFAULT = "ssras" if "ssras" in ATTACKS else "dlg"
_OURS = re.compile(r"recovered(-\d+\.png|\.safetensors)")


@click.command()
@click.argument("capture", type=click.Path(path_type=Path))
@model_option
@args_option
@click.option("--attack", "name", default=_DEFAULT, show_default=True, help="See `gradleak list attacks`.")
@click.option(
    "--trials", type=click.IntRange(1), default=1, show_default=True, help="Starts, solved together."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@device_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write what was recovered there, as tensors and pictures."
)
@json_option
@quiet_option
def attack(
    capture: Path,
    spec: str,
    pairs: tuple[str, ...],
    name: str,
    trials: int,
    seed: int,
    device: str,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Attack CAPTURE, an observation on disk: yours (gl.save), or one from `gradleak observe`.

    The truth is not at hand here, so what is printed is what an attacker could print: the mismatch that
    is left between the recovered batch's update and the one in the capture. Ctrl-C stops, and keeps the
    best so far.
    """
    from gradleak.files import require_folder
    from gradleak.observe import load

    chosen = named(name, trials=trials)
    seen = load(capture, build(spec, arguments(pairs), None).to(usable(device)))
    if out is not None:
        require_folder(out)
    found = Reconstruction(Outcome.RUNNING, reason="stopped before the first candidate")
    interrupted = False
    try:
        with progress_bar(name, hidden=quiet or as_json) as show:
            for found in chosen.iterate(seen, rng=seed):
                show([found], found.cost.matching_gradients / max(1, chosen.budget))
    except KeyboardInterrupt:
        interrupted = True
        console.print("[yellow]interrupted[/]: this is the best candidate so far")
    written = [] if out is None else _write(out, seen.domain, found)
    facts = _facts(found, name, seen.knows) | {"interrupted": interrupted, "written": written}
    if as_json:
        print_json(facts)
    else:
        _say(facts, answered=found.x is not None)
    if interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if found.x is None or found.outcome is Outcome.DIVERGED:
        sys.exit(EXIT_NO_ANSWER)


def _facts(found: Reconstruction, name: str, knows: tuple[str, ...]) -> dict[str, Any]:
    finite = found.score if found.score < float("inf") else None
    facts: dict[str, Any] = {
        "attack": name,
        "outcome": found.outcome.value,
        "reason": found.reason,
        "labels": None if found.y is None else found.y.tolist(),
        "mismatch": finite,
        "matching_gradients": found.cost.matching_gradients,
        "seconds": round(found.cost.seconds, 3),
        "trials": found.cost.trials,
        "assumptions": list(knows),
    }
    facts |= {"decisions": list(found.decisions)} if found.decisions else {}
    order = _order(found)
    return facts if order is None else facts | {"order": order}


def _order(found: Reconstruction) -> list[list[int]] | None:
    """In which order a shuffled client took the records, where the attack has learnt it."""
    client = found.client
    if not isinstance(client, LocalTraining) or isinstance(client.order, str):
        return None
    return [[int(record) for record in epoch] for epoch in client.order]


def _say(facts: dict[str, Any], *, answered: bool) -> None:
    for decision in facts.get("decisions", ()):
        click.echo(decision)
    if not answered:
        click.echo(f"{facts['attack']} gave no answer ({facts['outcome']}): {facts['reason']}")
        return
    left = "no finite mismatch" if facts["mismatch"] is None else f"mismatch {facts['mismatch']:.1e}"
    because = f"; {facts['reason']}" if facts["reason"] else ""
    labels = "not recovered" if facts["labels"] is None else facts["labels"]
    order = f"order in local training {facts['order']}\n" if "order" in facts else ""
    click.echo(
        f"{facts['attack']}: {facts['outcome']}, {left}{because}\n"
        f"labels {labels}\n"
        f"{order}{_count(facts['matching_gradients'], 'matching gradient')}, {facts['seconds']} s, "
        f"{_count(facts['trials'], 'trial')}\n"
        f"the attacker knew: {'; '.join(facts['assumptions'])}"
    )
    for path in facts["written"]:
        click.echo(f"written to {path}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _write(out: Path, domain: Any, found: Reconstruction) -> list[str]:
    """Each recovered sample as a picture, and the whole batch as safetensors; an earlier run's go."""
    import safetensors.torch

    from gradleak.files import write_together
    from gradleak.report.pictures import png

    contents: dict[Path, bytes] = {}
    if found.x is not None:
        tensors = {"x": found.x} if found.y is None else {"x": found.x, "y": found.y}
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        contents[out / "recovered.safetensors"] = safetensors.torch.save(tensors)
        for i, picture in enumerate(domain.to_pixels(found.x), start=1):
            encoded = png(picture)
            if encoded is not None:
                contents[out / f"recovered-{i}.png"] = encoded
    write_together(contents, [path for path in out.iterdir() if _OURS.fullmatch(path.name)])
    return [str(path) for path in contents]
