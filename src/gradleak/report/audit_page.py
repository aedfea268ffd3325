"""An audit's report as a page that loads nothing from anywhere."""

from types import SimpleNamespace

from gradleak.cases import Record
from gradleak.report import audit_figures, audit_tables, audit_words
from gradleak.report.audit_album import album
from gradleak.report.html import environment


def page(record: Record, *, pictures: bool = True) -> str:
    """The page as text. Without ``pictures`` neither a private nor a recovered one is in it."""
    batches = sorted({sample.batch + 1 for sample in record.samples})
    head = record.headline
    drawn = audit_figures.defenses(record)
    return (
        environment()
        .get_template("audit.html")
        .render(
            record=record,
            scale=record.scale,
            pictures=pictures,
            notices=audit_words.notices(record),
            headline=head,
            deck=record.verdict.removeprefix(f"{head}: ").replace(" %", "\N{NO-BREAK SPACE}%"),
            caveat=audit_words.caveat(record),
            contents=audit_words.contents(record.scale, defended=drawn is not None),
            tables=SimpleNamespace(**audit_tables.every(record)),
            album=album(record) if pictures else None,
            batches=batches,
            way_choices=[(k, f"{k} {way.name}") for k, way in enumerate(record.ways, 1)],
            batch_choices=[("all", f"all {len(batches)}"), *((k, k) for k in batches)],
            rungs=audit_words.rungs(record),
            left_out=audit_words.left_out(record),
            ladders=audit_figures.ladder(record),
            drawn=drawn,
            forecasts=audit_figures.forecast(record),
            foretold=audit_words.foretold(record),
            ran=audit_words.ran(record),
            steps=[step.split("`") for step in audit_words.next_steps(record)],
            costs=audit_words.costs(record),
            knew=audit_words.knew(record),
            plan=audit_words.plan(record),
            meanings=audit_words.MEANINGS,
        )
    )
