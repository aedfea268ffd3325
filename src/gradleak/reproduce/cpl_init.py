"""CPL's comparison of starts (Wei et al. 2020): where DLG begins decides how soon it ends, and whether."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from gradleak.attacks import cpl
from gradleak.attacks.matching import Matching, SameClass
from gradleak.reproduce.measure import RECOVERED, error, psnr, recovered
from gradleak.reproduce.published import Distance, UnitSteps
from gradleak.reproduce.sample import Case, public, sample
from gradleak.reproduce.table import Column, Table, Told, Value

_EVALUATIONS = 1000
_TOLERANCE = 1e-4
_SEARCHES = ("unit steps", "strong Wolfe")
_PAPER = {
    "gaussian": "needs most iterations",
    "patterned": "far fewer, more succeed",
    "same class": "the best start (by R-GAP's summary)",
}
_STARTS = ("gaussian", "uniform", "patterned", "dark", "bright", "same class")
_COLUMNS = (
    Column("data"),
    Column("search"),
    Column("start"),
    Column("pictures"),
    Column("recovered"),
    Column("success", ".1%"),
    Column("gradients", ".0f"),
    Column("PSNR", ".1f"),
    Column("paper"),
)


def cpl_init(n: int, data: Sequence[str], tell: Told) -> Table:
    """Success and matching gradients by the first guess, with unit steps and with a line search."""
    rows: list[tuple[Value, ...]] = []
    for name in data:
        cases, others = sample(name, n).cases(), public(name, n)
        for search in _SEARCHES:
            for start in _STARTS:
                tell(f"{start}, {search}, on {name}", len(rows) / (len(data) * 2 * len(_STARTS)))
                init = SameClass(others.x, others.y) if start == "same class" else start
                attack = replace(
                    cpl(init=init, evaluations=_EVALUATIONS, tolerance=_TOLERANCE), objective=Distance()
                )
                if search == "unit steps":
                    attack = replace(attack, optimizer=UnitSteps(), double=False)
                rows.append((name, search, start, n, *_measured(attack, cases), _PAPER.get(start)))
    return Table(
        "CPL by where it starts, the label read off the gradient, untrained LeNet",
        _COLUMNS,
        tuple(rows),
        (
            f"recovered: {RECOVERED:.0f} dB within {_EVALUATIONS} matching gradients. gradients: the "
            f"median of those that a recovered picture took, until a distance of {_TOLERANCE:g}, undivided; "
            "PSNR: the median over all.",
            "paper: we have its claims and not its figures, so they stand in words.",
            "unit steps: L-BFGS without a line search, as released, in float32. strong Wolfe: gradleak's "
            "cpl, in float64. The paper's LeNet has one convolution more, and 106 people.",
            "patterned: a random tile of 16 x 16, repeated. same class: a random picture of the label "
            "that was read off, from the first pictures of the training set, or of a bundled set's others.",
        ),
    )


def _measured(attack: Matching, cases: Sequence[Case]) -> tuple[Value, ...]:
    found = attack.together([case.obs for case in cases])
    done = [recovered(one, case) for one, case in zip(found, cases, strict=True)]
    spent = [one.cost.matching_gradients for one, ok in zip(found, done, strict=True) if ok]
    decibels = [psnr(error(one, case)) for one, case in zip(found, cases, strict=True)]
    return (
        sum(done),
        sum(done) / len(cases),
        statistics.median(spent) if spent else None,
        statistics.median(decibels),
    )
