"""A batch by its records' own features: what a closed form gives, and a search for the rest."""

from torch import Tensor

from gradleak.attacks.matching import LBFGS, Box, Gray, Init, Matching, Natural, SquaredError, as_init
from gradleak.attacks.matching.features import Features
from gradleak.attacks.matching.last_layers import HeadLabels
from gradleak.labels import LabelStrategy, known
from gradleak.labels.inferred import FirstThatAnswers


def inverting_batches(
    *,
    labels: LabelStrategy | None = None,
    features: float = 1e4,
    rows: float = 0.1,
    box: float = 1e3,
    init: str | Tensor | Init | None = None,
    trials: int = 1,
    evaluations: int = 500,
    tolerance: float = 1e-9,
    double: bool = False,
) -> Matching:
    """Inverting batches: every record to its own features, which the last layer's gradient gives away.

    For one gradient of a batch of at most classes − 1 records, of a network that ends in a linear layer
    with a bias. Our own composition: the exact features of ``exact_batch`` (``matching.Features``), by L-BFGS
    in coordinates in which natural pictures are likely (``matching.Natural``). The features weigh so much
    more than the mismatch since a ReLU network's gradient jumps as units fall asleep, and its features do
    not; the mismatch is what the result is judged by. ``features=0`` leaves the closed form out, for an
    ablation.
    """
    closed = (Features(features, rows),) if features else ()
    return Matching(
        name="inverting_batches",
        labels=labels or FirstThatAnswers((known(), HeadLabels())),
        objective=SquaredError(),
        priors=(*closed, *((Box(box),) if box else ())),
        init=Gray(0.5, 1e-3) if init is None else as_init(init),
        optimizer=Natural(LBFGS()),
        trials=trials,
        evaluations=evaluations,
        tolerance=tolerance,
        double=double,
        references=("spear", "inverting_gradients"),
    )
