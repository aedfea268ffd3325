"""Inverting Gradients."""

from collections.abc import Sequence

from torch import Tensor

from gradleak.attacks.matching import Adam, Cosine, Init, Matching, Prior, TotalVariation, as_init
from gradleak.errors import InvalidInput
from gradleak.labels import LabelStrategy, inferred


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
        priors=total_variation(tv),
        init=as_init(init),
        optimizer=Adam(steps, lr=lr, sign=sign),
        box=True,
        trials=trials,
        evaluations=steps + 1,
        tolerance=tolerance,
        double=double,
        references=("inverting_gradients",),
    )


def total_variation(tv: float | Sequence[float]) -> tuple[Prior, ...]:
    """No such prior where all weights are 0."""
    weights: tuple[float, ...] = tuple(tv) if isinstance(tv, Sequence) else (tv,)
    if not 1 <= len(weights) <= 2:
        raise InvalidInput(f"expected tv as one weight, or as (first, last); came {tv!r}")
    return (TotalVariation(*weights),) if any(weights) else ()
