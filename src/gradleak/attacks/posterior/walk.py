"""Gauss-Newton with a trust in every parameter's entries that grows as they come to be explained."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.posterior.merit import Posterior
from gradleak.attacks.posterior.newton import Newton
from gradleak.attacks.posterior.trust import Trust, excess, level, weighted
from gradleak.trees import flatten

_LOOSE = 4  # first steps, which are far from the end whatever they are
_SLOW = 1e-2  # of the merit in one step: time to look at residuals in another way
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
    level: float = float("inf")  # the same mean square over all entries together
    outcome: Outcome = Outcome.RUNNING
    history: list[tuple[int, float]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return self.spent + self.newton.spent


def walk(posterior: Posterior, start: Tensor, *, steps: int, iterations: int, kinked: bool) -> Iterator[Walk]:
    """Every step once.

    Until the residual is no more than noise, it is trusted no further than it allows: parameter by parameter,
    or in a network with kinks entry by entry. From then on the merit is the posterior's own.
    """
    now = Walk(start, posterior.residual(start), Newton(iterations))
    ways = [Trust.by_blocks, Trust.by_entries] if kinked else [Trust.by_blocks]
    settled = False
    for now.step in range(1, steps + 1):
        settled = settled or max(excess(now.residual, posterior.known).values()) < _INFLATED
        trust = Trust.full(now.residual) if settled else ways[0](now.residual, posterior.known)
        weights = trust.weights(now.residual)
        seen = posterior.linear(now.u, weights)
        rest = flatten(weighted(now.residual, weights))
        slope = seen.transposed(rest) + now.u
        loose = now.step <= _LOOSE
        move = now.newton.step(seen, slope, loose=loose)
        before = trust.cost(now.residual) + float(now.u.square().sum())
        merit = _along(posterior, now, move, trust, before)
        now.excess = max(excess(now.residual, posterior.known).values())
        now.level = level(now.residual, posterior.known)
        now.score = posterior.unexplained(now.residual)
        now.history.append((now.cost, now.score))
        if not torch.isfinite(now.u).all():
            now.outcome = Outcome.DIVERGED
        elif len(ways) > 1 and not loose and before - merit < _SLOW * abs(before):
            ways.pop(0)
        elif not loose and before - merit < _FALL * abs(before):
            now.outcome = Outcome.CONVERGED if settled else Outcome.STALLED
        elif now.step == steps:
            now.outcome = Outcome.BUDGET
        yield now
        if now.outcome is not Outcome.RUNNING:
            return


def _along(posterior: Posterior, now: Walk, move: Tensor, trust: Trust, before: float) -> float:
    """Goes as far along ``move`` as the merit falls; nowhere where it does not fall at all."""
    length = 1.0
    while length > _SHORTEST:
        there = now.u + length * move
        residual = posterior.residual(there)
        now.spent += 1
        merit = trust.cost(residual) + float(there.square().sum())
        if merit < before:
            now.u, now.residual = there, residual
            return merit
        length *= _SHRINK
    return before
