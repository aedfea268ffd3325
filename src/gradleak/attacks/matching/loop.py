"""The one loop: every attack that matches updates is a choice of parts, and runs here."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Outcome, Reconstruction
from gradleak.attacks.matching.candidate import Informed, Prior
from gradleak.attacks.matching.consensus import Consensus
from gradleak.attacks.matching.inits import Gaussian, Init, LabelledInit
from gradleak.attacks.matching.layout import Parts
from gradleak.attacks.matching.objectives import Objective, SquaredError
from gradleak.attacks.matching.optimizers import LBFGS, Optimizer, Space
from gradleak.attacks.matching.optimizers.base import is_count, is_number
from gradleak.attacks.matching.problem import Problem, unknowns_of
from gradleak.attacks.matching.trial import Trial, best_of, settled_mismatch
from gradleak.errors import GradleakError, InvalidInput, InvalidModel, MissingInformation
from gradleak.labels import LabelStrategy, Unanswerable, inferred
from gradleak.observe import Observation
from gradleak.observe.task import attention_by_formula, noise_batch
from gradleak.randomness import Rng, generator, spawn
from gradleak.threads import few_threads


@dataclass(frozen=True)
class Matching:
    """Make a dummy batch's update match the observed one.

    ``trials`` starts are solved together and the best one is returned, by the objective with its
    priors. ``evaluations`` bounds the matching gradients of one trial. A trial has converged when its
    mismatch is at most ``tolerance``; the other trials of its record are then spared. With a
    ``consensus`` the trials of a record help each other, instead of being so many attempts. ``double``
    computes in float64 whatever the model's dtype, and a dtype shorter than float32 always does; the
    result is handed back in the model's.
    """

    name: str
    labels: LabelStrategy = field(default_factory=inferred)
    objective: Objective = field(default_factory=SquaredError)
    priors: tuple[Prior, ...] = ()
    init: Init = field(default_factory=Gaussian)
    optimizer: Optimizer = field(default_factory=LBFGS)
    box: bool = False
    trials: int = 1
    evaluations: int = 4000
    tolerance: float = 1e-9
    double: bool = False
    report_every: int = 20
    references: tuple[str, ...] = ()
    consensus: Consensus | None = None

    def __post_init__(self) -> None:
        counts = (self.trials, self.evaluations, self.report_every)
        if not all(map(is_count, counts)) or not is_number(self.tolerance) or not self.tolerance >= 0:
            raise InvalidInput(
                "expected trials, evaluations and report_every as whole numbers of 1 or more and a tolerance "
                f"of 0 or more; came {', '.join(map(repr, counts))} and {self.tolerance!r}"
            )
        parts = {"labels": self.labels, "objective": self.objective, "init": self.init}
        for name, part in (*parts.items(), *(("priors", prior) for prior in self.priors)):
            if not callable(part):
                raise InvalidInput(f"expected a function as {name}, such as gradleak has; came {part!r}")
        if self.consensus is not None and isinstance(self.optimizer, LBFGS):
            raise InvalidInput(
                "L-BFGS remembers an objective that a consensus changes on the way; use Adam, or no consensus"
            )
        if self.box and isinstance(self.optimizer, LBFGS):
            raise InvalidInput("L-BFGS cannot project into the box; use the Box prior, or Adam")

    @property
    def budget(self) -> int:
        return self.evaluations * self.trials

    @property
    def terms(self) -> tuple[Prior, ...]:
        """All that is added to the mismatch."""
        return self.priors if self.consensus is None else (*self.priors, self.consensus)

    @property
    def citations(self) -> tuple[str, ...]:
        parts = (self.labels, self.objective, *self.terms, self.init, self.optimizer)
        keys = (*self.references, *(key for part in parts for key in getattr(part, "citations", ())))
        return tuple(dict.fromkeys(keys))

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        return self.together([obs], rng=rng)[0]

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        """The best candidate so far, every ``report_every`` rounds and at the end: stop when you like."""
        return (found for (found,) in self.iterate_together([obs], rng=rng))

    def together(self, records: Sequence[Observation], *, rng: Rng = 0) -> list[Reconstruction]:
        """Many records of one kind, in the same breath: faster than one by one, as ``make bench`` measures.

        Record i gets what ``attack(records[i], rng=spawn(rng, len(records))[i])`` gets, to rounding.
        """
        *_, last = self.iterate_together(records, rng=rng)
        return last

    @torch.inference_mode(False)
    @torch.enable_grad()  # as decorators, which leave the caller's own mode alone between two candidates
    def iterate_together(
        self, records: Sequence[Observation], *, rng: Rng = 0
    ) -> Iterator[list[Reconstruction]]:
        candidates = self._candidates(records, rng)
        weights = sum(p.numel() for obs in records[:1] for p in obs.params.values())
        device = records[0].like.device if records else torch.device("cpu")
        while True:
            with attention_by_formula(), few_threads(weights, device):
                found = next(candidates, None)
            if found is None:
                return
            yield found

    def _candidates(self, records: Sequence[Observation], rng: Rng) -> Iterator[list[Reconstruction]]:
        clock = time.perf_counter()
        dtypes = [obs.like.dtype for obs in records]
        records = [obs.to(torch.float64) if self.double or _is_short(obs.like) else obs for obs in records]
        groups, reasons = _prepare(self, records, rng)
        running = groups
        for rounds in range(1, self.evaluations + 1):
            if self.consensus is not None and self.consensus.due(rounds, self.evaluations):
                for problem, trials in running:
                    _agree(self.consensus, problem, trials)
            running = [
                (problem, trials) for problem, trials in running if _round(self, problem, trials, dtypes)
            ]
            if not running:
                break
            if rounds % self.report_every == 0:
                yield _candidates(groups, reasons, dtypes, time.perf_counter() - clock)
        for _, trials in groups:
            for trial in trials:
                trial.end(Outcome.BUDGET)
        yield _candidates(groups, reasons, dtypes, time.perf_counter() - clock)


def _is_short(like: Tensor) -> bool:
    # In 16 bits, a wrong batch explains the update as well as the right one.
    return torch.finfo(like.dtype).bits < 32


Group = tuple[Problem, list[Trial]]


def _prepare(
    attack: Matching, records: Sequence[Observation], rng: Rng
) -> tuple[list[Group], list[str | None]]:
    """Trials with settled labels and with labels to learn, or with different evidence, are groups apart."""
    generators = [generator(rng)] if len(records) == 1 else spawn(rng, len(records))
    trials: list[Trial] = []
    reasons: list[str | None] = []
    for i, (obs, own) in enumerate(zip(records, generators, strict=True)):
        made = [_trial(attack, i, obs, trial_rng) for trial_rng in spawn(own, attack.trials)]
        reasons.append(next((t for t in made if isinstance(t, str)), None))
        trials += [t for t in made if isinstance(t, Trial)]
    kinds: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        kinds.setdefault(trial.kind, []).append(trial)
    groups = [(_problem(attack, records, kind), kind) for kind in kinds.values()]
    for problem, kind in groups:
        space = Space(problem.layout.pixels, problem.clamp if attack.box else None, problem.layout.x_shape)
        for trial in kind:
            trial.begin(attack.optimizer, space)
    return groups, reasons


def _trial(attack: Matching, record: int, obs: Observation, rng: Generator) -> Trial | str:
    if not any(bool(leaf.any()) for leaf in obs.update.values()):
        return "the update is zero everywhere, so every batch explains it as well as any other"
    guess = attack.labels(obs, rng=rng)
    if isinstance(guess, Unanswerable):
        return guess.reason
    init = attack.init.knowing(guess) if isinstance(attack.init, LabelledInit) else attack.init
    pixels = init(obs.x_shape, rng)
    if not isinstance(pixels, Tensor) or pixels.shape != obs.x_shape:
        came = f"shape {list(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
        raise InvalidInput(f"expected a start of shape {list(obs.x_shape)} from the init; came {came}")
    evidence = [term.gather(obs, guess, rng) if isinstance(term, Informed) else {} for term in attack.terms]
    for one in evidence:
        if isinstance(one, Unanswerable):
            return one.reason
    start = Parts(obs.domain.from_pixels(pixels.to(obs.like)), guess.logits, unknowns_of(obs, rng))
    return Trial(record, start, guess, rng, tuple(e for e in evidence if not isinstance(e, Unanswerable)))


def _problem(attack: Matching, records: Sequence[Observation], trials: list[Trial]) -> Problem:
    settled = [t.guess.y for t in trials if t.guess.y is not None]
    y = torch.stack(settled) if settled else None
    return Problem(
        records,
        tuple(t.record for t in trials),
        y,
        attack.objective,
        attack.terms,
        tuple(t.evidence for t in trials),
    )


def _agree(consensus: Consensus, problem: Problem, trials: list[Trial]) -> None:
    """New anchors for all records of which more than one trial has finite pictures."""
    for record in {trial.record for trial in trials}:
        group = [t for t in trials if t.record == record and bool(torch.isfinite(t.question).all())]
        if len(group) < 2:
            continue
        parts = [problem.layout.unpack(trial.question) for trial in group]
        labels = [
            one.logits.argmax(-1) if one.logits is not None else trial.guess.y
            for one, trial in zip(parts, group, strict=True)
        ]
        y = torch.stack([one for one in labels if one is not None])
        best = min(range(len(group)), key=lambda i: group[i].best_value)
        anchors = consensus.anchors(torch.stack([one.x for one in parts]), y, best)
        for trial, anchor in zip(group, anchors, strict=True):
            trial.anchor = anchor
            trial.forget()


def _anchors(problem: Problem, trials: list[Trial]) -> Tensor | None:
    """A trial without a consensus is its own anchor, which neither adds nor pulls."""
    if all(trial.anchor is None for trial in trials):
        return None
    own = (problem.layout.unpack(trial.question).x for trial in trials)
    return torch.stack(
        [x if trial.anchor is None else trial.anchor for x, trial in zip(own, trials, strict=True)]
    )


def _round(attack: Matching, problem: Problem, trials: list[Trial], dtypes: list[torch.dtype]) -> bool:
    """Answer the question of every running trial once. Says whether any is left."""
    active = [t for t, trial in enumerate(trials) if trial.outcome is Outcome.RUNNING]
    if not active:
        return False
    points = torch.stack([trials[t].question for t in active])
    progress = points.new_tensor([trials[t].spent / attack.evaluations for t in active])
    try:
        anchors = _anchors(problem, [trials[t] for t in active])
        values, mismatches, gradients = problem.evaluate(points, active, progress, anchors)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _explained(error, problem, dtypes[trials[0].record]) from error
    for t, value, mismatch, gradient in zip(
        active, values.tolist(), mismatches.tolist(), gradients, strict=True
    ):
        improved = trials[t].answer(value, mismatch, gradient)
        if improved and mismatch <= attack.tolerance and _stands(attack, problem, trials[t]):
            trials[t].end(Outcome.CONVERGED)
    explained = {trial.record for trial in trials if trial.outcome is Outcome.CONVERGED}
    for trial in trials:
        if trial.record in explained:
            trial.end(Outcome.SPARED)
    return any(trial.outcome is Outcome.RUNNING for trial in trials)


def _stands(attack: Matching, problem: Problem, trial: Trial) -> bool:
    """Whether a match outlives the settling of an open client, which may be relaxed on the way."""
    if problem.layout.unknowns is None:
        return True
    return settled_mismatch(problem, trial) <= attack.tolerance


def _explained(error: RuntimeError, problem: Problem, dtype: torch.dtype) -> GradleakError:
    """Who is to blame: a model that takes no other dtype than its own, or else the labels."""
    failed = f"the client that the attacker assumes could not be simulated: {error}."
    obs = problem.first
    try:
        with torch.no_grad():
            problem.task.forward(obs.params, noise_batch(obs.like, obs.x_shape))
    except RuntimeError:
        remedy = "" if _is_short(torch.empty(0, dtype=dtype)) else ", or pass double=False"
        return InvalidModel(
            f"{failed} The attack computes in {obs.like.dtype}, and the model was made in {dtype}. Expected "
            f"a forward that fixes no dtype, as x.float() and torch.zeros(...) do{remedy}."
        )
    return MissingInformation(
        f"{failed} Expected a loss that takes what the label strategy gives: class indices, or "
        "probabilities where labels are learnt; and layers that can be differentiated twice."
    )


def _candidates(
    groups: list[Group], reasons: list[str | None], dtypes: list[torch.dtype], seconds: float
) -> list[Reconstruction]:
    spent = sum(trial.spent for _, trials in groups for trial in trials)
    found = []
    for record, (reason, dtype) in enumerate(zip(reasons, dtypes, strict=True)):
        if reason is not None:
            found.append(Reconstruction(Outcome.NOT_APPLICABLE, reason=reason))
            continue
        mine = [(problem, t) for problem, trials in groups for t in trials if t.record == record]
        share = sum(t.spent for _, t in mine) / max(spent, 1)
        found.append(best_of(mine, seconds * share, dtype))
    return found
