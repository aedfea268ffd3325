"""L-BFGS with a strong-Wolfe line search, in the compact form that touches its history twice per step."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.matching.optimizers.base import Descent, Space, is_count
from gradleak.attacks.matching.optimizers.line_search import Probe, strong_wolfe
from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class LBFGS:
    """``history`` pairs of steps are remembered; ``evaluations`` bounds one line search.

    The published DLG loop takes unit steps with no line search, and can leave the finite numbers.
    """

    history: int = 100
    evaluations: int = 25
    citations: tuple[str, ...] = ("lbfgs",)

    def __post_init__(self) -> None:
        if not is_count(self.history) or not is_count(self.evaluations):
            raise InvalidInput(
                "expected a history and evaluations of a line search of 1 or more; came "
                f"{self.history} and {self.evaluations}"
            )

    def descend(self, start: Tensor, space: Space, rng: torch.Generator) -> Descent:
        if space.project is not None:
            raise InvalidInput(
                "L-BFGS cannot project: its line search needs a smooth path. Use the Box prior."
            )
        point = start
        value, gradient = yield point
        memory = _Memory(self.history, point)
        while math.isfinite(value):
            direction = memory.descent(gradient)
            slope = float(direction @ gradient)
            if slope >= 0 or not math.isfinite(slope):
                if memory.empty or not slope:
                    return Outcome.STALLED
                memory = _Memory(self.history, point)
                continue
            # The first step has no curvature to go by: move by a length of 1 at most.
            step = 1.0 if not memory.empty else min(1.0, 1 / float(gradient.abs().sum()))
            search = strong_wolfe(Probe(0.0, value, slope), step, self.evaluations)
            step = next(search)
            while True:
                there = point + step * direction
                value_there, gradient_there = yield there
                try:
                    step = search.send((value_there, float(gradient_there @ direction)))
                except StopIteration as ended:
                    accepted = ended.value
                    break
            if accepted:
                memory.remember(there - point, gradient_there - gradient)
                point, value, gradient = there, value_there, gradient_there
            elif memory.empty:
                return Outcome.STALLED
            else:
                memory = _Memory(self.history, point)
        return Outcome.DIVERGED


class _Memory:
    """The last pairs (s, y) of one trial, and the inverse Hessian that they imply.

    H g = γ g + S a + γ Y b with the small vectors a, b of Byrd, Nocedal and Schnabel (1994), eq. 3.1.
    The rows live in a ring and are read twice per step, once for their products with the gradient and
    once for the direction: what S and Y make of y follows from two gradients' products.
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.rows = like.new_zeros(2, size, like.numel())  # S, then Y
        self.size = size
        self.order: list[int] = []  # slots, oldest first
        self.products = np.zeros((2, size))  # of S and Y with the last gradient
        self.sy = np.zeros((size, size))  # [i, j] = sᵢ·yⱼ, right where i is not newer than j
        self.yy = np.zeros((size, size))
        self.pending = False

    @property
    def empty(self) -> bool:
        return not self.order

    def remember(self, s: Tensor, y: Tensor) -> None:
        sy, yy = float(s @ y), float(y @ y)
        if not sy > 1e-10 * yy:
            return  # no curvature to learn from, as line searches that gave up can leave behind
        slot = self.order.pop(0) if len(self.order) == self.size else len(self.order)
        self.order.append(slot)
        self.rows[0, slot], self.rows[1, slot] = s, y
        self.sy[slot, slot], self.yy[slot, slot] = sy, yy
        self.pending = True

    def descent(self, gradient: Tensor) -> Tensor:
        """−H g."""
        if self.empty:
            return -gradient
        before, self.products = self.products, self._times(gradient)
        newest = self.order[-1]
        if self.pending:
            older = self.order[:-1]
            change = self.products - before
            self.sy[older, newest] = change[0, older]
            self.yy[older, newest] = self.yy[newest, older] = change[1, older]
            self.pending = False
        gamma = self.sy[newest, newest] / self.yy[newest, newest]
        ordered = np.ix_(self.order, self.order)
        upper, yy = np.triu(self.sy[ordered]), self.yy[ordered]
        sg, yg = self.products[:, self.order]
        b = solve_triangular(upper, sg, check_finite=False)
        a = solve_triangular(
            upper, upper.diagonal() * b + gamma * (yy @ b - yg), trans="T", check_finite=False
        )
        weights = np.zeros((2, self.size))
        weights[:, self.order] = a, -gamma * b
        filled = len(self.order)
        coefficients = torch.from_numpy(weights[:, :filled]).to(gradient)
        direction = gamma * gradient
        for rows, weight in zip(self.rows[:, :filled], coefficients, strict=True):
            direction = torch.addmv(direction, rows.T, weight)
        descent: Tensor = -direction
        return descent

    def _times(self, gradient: Tensor) -> np.ndarray:
        filled = len(self.order)
        products = np.zeros((2, self.size))
        products[0, :filled] = torch.mv(self.rows[0, :filled], gradient).double().cpu().numpy()
        products[1, :filled] = torch.mv(self.rows[1, :filled], gradient).double().cpu().numpy()
        return products
