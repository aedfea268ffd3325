"""Each record's own features as its target, in a batch whose gradient is one sum."""

from dataclasses import dataclass, field

from torch import Generator, Tensor

from gradleak.attacks.closed_form.batch.head import Search
from gradleak.attacks.matching.candidate import Candidate
from gradleak.attacks.matching.last_layers import last_inputs, last_layers, rows_and_inputs
from gradleak.attacks.matching.optimizers.base import is_number
from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe import Observation
from gradleak.trees import Tree

_FEATURES, _DELTAS, _ROWS = "features", "deltas of ", "rows"


@dataclass(frozen=True)
class Features:
    """weight · (mean over the records of ‖h(x) − h*‖² / ‖h*‖² + rows · ‖G(x) − G*‖² / ‖G*‖²).

    h* are the inputs of the last layer, exact and in the order of the labels. G is the gradient of the
    layer before it, computed with the deltas that h* implies instead of those of the candidate: it follows
    the pictures without jumps, where the whole gradient jumps with every unit that falls asleep. Where the
    features are not simply the ReLU of that layer, as under pooling, there is no such term.

    Not ``required``: where the head cannot be solved, the attack goes on without.
    """

    weight: float
    rows: float = 0.1
    required: bool = True
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        weights = (self.weight, self.rows)
        if not all(map(is_number, weights)) or not self.weight > 0 or not self.rows >= 0:
            raise InvalidInput(f"expected a weight above 0 and rows of 0 or more; came {weights}")

    def gather(self, obs: Observation, guess: LabelGuess, rng: Generator) -> Tree | Unanswerable:
        found = last_layers(obs, guess.y, self.search, rng)
        if isinstance(found, Unanswerable):
            return found if self.required else {}
        mine = found.in_order_of(guess.y)
        evidence = {_FEATURES: mine.features.to(obs.like)}
        if self.rows and mine.before is not None:
            evidence[_DELTAS + mine.before] = (mine.deltas * mine.awake).to(obs.like)
            evidence[_ROWS] = obs.update[f"{mine.before}.weight"]
        return evidence

    def __call__(self, candidate: Candidate) -> Tensor:
        known, task, params, x = candidate.evidence, candidate.task, candidate.params, candidate.x
        if _FEATURES not in known:
            return x.new_zeros(())
        deltas = next((name for name in known if name.startswith(_DELTAS)), None)
        if deltas is None:
            return self.weight * _apart(last_inputs(task, params, x), known[_FEATURES], 1).mean()
        rows, inputs = rows_and_inputs(task, params, x, deltas.removeprefix(_DELTAS), known[deltas])
        apart = _apart(rows.flatten(), known[_ROWS].flatten(), 0)
        return self.weight * (_apart(inputs, known[_FEATURES], 1).mean() + self.rows * apart)


def _apart(found: Tensor, wanted: Tensor, dim: int) -> Tensor:
    return (found - wanted).square().sum(dim) / wanted.square().sum(dim).clamp(min=1e-30)
