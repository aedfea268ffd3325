"""``gradleak demo``: pictures, or texts, come back out of gradients."""

from pathlib import Path

import click

from gradleak.cli.console import json_option, leave, print_findings, print_json, progress_bar, quiet_option

_CLASSES = 10


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder; demo unless said, and demo-text with --text."
)
@click.option("--data", type=click.Choice(["faces", "photos"]), default="faces", show_default=True)
@click.option(
    "--text", is_flag=True, help="Sentences and a small BERT, in the place of pictures and a LeNet."
)
@click.option(
    "--records",
    "--pictures",
    "n",
    type=click.IntRange(1, 40),
    default=6,
    show_default=True,
    help="How many; 24 sentences at most.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@json_option
@quiet_option
def demo(out: Path | None, data: str, text: bool, n: int, seed: int, as_json: bool, quiet: bool) -> None:
    """Audit a small network on bundled pictures, and write OUT/report.html.

    Each picture is one client's batch. The client sends one gradient of an untrained LeNet; DLG is given
    that gradient and the network, and neither the picture nor its label.

    \b
    gradleak demo --out demo
    gradleak demo --text --out demo-text

    With --text, a client sends one gradient of an untrained BERT on two sentences, and its words are read
    exactly off that gradient. It needs pip install 'gradleak[text]'.
    """
    if text:
        from gradleak.cli.demo_text import demo_text

        demo_text(out or Path("demo-text"), n, seed, as_json=as_json, quiet=quiet)
        return
    out = out or Path("demo")
    from gradleak import attacks, zoo
    from gradleak.examination import examine
    from gradleak.files import require_folder
    from gradleak.observe import observe
    from gradleak.report import write

    require_folder(out)
    private, labels = zoo.pictures(data, size=32, n=n)
    model = zoo.lenet(classes=_CLASSES, seed=seed)
    truths = [(private[i : i + 1], labels[i : i + 1] % _CLASSES) for i in range(n)]
    observations = [observe(model, x, y) for x, y in truths]
    with progress_bar(f"DLG on {n} gradients", hidden=quiet or as_json) as progress:
        findings = examine(
            observations,
            truths,
            attacks.dlg(),
            title="An untrained LeNet, one picture per gradient",
            rng=seed,
            reference=zoo.public(data, n, size=32),
            names=lambda i: f"{data.removesuffix('s')} {i + 1}",
            progress=progress,
        )
    written = write(findings, out)
    if as_json:
        print_json(findings.to_dict() | {"written": [str(path) for path in written]})
    else:
        print_findings(findings)
        click.echo(f"Open {out / 'report.html'}")
    leave(findings)
