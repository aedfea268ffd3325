"""R-GAP: one record's data by one pass of linear solves down the network (Zhu and Blaschko 2021)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.certificate import certify
from gradleak.attacks.closed_form.recursion import Descent, descend, readings, split_head
from gradleak.errors import MissingInformation, UnsupportedLayer
from gradleak.layers import chain
from gradleak.observe import Observation, OneGradient, cross_entropy, logistic
from gradleak.randomness import Rng


@dataclass(frozen=True)
class RGAP:
    """The paper's recursion, with the structure that its code ignores.

    A convolution's gradient equations are the same for each input channel and are solved once for all of
    them, known zeros are dropped, rows are balanced, and all of it runs in float64. ``tolerance`` is
    that of the iterative solves. Which of a bias-free head's readings is meant, the certificate decides.
    """

    tolerance: float = 1e-8
    name: str = "r_gap"
    citations: tuple[str, ...] = ("r_gap",)

    @property
    def budget(self) -> int:
        return 4  # one simulated update for each reading of the head

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        clock = time.perf_counter()
        reason = _refusal(obs)
        if reason is not None:
            return Reconstruction(Outcome.NOT_APPLICABLE, reason=reason)
        try:
            body, head = split_head(chain(obs))
            found = [
                (guess, descend(body, head, guess, tolerance=self.tolerance)) for guess in readings(obs, head)
            ]
        except (UnsupportedLayer, MissingInformation) as error:
            return Reconstruction(Outcome.NOT_APPLICABLE, reason=str(error))
        candidates = [_candidate(obs, down) for _, down in found if down is not None]
        if not candidates:
            return Reconstruction(
                Outcome.STALLED,
                reason="no layer-by-layer solution exists: the equations contradict each other, as they do "
                "for a batch, a defended update, or another client than the assumed one",
                cost=Cost(0, time.perf_counter() - clock, 1),
            )
        best = min(candidates, key=lambda one: one.score)
        cost = Cost(len(candidates), time.perf_counter() - clock, len(found))
        return Reconstruction(best.outcome, best.x, best.y, best.score, best.reason, cost=cost)


def _refusal(obs: Observation) -> str | None:
    if type(obs.client) is not OneGradient:
        return f"the equations are those of one gradient; the assumed client is {obs.client!r}"
    if obs.batch_size != 1:
        return f"the recursion takes one record apart, and this batch holds {obs.batch_size}"
    if obs.loss is not cross_entropy and obs.loss is not logistic:
        return f"the head is solved for cross entropy and the logistic loss, not for {obs.loss!r}"
    return None


def _candidate(obs: Observation, down: Descent) -> Reconstruction:
    x = down.x.reshape(obs.x_shape)
    y = torch.tensor([down.y], device=obs.like.device)
    certificate = certify(obs, x, y)
    lost = f" ({down.lost})" if down.lost else ""
    reason = f"the recovered picture leaves {certificate.residual:.1e} of the update unexplained{lost}"
    return Reconstruction(
        Outcome.CONVERGED if certificate.holds and not down.lost else Outcome.STALLED,
        x=x.to(obs.like),
        y=y,
        score=certificate.score,
        reason="" if certificate.holds and not down.lost else reason,
    )


def r_gap(*, tolerance: float = 1e-8) -> RGAP:
    """R-GAP: layer by layer from the head to the picture, in closed form (Zhu and Blaschko 2021)."""
    return RGAP(tolerance=tolerance)
