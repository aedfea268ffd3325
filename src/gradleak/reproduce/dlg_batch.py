"""DLG's table (Zhu et al. 2019): how many iterations a batch of 1, 2, 4 and 8 pictures takes."""

import statistics
from collections.abc import Sequence

from gradleak.attacks import dlg
from gradleak.attacks.matching import Matching
from gradleak.randomness import spawn
from gradleak.reproduce.measure import RECOVERED, error, psnr, recovered
from gradleak.reproduce.sample import Case, batches, sample
from gradleak.reproduce.table import Column, Table, Told, Value

_PAPER = {1: "270", 2: "602", 4: "1173", 8: "2711"}
_EVALUATIONS = 3000
_STEP = 20
_COLUMNS = (
    Column("data"),
    Column("batch"),
    Column("batches"),
    Column("recovered"),
    Column("gradients", ".0f"),
    Column("labels right", ".0%"),
    Column("PSNR", ".1f"),
    Column("paper"),
)


def dlg_batch(n: int, data: Sequence[str], tell: Told) -> Table:
    """Matching gradients until every picture of a batch is recovered; ``n`` pictures per batch size."""
    rows: list[tuple[Value, ...]] = []
    attack = dlg(evaluations=_EVALUATIONS)
    for name in data:
        one = sample(name, max(4 * n, 40))
        for size in _PAPER:
            which = batches(one, size, max(1, n // size))
            cases = [one.case(batch, seed=i) for i, batch in enumerate(which)]
            tell(f"batches of {size} of {name}", len(rows) / (len(data) * len(_PAPER)))
            rows.append((name, size, len(cases), *_measured(attack, cases), _PAPER[size]))
    return Table(
        "DLG by batch size, labels learnt with the pictures, untrained LeNet",
        _COLUMNS,
        tuple(rows),
        (
            f"recovered: batches of which every picture reached {RECOVERED:.0f} dB within {_EVALUATIONS} "
            f"matching gradients. gradients: their median until then, to the next {_STEP}; of those that "
            "were recovered alone. PSNR: the median over batches, of the mean squared error.",
            "paper: iterations on a ResNet-20 with sigmoids, recalled and not read again; at which "
            "quality it stops counting is not stated. The two counts are to be compared in how they grow, "
            "not in size.",
            "ours: DLG with a strong-Wolfe search and a gray start in float64; all pictures of a batch are "
            "updated at once, where the paper takes them in turn. A batch's labels all differ.",
        ),
    )


def _measured(attack: Matching, cases: Sequence[Case]) -> tuple[Value, ...]:
    """Watches the candidates as they come, which only who holds the truth can do."""
    until: list[int] = []
    right, total, decibels = 0, 0, []
    for case, own in zip(cases, spawn(0, len(cases)), strict=True):
        happened = None
        for found in attack.iterate(case.obs, rng=own):
            if recovered(found, case):
                happened = found.cost.matching_gradients
                break
        until += [] if happened is None else [happened]
        guessed = [] if found.y is None else found.y.tolist()
        right += len(set(guessed) & set(case.y.tolist()))
        total += len(case.y)
        decibels.append(psnr(error(found, case)))
    return (
        len(until),
        statistics.median(until) if until else None,
        right / total,
        statistics.median(decibels),
    )
