"""What an audit ran, spared and missed, as tables."""

from collections.abc import Sequence

from gradleak.cases import Record
from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT, Left
from gradleak.cases.done import Done
from gradleak.examination.scale import NOTHING
from gradleak.report import wording
from gradleak.report.audit_table import Cell, Table, grouped, listed, table


def rates(record: Record) -> Table:
    """How often each attack leaks a record, by what the server knows, with its interval and its cost."""
    rows = []
    for (way, attack, who, rung), ran in grouped(
        record.attacks, lambda c: (c.case.protocol, c.case.attack, c.case.attacker, c.case.rung)
    ):
        where = {"rung": rung, "attacker": who, "attack": attack}
        rate = record.rate(way, **where)
        low, high = rate.interval
        rows.append(
            [
                Cell(way),
                Cell(attack, "" if who == KNOWS else "naive"),
                Cell(rung),
                Cell(f"{rate.leaked} of {rate.of}", leaks=rate.leaked > 0) if rate.of else Cell("no guess"),
                Cell(f"{low:.0%} to {high:.0%}" if rate.of else NOTHING),
                Cell(record.scale.short(record.median(way, **where))),
                Cell(_outcomes(ran)),
                Cell(f"{sum(c.matching_gradients for c in ran):,}"),
                Cell(wording.seconds(sum(c.seconds for c in ran))),
            ]
        )
    return table(
        "Success of every attack",
        "Leaked guesses of all guesses, over records and starts, with the 95 % interval of Wilson. Median "
        f"{record.scale.measured}. Records of one batch share an update, so that the intervals are rather "
        "too narrow.",
        "Way of training; Attack; Server; Leaked; Interval #; Median #; Ended; Matching gradients #; Time #",
        rows,
    )


def cases(record: Record) -> Table:
    """Everything that was run."""
    rows = []
    for one in record.done:
        case = one.case
        attack = case.kind == ATTACK
        reached = [row.value for row in one.rows if row.guessed]
        rows.append(
            [
                Cell(case.protocol),
                Cell(str(case.group + 1)),
                Cell(case.attack if attack else "forecast", "naive" if case.attacker == KNOWS_NOT else ""),
                Cell(case.rung or NOTHING),
                Cell(str(case.seed) if attack else NOTHING),
                Cell(wording.ended(one.outcome) or "done"),
                Cell(record.scale.short(max(reached, default=None))),
                Cell(f"{one.matching_gradients:,}" if attack else NOTHING),
                Cell(wording.seconds(one.seconds)),
                Cell("; ".join(said for said in (one.reason, str(one.facts.get("note", ""))) if said)),
            ]
        )
    return table(
        "Every case",
        f"Best {record.scale.measured}.",
        "Way of training; Batch #; What; Server; Seed #; Ended; Best #; Matching gradients #; Time #; Why",
        rows,
    )


def failed(record: Record) -> Table:
    rows = [[Cell(str(one.case)), Cell(one.error)] for one in record.failed]
    return table("Cases that failed", "None of them says anything about a leak.", "Case; What happened", rows)


def spared(record: Record) -> Table:
    return _left(
        [one for one in record.left if one.spared], "Cases that were spared", "Nothing new was to come."
    )


def missing(record: Record) -> Table:
    return _left(list(record.missing), "Cases that are missing", "They might have shown more.")


def _left(found: Sequence[Left], label: str, caption: str) -> Table:
    rows = []
    for (why, way), cases in grouped(found, lambda one: (one.why, one.case.protocol)):
        on = listed(dict.fromkeys(one.case.rung or FORECAST for one in cases))
        what = listed(dict.fromkeys(one.case.attack or FORECAST for one in cases))
        rows.append([Cell(way), Cell(what), Cell(on), Cell(str(len(cases))), Cell(why)])
    return table(label, caption, "Way of training; What; Server; Cases #; Why", rows)


def _outcomes(ran: Sequence[Done]) -> str:
    counted: dict[str, int] = {}
    for one in ran:
        counted[one.outcome] = counted.get(one.outcome, 0) + 1
    return ", ".join(f"{number} {wording.ended(outcome)}" for outcome, number in counted.items())
