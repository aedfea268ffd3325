"""Deep Leakage from Gradients, and its improvement for one record."""

from torch import Tensor

from gradleak.attacks.matching import LBFGS, Init, Matching, SquaredError, as_init
from gradleak.labels import LabelStrategy, joint
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
