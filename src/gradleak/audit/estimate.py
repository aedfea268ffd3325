"""What an audit takes at most, before it is run."""

from dataclasses import dataclass

from gradleak.attacks import inverting_gradients
from gradleak.cases.chain import expected
from gradleak.cases.texts import Texts
from gradleak.cases.work import Work
from gradleak.observe import observe
from gradleak.text import dlg_text

_FEW, _MORE = 1, 21  # steps, whose difference leaves out what an attack takes before it begins


@dataclass(frozen=True)
class Estimate:
    """``cases`` and ``matching_gradients`` if no attack ends early, and about how many seconds here."""

    cases: int
    matching_gradients: int
    seconds: float


def estimate(work: Work) -> Estimate:
    """A few matching gradients are timed for each way of training, and nothing is attacked in earnest."""
    counts = {way: _matching_gradients(work, way) for way in work.ways}
    seconds = sum(count * _seconds_of_one(work, way) for way, count in counts.items())
    return Estimate(expected(work), sum(counts.values()), seconds)


def _matching_gradients(work: Work, way: str) -> int:
    each = sum(attack.budget for attack in work.attacks.values())
    skipped = work.skipped(way)
    groups = sum(work.groups(rung) for rung in work.rungs if rung not in skipped)
    return groups * len(work.attackers(way)) * work.starts * each


def _seconds_of_one(work: Work, way: str) -> float:
    x, y = work.batches[0]
    seen = observe(
        work.model.to(work.device),
        x.to(work.device),
        y.to(work.device),
        client=work.ways[way],
        loss=work.loss,
        normalization=work.kind.normalization,
        rng=work.seed,
    )
    if isinstance(work.kind, Texts):
        cost = dlg_text(evaluations=_MORE, rounds=1, polish=0)(seen, rng=work.seed).cost
        return cost.seconds / max(cost.matching_gradients, 1)
    _, few, more = (
        inverting_gradients(steps=steps)(seen, rng=work.seed).cost for steps in (_FEW, _FEW, _MORE)
    )  # what runs first runs cold
    steps = more.matching_gradients - few.matching_gradients
    if more.seconds <= few.seconds or not steps:
        return more.seconds / max(more.matching_gradients, 1)
    return (more.seconds - few.seconds) / steps
