"""What an audit found, as tables: the page and the text show the same ones."""

import statistics
from collections.abc import Iterable

from gradleak.cases import Record
from gradleak.cases.case import KNOWS, KNOWS_NOT
from gradleak.cases.done import Best, Way
from gradleak.examination.scale import NOTHING
from gradleak.report import audit_runs, wording
from gradleak.report.audit_table import Cell, Column, Table, headed, listed, table


def every(record: Record) -> dict[str, Table]:
    """All of them by name, in the order of the report."""
    found = (ways, trained, came_back, rungs, defenses, forecasts, classes, samples)
    ran = (audit_runs.failed, audit_runs.missing, audit_runs.rates, audit_runs.spared, audit_runs.cases)
    made = (*found, *ran)
    return {make.__name__: make(record) for make in made}


def ways(record: Record) -> Table:
    """A row for every way of training: how much leaks, beside the null, and to whom."""
    return table(
        "Numbers of every way of training",
        f"{record.scale.measured}, of the best guess at each record; the null is what a guess without the "
        "update has. "
        "In brackets: labels by chance.",
        "Way of training; Leaked; Worst #; Median #; Null #; Forecast #; Labels #; Naive #; Adaptive #; "
        "Leaks down to",
        ([Cell(way.name), *_numbers(record, way)] for way in record.ways),
    )


def _numbers(record: Record, way: Way) -> list[Cell]:
    name, found = way.name, record.bests(way.name)
    leaked, labels = record.leaked(name), record.labels(name)
    share = Cell(NOTHING)
    if labels is not None:
        share = Cell(f"{labels[0]:.0%}", f"({labels[1]:.0%})")
    both = [(record.median(name, attacker=who) if way.defenses else None) for who in (KNOWS_NOT, KNOWS)]
    return [
        Cell(f"{leaked} of {len(record.samples)}", leaks=leaked > 0) if found else Cell("no guess"),
        Cell(record.scale.short(record.worst(name))),
        Cell(record.scale.short(record.median(name))),
        Cell(record.scale.short(record.median_null(name))),
        Cell(record.scale.short(record.median_forecast(name))),
        share,
        *(Cell(record.scale.short(value)) for value in both),
        Cell(record.lowest(name) or NOTHING),
    ]


def came_back(record: Record) -> Table:
    """The best guess at every record."""
    rows = []
    for way in record.ways:
        best = _by_sample(record.bests(way.name))
        for i in record.by_exposure(way.name):
            if i in best:
                rows.append([Cell(record.samples[i].name), Cell(way.name), *_came_back(record, best[i])])
    return table(
        "The best guess at every record",
        f"{record.scale.measured}; in brackets, what a guess without the update has. The most exposed first.",
        f"Record; Way of training; {record.scale.name} #; {record.scale.beside_name} #; "
        "Label, and the guess at it; Attack; Server",
        rows,
    )


def _came_back(record: Record, best: Best) -> list[Cell]:
    row, case, scale = best.row, best.done.case, record.scale
    return [
        Cell(record.scale.short(row.value), f"({record.scale.short(row.null)})", row.leaked),
        Cell(
            scale.second(row.beside), "" if row.null_beside is None else f"({scale.second(row.null_beside)})"
        ),
        Cell(label(record, best)),
        Cell(case.attack, "naive" if case.attacker == KNOWS_NOT else ""),
        Cell(case.rung),
    ]


def label(record: Record, best: Best) -> str:
    """The class of a record and the attack's guess, by name."""
    if best.done.facts.get("labels_given"):
        return "given"
    names = {sample.label: sample.label_name for sample in record.samples}
    true, guess = best.row.label, best.row.label_guess
    return wording.guessed_label(
        None if true is None else names.get(true, str(true)),
        None if guess is None else names.get(guess, str(guess)),
    )


def rungs(record: Record) -> Table:
    """How much leaks to a server that knows less and less, by way of training."""
    rows = [
        [Cell(f"{number} {rung}"), *(_on_rung(record, way.name, rung) for way in record.ways)]
        for number, rung in enumerate(record.rungs, 1)
    ]
    return table(
        "Leak by what the server knows",
        f"{record.scale.measured}: records that leak, and in brackets the worst; the median.",
        [Column("Rung"), *_by_way(record)],
        rows,
    )


def _on_rung(record: Record, way: str, rung: str) -> Cell:
    found = record.bests(way, rung=rung)
    if found:
        leaked = sum(best.row.leaked for best in found)
        worst, median = record.worst(way, rung=rung), record.median(way, rung=rung)
        both = f"({record.scale.short(worst)}; {record.scale.short(median)})"
        return Cell(f"{leaked} of {len(found)}", both, leaked > 0)
    if rung in record.facts.get("skipped", {}).get(way, {}):
        return Cell("left out")
    left = {one.spared for one in record.left if one.case.protocol == way and one.case.rung == rung}
    failed = any(one.case.protocol == way and one.case.rung == rung for one in record.failed)
    if failed or record.run(way, rung=rung):
        return Cell("failed" if failed else "no guess")
    return Cell("spared" if left == {True} else "missing" if left else NOTHING)


