"""``gradleak demo --text``: sentences come back out of gradients."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from gradleak.cli.console import EXIT_INTERRUPTED, print_json, results
from gradleak.cli.watching import watching

if TYPE_CHECKING:
    from gradleak.report.audit_texts import Passage
    from gradleak.report.audited import Report

_TOGETHER = 2  # texts in a gradient


def demo_text(out: Path, n: int, seed: int, *, as_json: bool, quiet: bool) -> None:
    """Audit a small BERT on bundled sentences, two in each gradient."""
    from gradleak import zoo
    from gradleak.audit.call import audit
    from gradleak.files import require_folder
    from gradleak.sources.texts import BUNDLED, Wanted, read_texts
    from gradleak.text import wrap

    require_folder(out)
    tokenizer = zoo.tokenizer()
    n += n % _TOGETHER
    private = read_texts(BUNDLED, Wanted(n, "classification"), tokenizer=tokenizer)
    model = wrap(zoo.bert(classes=private.classes, vocabulary=len(tokenizer), seed=seed))
    with watching(quiet=quiet or as_json) as tell:
        report = audit(
            model,
            private.ids,
            private.y,
            tokenizer=tokenizer,
            batch=_TOGETHER,
            ladder="everything known",
            budget="quick",
            reference=private.public,
            names=private.names,
            class_names=private.class_names,
            title="A small BERT, two sentences per gradient",
            seed=seed,
            tell=tell,
        )
    written = report.write(out)
    if as_json:
        print_json(report.to_dict() | {"written": [str(path) for path in written]})
    else:
        _show(report)
        click.echo(f"Open {out / 'report.html'}")
    if report.record.facts["stopped"] == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)


def _show(report: "Report") -> None:
    """Every sentence above what came back of it, with wrong words marked."""
    from gradleak.report.audit_album import album
    from gradleak.report.audit_texts import Passage

    for shown in album(report.record).records:
        came = shown.came[0]
        if not isinstance(shown.truth, Passage) or not isinstance(came.tile, Passage):
            continue
        results.print(f"{shown.sample.name} ({shown.sample.label_name})", style="bold")
        results.print(Text.assemble("  written    ", *_words(shown.truth)), soft_wrap=True)
        proof = "  (proven)" if any(name == "Proof" for name, _, _ in came.facts) else ""
        results.print(Text.assemble("  recovered  ", *_words(came.tile), proof), soft_wrap=True)
    results.print(f"\n{report.verdict}", style="bold", soft_wrap=True)


def _words(passage: "Passage") -> list[tuple[str, str]]:
    if not passage.spans:
        return [(passage.blank, "dim")]
    first, *rest = passage.spans
    spans = [(first.words.lstrip(), first.wrong), *((span.words, span.wrong) for span in rest)]
    return [(words, "red underline" if wrong else "") for words, wrong in spans]
