"""Self-contained pages, which load nothing from anywhere: about an examination, and about a ladder."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from gradleak.examination.findings import LEAK, Finding, Findings
from gradleak.examination.scale import NOTHING
from gradleak.report import wording
from gradleak.report.chart import chart, chart_of_rungs
from gradleak.report.exposure import by_exposure
from gradleak.report.tiles import Card, tiles
from gradleak.threats import Ladder, Step

PER_RUNG = 4  # pictures that a ladder shows of each rung


@dataclass(frozen=True)
class Rung:
    """A step of a ladder with its place, and the most exposed of its pictures."""

    number: int
    step: Step
    cards: tuple[Card, ...]
    left_out: str  # why it has no findings

    @property
    def findings(self) -> Findings | None:
        return self.step.findings


def render(findings: Findings, *, pictures: bool = True) -> str:
    """The page as text. Without ``pictures`` neither a private nor a recovered one is in it."""
    ordered = by_exposure(findings)
    headline, _, deck = findings.verdict.partition(": ")
    gradients, seconds = _costs(findings.findings)
    return (
        environment()
        .get_template("page.html")
        .render(
            findings=findings,
            headline=headline,
            deck=deck,
            cards=[Card(number, f, tiles(f) if pictures else ()) for number, f in ordered],
            pictures=pictures,
            chart=chart(ordered),
            gradients=gradients,
            seconds=seconds,
            any_guess=any(f.guess is not None for f in findings.findings),
        )
    )


def render_ladder(ladder: Ladder, *, pictures: bool = True) -> str:
    """The page as text. Without ``pictures`` neither a private nor a recovered one is in it."""
    headline, _, deck = ladder.verdict.partition(": ")
    rungs = [_rung(ladder, number, step, pictures) for number, step in enumerate(ladder.steps, 1)]
    attacked = [(r.number, r.step.rung.name, r.findings) for r in rungs if r.findings is not None]
    every = [f for _, _, findings in attacked for f in findings.findings]
    gradients, seconds = _costs(every) if every else (NOTHING, NOTHING)
    return (
        environment()
        .get_template("ladder.html")
        .render(
            ladder=ladder,
            headline=headline,
            deck=deck,
            rungs=rungs,
            top=attacked[0][2] if attacked else None,
            pictures=pictures,
            chart=chart_of_rungs(attacked),
            gradients=gradients,
            seconds=seconds,
            any_guess=any(f.guess is not None for f in every),
            per_rung=PER_RUNG,
        )
    )


def _rung(ladder: Ladder, number: int, step: Step, pictures: bool) -> Rung:
    if step.findings is None:
        return Rung(number, step, (), step.left_out)
    shown = by_exposure(step.findings)[:PER_RUNG] if pictures else []
    return Rung(number, step, tuple(Card(n, f, tiles(f)) for n, f in shown), "")


def environment() -> Environment:
    # Names and reasons come from files and models of others: all of them are escaped.
    environment = Environment(
        loader=PackageLoader("gradleak.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"LEAK": f"{LEAK:g}", "words": wording}
    return environment


def _costs(findings: Sequence[Finding]) -> tuple[str, str]:
    """Matching gradients and seconds. Pictures of one batch share them, so they are never added up here."""
    ran = [f for f in findings if f.outcome != "not_applicable"] or findings
    gradients, seconds = [f.matching_gradients for f in ran], [f.seconds for f in ran]
    return (
        _span(f"{min(gradients):,}", f"{max(gradients):,}"),
        _span(wording.seconds(min(seconds)), wording.seconds(max(seconds))),
    )


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
