"""The published attacks on texts by matching gradients, each one composition of parts: DLG, TAG and LAMP."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.matching import (
    LBFGS,
    Adam,
    Candidate,
    Cosine,
    LayerwiseSquaredError,
    Matching,
    Objective,
)
from gradleak.attacks.matching.priors import require_weight
from gradleak.labels import LabelStrategy, inferred
from gradleak.text.fluency import Fluency
from gradleak.text.matching import TextMatching
from gradleak.text.reordering import Reordering
from gradleak.trees import Tree, total


def dlg_text(
    *,
    labels: LabelStrategy | None = None,
    objective: Objective | None = None,
    given: Tensor | None = None,
    masked: Tensor | None = None,
    std: float | None = None,
    trials: int = 1,
    evaluations: int = 300,
    rounds: int = 4,
    history: int = 100,
    polish: int = 500,
) -> TextMatching:
    """Deep Leakage from Gradients on word embeddings, by L-BFGS (Zhu et al. 2019).

    As published: ``objective=gl.attacks.matching.SquaredError(), std=1, labels=gl.labels.joint(), rounds=1,
    polish=0``. Summed over all tensors, the squared error is that of the last layers, and words stay
    unknown at a mismatch of 1e-7. Here each tensor's error is in units of its own size, labels are read off
    the update where they can be, the start has the spread of the word embeddings, and a line search keeps
    steps finite.
    """
    matching = Matching(
        name="dlg_text",
        labels=labels or inferred(),
        objective=objective or LayerwiseSquaredError(),
        optimizer=LBFGS(history=history),
        trials=trials,
        evaluations=evaluations,
        tolerance=0.0,
        double=True,
        references=("dlg",),
    )
    return TextMatching(matching, given, std, polish, rounds, masked)


@dataclass(frozen=True)
class SquaredAndAbsolute:
    """Σ_l ‖d_l‖² + alpha · w_l ‖d_l‖₁ over the tensors, over what it is for an update of zeros (TAG).

    w falls evenly from 1 at the first tensor to 1/n at the last: the layers nearest to the words count most.
    """

    alpha: float = 0.05
    citations: tuple[str, ...] = ("tag",)

    def __post_init__(self) -> None:
        require_weight(self.alpha)

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        gap = {name: simulated[name] - leaf for name, leaf in observed.items()}
        return self._size(gap) / self._size(observed)

    def _size(self, tree: Tree) -> Tensor:
        n = len(tree)
        return total(
            leaf.square().sum() + self.alpha * (n - i) / n * leaf.abs().sum()
            for i, leaf in enumerate(tree.values())
        )


def tag(
    *,
    labels: LabelStrategy | None = None,
    alpha: float = 0.05,
    given: Tensor | None = None,
    masked: Tensor | None = None,
    std: float | None = None,
    trials: int = 1,
    steps: int = 1000,
    lr: float = 0.01,
    polish: int = 500,
) -> TextMatching:
    """TAG: squared and absolute errors, the first layers weighed most, by Adam (Deng et al. 2021).

    As published: ``lr=0.05, std=1, polish=0``, an ``alpha`` of 0.01 to 0.1 and 1000 to 2500 steps. Here the
    rate falls along a cosine, and labels are read off the update where they can be.
    """
    matching = Matching(
        name="tag",
        labels=labels or inferred(),
        objective=SquaredAndAbsolute(alpha),
        optimizer=Adam(steps, lr=lr, schedule="cosine"),
        trials=trials,
        evaluations=steps + 1,
        tolerance=0.0,
        double=True,
        references=("tag",),
    )
    return TextMatching(matching, given, std, polish, masked=masked)


@dataclass(frozen=True)
class CosineByTensor:
    """1 − cos(g_l(x), g_l), the mean over the tensors (LAMP): no tensor's size counts."""

    citations: tuple[str, ...] = ("lamp",)

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        cosine = Cosine()
        each = [cosine({name: simulated[name]}, {name: leaf}) for name, leaf in observed.items()]
        return total(each) / len(each)


@dataclass(frozen=True)
class EmbeddingNorm:
    """weight · (mean length of the embeddings / that of the vocabulary's − 1)² (LAMP, who do not divide)."""

    weight: float
    citations: tuple[str, ...] = ("lamp",)

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, candidate: Candidate) -> Tensor:
        model, x = candidate.task.model, candidate.x
        table = {**candidate.task.constants, **candidate.params}[str(model.table)]
        real = torch.ones_like(x[..., 0])
        if isinstance(model.pad, int):
            real = (x != table[model.pad]).any(-1).to(x)
        mine = (torch.linalg.vector_norm(x, dim=-1) * real).sum() / real.sum()
        off: Tensor = mine / torch.linalg.vector_norm(table, dim=-1).mean() - 1
        return self.weight * off.square()


def lamp(
    *,
    labels: LabelStrategy | None = None,
    fluency: Fluency | None = None,
    perplexity: float = 0.2,
    length: float = 0.1,
    given: Tensor | None = None,
    masked: Tensor | None = None,
    std: float | None = None,
    trials: int = 1,
    steps: int = 1000,
    lr: float = 0.01,
    every: int = 75,
    tried: int = 20,
    polish: int = 500,
) -> TextMatching:
    """LAMP: cosines by Adam, with words reordered in between (Balunović et al. 2022).

    ``length`` weighs how long embeddings are, beside the vocabulary's. ``fluency`` is the attacker's language
    model, ``gl.text.Causal(model)`` or ``gl.text.bigrams(texts, ...)``; without one, orders are judged by the
    update alone. As published: GPT-2's, ``steps=2000, tried=200, polish=0``, and a start that is the best of
    500: here ``trials`` are whole attempts instead.
    """
    optimizer = Reordering(steps, lr, every, tried, fluency, perplexity)
    matching = Matching(
        name="lamp",
        labels=labels or inferred(),
        objective=CosineByTensor(),
        priors=(EmbeddingNorm(length),) if length else (),
        optimizer=optimizer,
        trials=trials,
        evaluations=optimizer.evaluations,
        tolerance=0.0,
        double=True,
        references=("lamp",),
    )
    return TextMatching(matching, given, std, polish, masked=masked)
