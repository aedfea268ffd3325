"""CPL: a framework for evaluating client privacy leakages."""

from torch import Tensor

from gradleak.attacks.matching import LBFGS, Agreement, Init, Matching, SquaredError, as_init
from gradleak.labels import LabelStrategy, inferred


def cpl(
    *,
    labels: LabelStrategy | None = None,
    init: str | Tensor | Init = "patterned",
    alpha: float = 0.0,
    trials: int = 1,
    evaluations: int = 4000,
    tolerance: float = 1e-12,
    history: int = 100,
    double: bool = True,
) -> Matching:
    """CPL: DLG from a patterned start, pulled to the label that was read off the update (Wei et al. 2020).

    Its other starts are ``init="dark"``, ``"bright"``, and a public picture of the same class:
    ``init=matching.SameClass(pictures, labels)``. ``alpha`` weighs the paper's ‖F(x) − y‖², as
    ``matching.Agreement``, in units in which an update of zeros has a mismatch of 1. The paper has 1, its
    released notebook no such term, and neither have we: the private picture has not that probability, so
    that with it no match is exact. The label is that of the sign rule, which for one record is the paper's
    own; batches learn theirs. Line search and arithmetic are those of ``dlg``.
    """
    return Matching(
        name="cpl",
        labels=labels or inferred(),
        objective=SquaredError(),
        priors=(Agreement(alpha),) if alpha else (),
        init=as_init(init),
        optimizer=LBFGS(history=history),
        trials=trials,
        evaluations=evaluations,
        tolerance=tolerance,
        double=double,
        references=("cpl",),
    )
