"""Gauss-Newton with a trust in every parameter's entries that grows as they come to be explained."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.posterior.merit import Posterior, excess, weighted
from gradleak.attacks.posterior.newton import Newton

_LOOSE = 4  # first steps, which are far from the end whatever they are
_FALL = 1e-6  # of the merit in one step: less is standing still
_INFLATED = 4.0  # times what hides it, up to which a residual is taken for that and no more
_SHRINK, _SHORTEST = 0.35, 1e-6


@dataclass
class Walk:
    """Where the attacker stands, and how it came there; ``excess`` is the worst parameter's."""

    u: Tensor
    residual: dict[str, Tensor]
    newton: Newton
    spent: int = 1
    step: int = 0
    score: float = float("inf")
    excess: float = float("inf")
    outcome: Outcome = Outcome.RUNNING
    history: list[tuple[int, float]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return self.spent + self.newton.spent


def walk(posterior: Posterior, start: Tensor, *, steps: int, iterations: int) -> Iterator[Walk]:
    """Every step once.

    Far from the end a residual is no noise, and to take it for that would be to believe a wrong picture. So
    each parameter's block is trusted no more than its residual allows: its weights fall by the root of the
    residual's mean square over the noise's, where that is above 1. It is the likeliest variance of the block.
    """
    now = Walk(start, posterior.residual(start), Newton(iterations))
    settled = False
    for now.step in range(1, steps + 1):
        over = excess(now.residual, posterior.known)
        settled = settled or max(over.values()) < _INFLATED
        trust = {name: 1.0 if settled else max(1.0, e) ** -0.5 for name, e in over.items()}
        seen = posterior.linear(now.u, trust)
        rest = weighted(now.residual, trust)
        slope = seen.transposed(rest) + now.u
        loose = now.step <= _LOOSE
        move = now.newton.step(seen, slope, loose=loose)
        before = float(rest.square().sum() + now.u.square().sum())
        merit = _along(posterior, now, move, trust, before)
        over = excess(now.residual, posterior.known)
        now.excess, now.score = max(over.values()), posterior.unexplained(now.residual)
        now.history.append((now.cost, now.score))
        if not torch.isfinite(now.u).all():
            now.outcome = Outcome.DIVERGED
        elif not loose and before - merit < _FALL * before:
            now.outcome = Outcome.CONVERGED if settled else Outcome.STALLED
        elif now.step == steps:
            now.outcome = Outcome.BUDGET
        yield now
        if now.outcome is not Outcome.RUNNING:
            return


def _along(posterior: Posterior, now: Walk, move: Tensor, trust: dict[str, float], before: float) -> float:
    """Goes as far along ``move`` as the merit falls; nowhere where it does not fall at all."""
    length = 1.0
    while length > _SHORTEST:
        there = now.u + length * move
        residual = posterior.residual(there)
        now.spent += 1
        merit = float(weighted(residual, trust).square().sum() + there.square().sum())
        if merit < before:
            now.u, now.residual = there, residual
            return merit
        length *= _SHRINK
    return before
