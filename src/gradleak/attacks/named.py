"""Attacks from the literature, each one composition of parts: nothing in here computes.

Where a default differs from the paper, the docstring says so and names the published value.
"""

from collections.abc import Sequence

from torch import Tensor

from gradleak.attacks.matching import (
    LBFGS,
    Adam,
    Cosine,
    Init,
    Matching,
    Prior,
    SquaredError,
    TotalVariation,
    as_init,
)
from gradleak.errors import InvalidInput
from gradleak.labels import LabelStrategy, inferred, joint
from gradleak.labels import idlg as idlg_labels


def dlg(
    *,
    labels: LabelStrategy | None = None,
    init: str | Tensor | Init = "gray",
    trials: int = 1,
    evaluations: int = 4000,
    tolerance: float = 1e-12,
    history: int = 100,
    double: bool = True,
) -> Matching:
    """Deep Leakage from Gradients: pictures and soft labels by L-BFGS on squared error (Zhu et al. 2019).

    As published: ``init="gaussian"``, and L-BFGS with unit steps and no line search, which can
    diverge. Here a strong-Wolfe line search keeps every step finite, the start is gray,
    since a server knows that pixels lie in [0, 1], and the arithmetic is ``double``, since rounding in
    float32 ends the descent near a mismatch of 1e-8. The ``tolerance`` is that small because some networks
    hide much of a picture in little of their gradient: LeNet with torch's own initialisation explains all
    but 1e-9 of the update with a picture of 20 dB.
    """
    return Matching(
        name="dlg",
        labels=labels or joint(),
        objective=SquaredError(),
        init=as_init(init),
        optimizer=LBFGS(history=history),
        trials=trials,
        evaluations=evaluations,
        tolerance=tolerance,
        double=double,
        references=("dlg",),
    )


def idlg(
    *,
    init: str | Tensor | Init = "gray",
    trials: int = 1,
    evaluations: int = 4000,
    tolerance: float = 1e-12,
    history: int = 100,
    double: bool = True,
) -> Matching:
    """iDLG: the label of a single record from a sign, then DLG for the picture alone (Zhao et al. 2020).

    For one record only, as in the paper. Start, line search and arithmetic are those of ``dlg``.
    """
    return Matching(
        name="idlg",
        labels=idlg_labels(),
        objective=SquaredError(),
        init=as_init(init),
        optimizer=LBFGS(history=history),
        trials=trials,
        evaluations=evaluations,
        tolerance=tolerance,
        double=double,
        references=("idlg", "dlg"),
    )


def inverting_gradients(
    *,
    labels: LabelStrategy | None = None,
    tv: float | Sequence[float] = (1e-1, 1e-3),
    init: str | Tensor | Init = "gray",
    trials: int = 1,
    steps: int = 1000,
    lr: float = 0.1,
    sign: bool = True,
    tolerance: float = 1e-9,
    double: bool = False,
) -> Matching:
    """Inverting Gradients: cosine, total variation, signed Adam inside the box (Geiping et al. 2020).

    As published: ``tv=0.1, init="gaussian", steps=4800``. Kept to the end, that weight drowns the
    gradient of a small picture. Here it starts as published and falls to a hundredth, so that nobody has
    to search it: large forms settle first, fine ones later. The start is gray, as in ``dlg``.
    """
    return Matching(
        name="inverting_gradients",
        labels=labels or inferred(),
        objective=Cosine(),
        priors=_total_variation(tv),
        init=as_init(init),
        optimizer=Adam(steps, lr=lr, sign=sign),
        box=True,
        trials=trials,
        evaluations=steps + 1,
        tolerance=tolerance,
        double=double,
        references=("inverting_gradients",),
    )


def _total_variation(tv: float | Sequence[float]) -> tuple[Prior, ...]:
    weights: tuple[float, ...] = tuple(tv) if isinstance(tv, Sequence) else (tv,)
    if not 1 <= len(weights) <= 2:
        raise InvalidInput(f"expected tv as one weight, or as (first, last); came {tv!r}")
    return (TotalVariation(*weights),) if any(weights) else ()
