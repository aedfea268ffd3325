"""SSRAS: look at the observation, try the surest attack first, and let the certificate decide."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from gradleak.attacks.base import Attack, Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.batch.attack import ExactBatch, Spear
from gradleak.attacks.closed_form.bias import Bias
from gradleak.attacks.closed_form.certificate import certify
from gradleak.attacks.closed_form.r_gap import RGAP
from gradleak.attacks.gdl import gdl
from gradleak.attacks.kinks import kinked
from gradleak.attacks.matching import Init, as_init
from gradleak.attacks.named import dlg, inverting_batches, inverting_gradients
from gradleak.attacks.posterior import map
from gradleak.attacks.posterior.merit import Posterior
from gradleak.labels import inferred
from gradleak.observe import LocalTraining, Observation
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.randomness import Rng, spawn


@dataclass(frozen=True)
class SSRAS:
    """Bias attack, exact batch, R-GAP, then optimisation started from whatever the closed forms left.

    After the router of the Sensors 2022 paper (doi 10.3390/s22197157), of which we could read the outline
    only: its three groups of attacks are kept, and where it consults its index RA-I, here the closed form
    is simply tried, since it takes no longer than tens of matching gradients, and its certificate is
    asked. Every decision is kept in the reconstruction.
    """

    evaluations: int = 4000
    trials: int = 1
    name: str = "ssras"
    citations: tuple[str, ...] = ("ssras", "bias", "r_gap", "dlg", "inverting_gradients", "spear", "gdl")

    @property
    def budget(self) -> int:
        return self.evaluations * self.trials

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        *_, last = self.iterate(obs, rng=rng)
        return last

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        decisions: list[str] = []
        best = Reconstruction(Outcome.NOT_APPLICABLE, reason="no attack could be run")
        spent = Cost()
        own = spawn(rng, len(_CLOSED) + 1)
        bare = _bare(obs)
        for attack, generator in zip(_CLOSED, own, strict=False):
            found = attack(bare, rng=generator)
            if bare is not obs:
                found = _explaining(obs, found)
            spent = _together(spent, found.cost)
            decisions.append(_decision(attack.name, found))
            best = min(best, found, key=_badness)
            if found.outcome is Outcome.CONVERGED:
                yield _told(found, decisions, spent)
                return
        # Optimisation gains from a start near the truth, and loses from one that is confidently wrong.
        start = best if best.x is not None and best.score <= _NEAR else None
        for fallback, why in self._optimisations(obs, start):
            decisions.append(f"optimisation by {fallback.name}, since {why}")
            for found in fallback.iterate(obs, rng=own[-1]):
                if found.outcome is Outcome.RUNNING:
                    yield _told(found, decisions, _together(spent, found.cost))
            spent = _together(spent, found.cost)
            # Attacks score in different units; what each leaves of the update is the same for all.
            ended = _certified(obs, found)
            decisions += [*found.decisions, _decision(fallback.name, ended)]
            best = min(best, ended, key=partial(_oddness, obs))
            applied = found.outcome is not Outcome.NOT_APPLICABLE
            if found.outcome is Outcome.CONVERGED or (applied and fallback.name != "map"):
                break
        if best.x is None:
            best = dataclasses.replace(best, reason=f"{best.reason}: {ended.reason or ended.outcome}")
        yield _told(best, decisions, spent)

    def _optimisations(self, obs: Observation, start: Reconstruction | None) -> Iterator[tuple[Attack, str]]:
        """What to try next, until one can be run; and why that."""
        begun = "from gray" if start is None else "from what the closed form left"
        init: Init = (
            as_init("gray") if start is None or start.x is None else as_init(obs.domain.to_pixels(start.x))
        )
        few = min(self.evaluations, 1000)
        rough = inverting_gradients(init=init, steps=max(few - 1, 1), trials=self.trials)
        if isinstance(obs.client, LocalTraining) and obs.plainest is obs:
            steps = max(min(few, 301) - 1, 1)
            yield gdl(steps=steps, trials=self.trials), "the update is local training's; it starts from gray"
            yield rough, f"nothing else could be run; it starts {begun}"
            return
        small = torch.Size(obs.x_shape).numel() <= _SMALL
        if isinstance(obs.client, Defended):
            yield map(steps=min(few, _STEPS)), "the update is defended; it starts from gray"
        elif small and (kinked(obs) or obs.batch_size > 1):
            why = "the network has kinks" if kinked(obs) else "the batch is small"
            yield map(steps=min(few, _STEPS)), f"{why}, and a matrix of all unknowns can be made"
        if not kinked(obs):
            smooth = dlg(labels=inferred(), init=init, evaluations=self.evaluations, trials=self.trials)
            yield smooth, f"the network is smooth; it starts {begun}"
            return
        if len(obs.x_shape) == 4:
            by_features = inverting_batches(evaluations=min(few, 500), trials=self.trials)
            yield by_features, "the network has kinks, and its head may show every record's features"
        yield rough, f"the network has kinks; it starts {begun}"


def _bare(obs: Observation) -> Observation:
    """The same update, taken for what the client would have sent without its defenses."""
    return (
        dataclasses.replace(obs, client=undefended(obs.client)) if isinstance(obs.client, Defended) else obs
    )


def _explaining(obs: Observation, found: Reconstruction) -> Reconstruction:
    """What the defended client would have sent for it decides, and not what a plain one would have."""
    if found.x is None or found.y is None:
        return found
    certificate = certify(obs, found.x, found.y)
    outcome = Outcome.CONVERGED if certificate.holds else Outcome.STALLED
    reason = "" if certificate.holds else "the defended client would have sent another update"
    return dataclasses.replace(found, outcome=outcome, score=certificate.score, reason=reason)


_CLOSED: tuple[Bias | ExactBatch | RGAP | Spear, ...] = (Bias(), ExactBatch(), RGAP(), Spear())


_STEPS = 30  # of Gauss-Newton: what has not come to rest by then hardly moves any more
_SMALL = 4096  # unknowns, of which Gauss-Newton makes a matrix
_NEAR = 0.05**2
"""Up to here what a closed form left is worth starting from: a twentieth of the update unexplained."""


def _certified(obs: Observation, found: Reconstruction) -> Reconstruction:
    if found.x is None or found.y is None or found.outcome is Outcome.DIVERGED:
        return found
    y = found.y if found.probabilities is None else found.probabilities
    certificate = certify(obs, found.x, y)
    explained = isinstance(obs.client, Defended) and certificate.holds
    outcome = Outcome.CONVERGED if explained else found.outcome
    return dataclasses.replace(found, outcome=outcome, score=certificate.score)


def _badness(found: Reconstruction) -> tuple[bool, float]:
    return (found.x is None, found.score)


def _oddness(obs: Observation, found: Reconstruction) -> tuple[bool, float]:
    """Of a blurred update, a picture that explains it to the last bit explains the noise."""
    if found.x is None or found.y is None or not isinstance(obs.client, Defended):
        return _badness(found)
    y = found.y if found.probabilities is None else found.probabilities
    return False, Posterior.of(obs, y).odd(found.x)


def _decision(name: str, found: Reconstruction) -> str:
    if found.outcome is Outcome.NOT_APPLICABLE:
        return f"{name}: not applicable, {found.reason}"
    said = [] if found.score == float("inf") else [f"{found.score**0.5:.1e} of the update unexplained"]
    return f"{name}: {found.outcome}, {'; '.join([*said, *([found.reason] if found.reason else [])])}"


def _told(found: Reconstruction, decisions: list[str], cost: Cost) -> Reconstruction:
    return dataclasses.replace(found, decisions=tuple(decisions), cost=cost)


def _together(a: Cost, b: Cost) -> Cost:
    return Cost(a.matching_gradients + b.matching_gradients, a.seconds + b.seconds, max(a.trials, b.trials))


def ssras(*, evaluations: int = 4000, trials: int = 1) -> SSRAS:
    """SSRAS: bias attack, exact batch, R-GAP, else optimisation; the certificate decides (Sensors 2022)."""
    return SSRAS(evaluations=evaluations, trials=trials)


def attack(obs: Observation, *, rng: Rng = 0) -> Reconstruction:
    """Just recover what can be recovered: the router with its defaults."""
    return ssras()(obs, rng=rng)
