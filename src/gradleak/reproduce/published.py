"""The attacks as the papers' code runs them: no line search, no scaling, a start of N(0, 1)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gradleak.attacks import Outcome
from gradleak.attacks.matching import Gaussian, Matching
from gradleak.attacks.matching.optimizers import Descent, Space
from gradleak.errors import InvalidInput
from gradleak.labels import LabelStrategy, joint
from gradleak.labels import idlg as idlg_labels
from gradleak.trees import Tree, squared_norm, subtract


@dataclass(frozen=True)
class Distance:
    """‖g(x) − g‖², undivided, in which the papers give their thresholds."""

    def __call__(self, simulated: Tree, observed: Tree) -> Tensor:
        return squared_norm(subtract(simulated, observed))


@dataclass(frozen=True)
class UnitSteps:
    """L-BFGS as ``torch.optim.LBFGS`` is by default: a step of 1 along each direction, come what may.

    The released loops call it 300 times for 20 iterations each. Its memory outlives the calls, so this is
    one descent of 6000; of its own tests for an end, only those that hold from call to call are kept.
    """

    history: int = 100
    citations: tuple[str, ...] = ("lbfgs",)

    def descend(self, start: Tensor, space: Space, rng: Generator) -> Descent:
        if space.project is not None:
            raise InvalidInput("L-BFGS cannot project; use the Box prior")
        point, memory = start, _Memory(self.history, start)
        value, gradient = yield point
        step = min(1.0, 1 / float(gradient.abs().sum()))
        while math.isfinite(value) and float(gradient.abs().max()) > 1e-7:
            direction = memory.descent(gradient)
            if float(direction @ gradient) > -1e-9:
                return Outcome.STALLED
            moved, before = step * direction, gradient
            point = point + moved
            value, gradient = yield point
            memory.remember(moved, gradient - before)
            step = 1.0
        return Outcome.STALLED if math.isfinite(value) else Outcome.DIVERGED


class _Memory:
    """The last pairs (s, y) and the two loops over them (Nocedal 1980), run on their products.

    A loop over 100 vectors would cost more than the network's gradient: the vectors are read once for their
    products with the gradient and once for the direction, and the loops are over numbers.
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.rows = like.new_zeros(2, size, like.numel())  # S, then Y
        self.size = size
        self.order: list[int] = []  # slots, oldest first
        self.products = np.zeros((2, size, size))  # [0, i, j] = sᵢ·yⱼ and [1, i, j] = yᵢ·yⱼ

    def remember(self, s: Tensor, y: Tensor) -> None:
        if not float(s @ y) > 1e-10:
            return
        slot = self.order.pop(0) if len(self.order) == self.size else len(self.order)
        self.order.append(slot)
        self.rows[0, slot], self.rows[1, slot] = s, y
        self.products[:, :, slot] = _numbers(self.rows @ y)
        self.products[0, slot] = _numbers(self.rows[1] @ s)
        self.products[1, slot] = self.products[1, :, slot]

    def descent(self, gradient: Tensor) -> Tensor:
        """−H g."""
        if not self.order:
            return -gradient
        sy, yy = (table[np.ix_(self.order, self.order)] for table in self.products)
        sg, yg = _numbers(self.rows @ gradient)[:, self.order]
        n, own = len(self.order), sy.diagonal()
        along_y, along_s = np.zeros(n), np.zeros(n)
        for i in reversed(range(n)):
            along_y[i] = (-sg[i] - sy[i] @ along_y) / own[i]
        scale = own[-1] / yy[-1, -1]
        products = scale * (-yg - yy @ along_y)
        for i in range(n):
            along_s[i] = along_y[i] - (products[i] + sy[:, i] @ along_s) / own[i]
        weights = np.zeros((2, self.size))
        weights[:, self.order] = along_s, -scale * along_y
        direction: Tensor = torch.tensordot(torch.from_numpy(weights).to(gradient), self.rows, 2)
        step: Tensor = direction - scale * gradient
        return step


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()


def dlg(evaluations: int, tolerance: float = 1e-6) -> Matching:
    """The released loop of DLG, with as many matching gradients as can be afforded; it has 6000."""
    return _published("DLG, as published", joint(), evaluations, tolerance)


def idlg(evaluations: int, tolerance: float = 1e-6) -> Matching:
    """The released loop of iDLG, which ends at a distance of 1e-6."""
    return _published("iDLG, as published", idlg_labels(), evaluations, tolerance)


def _published(name: str, labels: LabelStrategy, evaluations: int, tolerance: float) -> Matching:
    return Matching(
        name=name,
        labels=labels,
        objective=Distance(),
        init=Gaussian(),
        optimizer=UnitSteps(),
        evaluations=evaluations,
        tolerance=tolerance,
        references=("dlg",) if labels == joint() else ("idlg", "dlg"),
    )
