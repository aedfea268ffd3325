"""What a batch is worth that was found in closed form: the gradient is computed again, and compared."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.batch.dense import Stage, backward, forward, stages
from gradleak.attacks.closed_form.batch.factors import Factors, factor
from gradleak.attacks.closed_form.batch.polish import polish
from gradleak.errors import UnsupportedLayer
from gradleak.layers import chain
from gradleak.observe import Observation, OneGradient
from gradleak.observe.task import cross_entropy
from gradleak.trees import norm, subtract

_AT_MOST = 1e-3
_SAFETY = 3.0  # rounding is not white noise: it errs in step, and more than its size says


@dataclass(frozen=True)
class Standard:
    """``tolerance`` bounds ‖g(x) − g‖ / ‖g‖, ``error`` the error to expect in a pixel of the worst record."""

    tolerance: float | None
    eps: float
    error: float

    def residual(self, delta: float) -> float:
        """What rounding may leave, for records whose p − e_y have the length ``delta``.

        A probability is rounded to ``eps`` of 1, not of its distance from the label: where a network is sure
        of its batch, the client's own arithmetic has lost digits of everything that follows.
        """
        if self.tolerance is not None:
            return self.tolerance
        return min(max(128 * self.eps, 1e-11) + 8 * self.eps / max(delta, 1e-300), _AT_MOST)


def standard(obs: Observation, tolerance: float | None, accuracy: float) -> Standard:
    """Where no tolerance is asked for, a hundred roundings of the numbers as they were sent."""
    return Standard(tolerance, rounding(obs), accuracy)


def rounding(obs: Observation) -> float:
    return max(torch.finfo(leaf.dtype).eps for leaf in obs.update.values())


def network(obs: Observation) -> list[Stage] | str:
    """The model as stages, or why closed forms for batches do not apply."""
    if not isinstance(obs.client, OneGradient):
        return f"expected one gradient of one batch; the client is assumed to be {obs.client!r}"
    if obs.loss is not cross_entropy:
        return "expected mean cross entropy, whose derivative this solves; came another loss"
    try:
        return stages(chain(obs))
    except UnsupportedLayer as error:
        return str(error)


def factored(net: Sequence[Stage], obs: Observation) -> list[Factors]:
    """Every layer's gradient, as far as so many records can have made it."""
    found = []
    for i, stage in enumerate(net):
        head = i == len(net) - 1
        rows, columns = stage.dW.shape
        rank = min(obs.batch_size, rows - head, columns + (stage.db is not None))
        found.append(factor(stage.dW, stage.db, rank, rounding(obs), simplex=head))
    return found


def judged(
    obs: Observation,
    net: Sequence[Stage],
    factors: Sequence[Factors],
    x: Tensor,
    y: Tensor,
    standard: Standard,
) -> Reconstruction:
    """The candidate, polished on the whole gradient, with its certificate."""
    polished = polish(net, factors, x, y)
    wide = obs.to(torch.float64)
    best = polished.x.reshape(obs.x_shape)
    if not bool(torch.isfinite(best).all()):
        return Reconstruction(Outcome.DIVERGED, reason="the solution of a linear system is not finite")
    ordered, y_out = _ordered(best, y, obs.labels)
    left = float(norm(subtract(wide.simulate(best, y), wide.update)) / norm(wide.update))
    blur = (_SAFETY * polished.blur).nan_to_num(nan=float("inf"))
    error = float(blur.max())
    reason = _lost(left, standard.residual(_delta(net, polished.x, y)), error, blur, standard)
    return Reconstruction(
        Outcome.STALLED if reason else Outcome.CONVERGED,
        x=ordered.to(obs.like),
        y=y_out,
        score=left**2,  # in the unit of the matching attacks
        reason=reason,
        cost=Cost(matching_gradients=1, trials=1),
    )


def _delta(net: Sequence[Stage], x: Tensor, y: Tensor) -> float:
    """The root mean square length of p − e_y."""
    d = backward(net, forward(net, x), y)[-1] * len(y)
    return float(d.square().sum(1).mean().sqrt())


def _lost(left: float, bound: float, error: float, blur: Tensor, standard: Standard) -> str:
    if left > bound:
        return (
            f"{left:.1e} of the gradient is left unexplained, where rounding would leave at most "
            f"{bound:.1e}: the gradient is noisy, the batch has another size, or this is not the batch"
        )
    if error > standard.error:
        lost = int((blur > standard.error).sum())
        return (
            f"{lost} of {len(blur)} records give so little to the gradient that rounding blurs their "
            f"pixels by up to {error:.1e}"
        )
    return ""


def _ordered(x: Tensor, y: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """In the order of the labels, where the server knows them; records with one label in any order."""
    if labels is None or not torch.equal(labels.sort().values, y.sort().values):
        return x, y
    order = torch.empty_like(y)
    order[labels.argsort(stable=True)] = y.argsort(stable=True)
    return x[order], y[order]


def stalled(reason: str) -> Reconstruction:
    return Reconstruction(Outcome.STALLED, reason=reason)


def inapplicable(reason: str) -> Reconstruction:
    return Reconstruction(Outcome.NOT_APPLICABLE, reason=reason)


def timed(found: Reconstruction, seconds: float, tried: int) -> Reconstruction:
    return dataclasses.replace(
        found, cost=Cost(matching_gradients=tried, seconds=seconds, trials=max(tried, 1))
    )
