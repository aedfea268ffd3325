"""Gauss-Newton with a trust in entries that grows as they are explained, and kinks that sharpen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak.attacks.base import Outcome
from gradleak.attacks.posterior.merit import Posterior
from gradleak.attacks.posterior.newton import Newton
from gradleak.attacks.posterior.softened import softened
from gradleak.attacks.posterior.trust import Trust, excess, level, weighted
from gradleak.trees import Tree, flatten

_LOOSE = 4  # first steps, which are far from the end whatever they are
_SLOW = 1e-2  # of the merit in one step: time to look at residuals in another way
_FALL = 1e-6  # of the merit in one step: less is standing still
_INFLATED = 4.0  # times what hides it, up to which a residual is taken for that and no more
_SOFT = (10.0, 30.0, 100.0)  # how sharp kinks are, one after the other, before they are kinks
_SHRINK, _SHORTEST = 0.35, 1e-6


@dataclass
class Walk:
    """Where the attacker stands, and how it came there; ``excess`` is the worst parameter's."""

    u: Tensor
    newton: Newton
    spent: int = 0
    step: int = 0
    settled: bool = False  # whether the residual has once been no more than noise
    score: float = float("inf")
    excess: float = float("inf")
    level: float = float("inf")  # the same mean square over all entries together
    outcome: Outcome = Outcome.RUNNING
    history: list[tuple[int, float]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return self.spent + self.newton.spent


@dataclass(frozen=True)
class _Way:
    """How residuals are looked at: how far they are trusted, and of how sharp a network."""

    trust: Callable[[Tree, Tree], Trust] = Trust.by_misfit
    sharpness: float | None = None


def walk(posterior: Posterior, start: Tensor, *, steps: int, iterations: int, kinked: bool) -> Iterator[Walk]:
    """Every step once.

    Until the residual is no more than noise, it is trusted no further than it allows, parameter by parameter.
    From then on the merit is the posterior's own. A network with kinks is at first a rounder one, for half
    of the steps at most, and at last entries are trusted one by one.
    """
    now = Walk(start, Newton(iterations))
    ways = [_Way(Trust.by_blocks)]
    if kinked:
        ways = [*(_Way(sharpness=s) for s in _SOFT), _Way(), _Way(Trust.by_entries)]
    for now.step in range(1, steps + 1):
        while ways[0].sharpness is not None and (now.settled or now.step > steps // 2):
            ways.pop(0)
        with softened(ways[0].sharpness):
            fall = _step(posterior, now, ways[0])
        _judge(posterior, now)
        loose = now.step <= _LOOSE
        if not torch.isfinite(now.u).all():
            now.outcome = Outcome.DIVERGED
        elif len(ways) > 1 and not loose and fall < _SLOW:
            ways.pop(0)
        elif not loose and fall < _FALL:
            now.outcome = Outcome.CONVERGED if now.settled else Outcome.STALLED
        if now.outcome is Outcome.RUNNING and now.step == steps:
            now.outcome = Outcome.BUDGET
        yield now
        if now.outcome is not Outcome.RUNNING:
            return


def _step(posterior: Posterior, now: Walk, way: _Way) -> float:
    """Moves, and says by which share the merit fell."""
    residual = posterior.residual(now.u)
    now.spent += 1
    trust = Trust.full(residual) if now.settled else way.trust(residual, posterior.known)
    weights = trust.weights(residual)
    seen = posterior.linear(now.u, weights)
    slope = seen.transposed(flatten(weighted(residual, weights))) + now.u
    move = now.newton.step(seen, slope, loose=now.step <= _LOOSE)
    before = trust.cost(residual) + float(now.u.square().sum())
    after = _along(posterior, now, move, trust, before)
    return (before - after) / max(abs(before), 1e-300)


def _judge(posterior: Posterior, now: Walk) -> None:
    """By the network as it is, however round it was on the way."""
    residual = posterior.residual(now.u)
    now.spent += 1
    now.excess = max(excess(residual, posterior.known).values())
    now.level = level(residual, posterior.known)
    now.score = posterior.unexplained(residual)
    now.history.append((now.cost, now.score))
    now.settled = now.settled or now.excess < _INFLATED


def _along(posterior: Posterior, now: Walk, move: Tensor, trust: Trust, before: float) -> float:
    """Goes as far along ``move`` as the merit falls; nowhere where it does not fall at all."""
    length = 1.0
    while length > _SHORTEST:
        there = now.u + length * move
        residual = posterior.residual(there)
        now.spent += 1
        merit = trust.cost(residual) + float(there.square().sum())
        if merit < before:
            now.u = there
            return merit
        length *= _SHRINK
    return before
