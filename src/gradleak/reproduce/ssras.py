"""Success rates of DLG, iDLG, R-GAP and SSRAS with the label known and unknown (Sensors 2022, 22, 7157)."""

from collections.abc import Sequence

import torch

from gradleak import zoo
from gradleak.attacks import Attack, dlg, idlg
from gradleak.attacks import r_gap as recursion
from gradleak.attacks import ssras as router
from gradleak.labels import known
from gradleak.observe import observe
from gradleak.reproduce.measure import MEASURED, RECOVERED, measured
from gradleak.reproduce.sample import Case, mixed
from gradleak.reproduce.table import Column, Table, Told, Value

_EVALUATIONS = 2000


def ssras(n: int, data: Sequence[str], tell: Told) -> Table:
    """How many pictures each attack recovers, with the label known and unknown."""
    plan = [(network, revealed) for network in ("mlp", "cnn6", "lenet") for revealed in (False, True)]
    rows: list[tuple[Value, ...]] = []
    total = len(plan) * 4
    for network, revealed in plan:
        cases = _cases(network, n, revealed, data)
        where = f"{network}, label {'known' if revealed else 'unknown'}"
        for one in _attacks(revealed):
            tell(f"{one.name} on {where}", len(rows) / total)
            rows.append((where, one.name, *measured(one, cases), "not available"))
    return Table(
        f"Pictures recovered to {RECOVERED:.0f} dB, one record each",
        (Column("network"), Column("attack"), *MEASURED, Column("paper")),
        tuple(rows),
        (
            "paper: we could read its abstract and introduction only, so its figures are not shown.",
            "the paper gives no threshold for success that we could read.",
        ),
    )


def _attacks(revealed: bool) -> tuple[Attack, ...]:
    labels = known() if revealed else None
    return (
        dlg(labels=labels, evaluations=_EVALUATIONS),
        idlg(evaluations=_EVALUATIONS),
        recursion(),
        router(evaluations=_EVALUATIONS),
    )


def _cases(network: str, n: int, revealed: bool, data: Sequence[str]) -> list[Case]:
    cases = []
    for i, x in enumerate(mixed(n, data)):
        y = torch.tensor([(3 * i) % 10])
        model = zoo.MODELS[network](classes=10, seed=i)
        cases.append(Case(x, y, observe(model, x, y, reveal=("labels",) if revealed else ())))
    return cases
