"""GradInversion, "See through Gradients"."""

from torch import Tensor

from gradleak.attacks.matching import (
    Adam,
    Consensus,
    Energy,
    Init,
    LayerNorms,
    Matching,
    Prior,
    Statistics,
    TotalVariation,
    as_init,
)
from gradleak.attacks.matching.optimizers.base import is_count, is_number
from gradleak.attacks.matching.statistics import Source
from gradleak.errors import InvalidInput
from gradleak.labels import LabelStrategy, inferred


def gradinversion(
    *,
    labels: LabelStrategy | None = None,
    tv: float = 0.3,
    l2: float = 1e-4,
    bn: float = 1.0,
    group: float = 1.0,
    registered: bool = False,
    statistics: Source = "auto",
    init: str | Tensor | Init = "gray",
    trials: int = 4,
    steps: int = 1000,
    lr: float = 0.1,
    warmup: float = 1 / 400,
    noise: float = 0.05,
    tolerance: float = 3e-5,
    double: bool = False,
) -> Matching:
    """GradInversion: layer norms, BatchNorm statistics, trials that agree, by noisy Adam (Yin et al. 2021).

    ``statistics="auto"`` compares with the batch's own where the observation holds them, else with running
    ones that training has moved, else with none; ``"sent"`` and ``"running"`` insist. Labels: the paper's
    row minimum is ``labels=gl.labels.row_minimum()``; the default takes the surest answer there is.

    As published: steps=20000, warmup=50 / 20000, noise=0.2, trials=8, init="gaussian", registered=True with
    RANSAC-flow instead of whole pixels, no box, and for pictures of 224 x 224 the weights 1e-3 (layer norms),
    1e-4 (tv), 1e-6 (l2), 0.1 (bn), 0.01 (group). They weigh sums of another size: here the layer norms, the
    statistics and the mean over pixels are each in units of 1. Ours were chosen on faces at 32 x 32. There
    is no official code, and the paper does not say how records of two trials are matched: see ``Consensus``.
    """
    priors: list[Prior] = [TotalVariation(tv)] if tv else []
    priors += [Energy(l2)] if l2 else []
    priors += [Statistics(bn, statistics)] if bn else []
    if not is_count(steps) or not is_number(warmup) or not 0 <= warmup < 1:
        raise InvalidInput(
            "expected steps of 1 or more and a warm-up as a share of them, from 0 to below 1; came "
            f"{steps!r} and {warmup!r}"
        )
    rises = min(round(warmup * steps), steps - 1)
    return Matching(
        name="gradinversion",
        labels=labels or inferred(),
        objective=LayerNorms(),
        priors=tuple(priors),
        init=as_init(init),
        optimizer=Adam(steps, lr=lr, schedule="cosine", warmup=rises, noise=noise),
        box=True,
        trials=trials,
        evaluations=steps + 1,
        tolerance=tolerance,
        double=double,
        references=("gradinversion",),
        consensus=Consensus(group, registered=registered) if group else None,
    )