def defenses(record: Record) -> Table:
    """What each defense leaves of the leak, to a server that knows of it and to one that does not."""
    rows = []
    for way in record.ways:
        cells = [Cell(way.name)]
        for who in (KNOWS_NOT, KNOWS):
            found = record.bests(way.name, attacker=who)
            leaks = [best.row.leak for best in found]
            leaked = sum(best.row.leaked for best in found)
            cells += [
                Cell(f"{leaked} of {len(found)}", leaks=leaked > 0) if found else Cell(NOTHING),
                Cell(record.scale.gap(max(leaks, default=None))),
                Cell(record.scale.gap(statistics.median(leaks) if leaks else None)),
            ]
        rows.append(cells)
    return table(
        "What each defense leaves of the leak",
        f"In {record.scale.apart} above the null, of the record that is worst off and in the median. A naive "
        "server does not know of the defense; an adaptive one knows it and its strength.",
        "Way of training; Naive: leaked; Worst #; Median #; Adaptive: leaked; Worst #; Median #",
        rows,
    )


def forecasts(record: Record) -> Table:
    """What was predicted before any attack, beside what was achieved."""
    rows = []
    for way in record.ways:
        best = _by_sample(record.bests(way.name))
        for i in record.by_exposure(way.name):
            said, reached = record.forecast(way.name, i), best.get(i)
            if said is None:
                continue
            rows.append(
                [
                    Cell(record.samples[i].name),
                    Cell(way.name),
                    Cell(record.scale.short(said.value)),
                    Cell(NOTHING)
                    if reached is None
                    else Cell(record.scale.short(reached.row.value), leaks=reached.row.leaked),
                    Cell(said.verdict),
                    Cell("; ".join(said.reasons)),
                ]
            )
    return table(
        f"Forecast and achieved {record.scale.name} of every record",
        f"{record.scale.measured}, the most exposed first.",
        "Record; Way of training; Forecast #; Achieved #; What the forecast says; Why",
        rows,
    )


def classes(record: Record) -> Table:
    """Who is exposed, by class."""
    by_class: dict[str, list[int]] = {}
    for i, sample in enumerate(record.samples):
        by_class.setdefault(sample.label_name or NOTHING, []).append(i)
    best = {way.name: _by_sample(record.bests(way.name)) for way in record.ways}

    def cell(way: str, members: list[int]) -> Cell:
        found = [best[way][i].row for i in members if i in best[way]]
        if not found:
            return Cell("no guess")
        leaked = sum(row.leaked for row in found)
        median = statistics.median(row.value for row in found)
        above = statistics.median(row.leak for row in found)
        return Cell(
            f"{leaked} of {len(members)}",
            f"({record.scale.short(median)})",
            leaked > 0,
            _shade(record, above) * (leaked > 0),
        )

    def exposed(members: list[int]) -> float:
        return max(
            (sum(best[way][i].row.leaked for i in members if i in best[way]) for way in best), default=0
        )

    ordered = sorted(by_class.items(), key=lambda entry: -exposed(entry[1]) / len(entry[1]))
    return table(
        "Leak by class",
        f"Records of a class that leak, and in brackets their median {record.scale.measured}. The most "
        "exposed first.",
        [Column("Class"), *_by_way(record)],
        [[Cell(name), *(cell(way, members) for way in best)] for name, members in ordered],
    )


def samples(record: Record) -> Table:
    """Every record under every way of training."""
    best = {way.name: _by_sample(record.bests(way.name)) for way in record.ways}

    def cell(way: str, i: int) -> Cell:
        if i not in best[way]:
            return Cell("no guess")
        row = best[way][i].row
        return Cell(record.scale.short(row.value), leaks=row.leaked, shade=_shade(record, row.leak))

    def null(i: int) -> float | None:
        return next((best[way][i].row.null for way in best if i in best[way]), None)

    rows = []
    for i in by_exposure(record):
        sample = record.samples[i]
        rows.append(
            [
                Cell(sample.name),
                Cell(str(sample.batch + 1)),
                Cell(sample.label_name or NOTHING),
                Cell(record.scale.short(null(i))),
                *(cell(way, i) for way in best),
            ]
        )
    return table(
        "Leak by record",
        f"{record.scale.measured} of the best guess. The most exposed first.",
        [*headed("Record; Batch #; Class; Null #"), *_by_way(record, number=True)],
        rows,
    )


def trained(record: Record) -> Table:
    rows = [[Cell(way.name), Cell(listed(way.defenses) or "none"), Cell(way.client)] for way in record.ways]
    return table(
        "What each way of training is", "The innermost defense first.", "Way; Defenses; Client", rows
    )


def by_exposure(record: Record) -> list[int]:
    """The records, those first that are worst off under any way of training."""
    worst: dict[int, float] = {}
    for way in record.ways:
        for best in record.bests(way.name):
            sample, exposure = best.row.sample, best.row.exposure
            worst[sample] = max(exposure, worst.get(sample, exposure))
    return sorted(range(len(record.samples)), key=lambda i: (i not in worst, -worst.get(i, 0.0)))


def _by_way(record: Record, *, number: bool = False) -> list[Column]:
    return [Column(way.name, number) for way in record.ways]


def _by_sample(found: Iterable[Best]) -> dict[int, Best]:
    return {best.row.sample: best for best in found}


def _shade(record: Record, above: float) -> int:
    return sum(above >= step for step in record.scale.depths)
