"""``gradleak attack``: recover what a capture gives away."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from gradleak.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_NO_ANSWER,
    console,
    json_option,
    print_json,
    progress_bar,
    quiet_option,
)
from gradleak.cli.models import args_option, build, model_option


@click.command()
@click.argument("capture", type=click.Path(path_type=Path))
@model_option
@args_option
@click.option("--attack", "name", default="dlg", show_default=True, help="See `gradleak list attacks`.")
@click.option(
    "--trials", type=click.IntRange(1), default=1, show_default=True, help="Starts, solved together."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute, such as cuda.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the recovered pictures and a summary there."
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
    from gradleak.attacks import ATTACKS, Outcome, Reconstruction
    from gradleak.errors import InvalidInput
    from gradleak.files import require_folder
    from gradleak.observe import load

    if name not in ATTACKS:
        near = get_close_matches(name, ATTACKS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected an attack among {', '.join(ATTACKS)}; came '{name}'{hint}")
    seen = load(capture, build(spec, pairs, None).to(_device(device)))
    if out is not None:
        require_folder(out)
    chosen = ATTACKS[name](trials=trials)
    found = Reconstruction(Outcome.RUNNING, reason="stopped before the first candidate")
    interrupted = False
    try:
        with progress_bar(name, hidden=quiet or as_json) as show:
            for found in chosen.iterate(seen, rng=seed):
                show([found], found.cost.matching_gradients / chosen.budget)
    except KeyboardInterrupt:
        interrupted = True
        console.print("[yellow]interrupted[/]: this is the best candidate so far")
    written = [] if out is None else _write(out, seen.domain, found)
    facts = _facts(found, name, seen.knows) | {"interrupted": interrupted, "written": written}
    if as_json:
        print_json(facts)
    else:
        _say(facts)
    if interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if found.x is None or found.outcome is Outcome.DIVERGED:
        sys.exit(EXIT_NO_ANSWER)


def _facts(found: Any, name: str, knows: tuple[str, ...]) -> dict[str, Any]:
    finite = found.score if found.score < float("inf") else None
    return {
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


def _say(facts: dict[str, Any]) -> None:
    if facts["labels"] is None:
        click.echo(f"{facts['attack']} gave no answer ({facts['outcome']}): {facts['reason']}")
        return
    click.echo(
        f"{facts['attack']}: {facts['outcome']}, with {facts['mismatch']:.1e} of the update unexplained\n"
        f"labels {facts['labels']}\n"
        f"{facts['matching_gradients']} matching gradients, {facts['seconds']} s, {facts['trials']} trials\n"
        f"the attacker knew: {'; '.join(facts['assumptions'])}"
    )
    for path in facts["written"]:
        click.echo(f"written to {path}")


def _write(out: Path, domain: Any, found: Any) -> list[str]:
    """Each recovered sample as a picture, and the whole batch as safetensors."""
    import safetensors.torch

    from gradleak.files import write_whole
    from gradleak.report.pictures import png

    if found.x is None:
        return []
    tensors = {"x": found.x.cpu().contiguous(), "y": found.y.cpu().contiguous()}
    write_whole(out / "recovered.safetensors", safetensors.torch.save(tensors))
    written = [str(out / "recovered.safetensors")]
    for i, picture in enumerate(domain.to_pixels(found.x).clamp(0, 1).cpu()):
        encoded = png(picture)
        if encoded is not None:
            path = out / f"recovered-{i + 1}.png"
            write_whole(path, encoded)
            written.append(str(path))
    return written


def _device(name: str) -> Any:
    import torch

    from gradleak.errors import InvalidInput

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(f"the device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return torch.device(name)
