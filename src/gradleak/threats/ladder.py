"""One attack on every rung, and where the leak ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradleak.attacks import Attack, gdl
from gradleak.errors import GradleakError, InvalidBatch, InvalidInput
from gradleak.examination import Findings, Progress, examine
from gradleak.examination.findings import decibels
from gradleak.observe import Client, OneGradient, Summed
from gradleak.randomness import Rng
from gradleak.threats.rungs import RUNGS, Batch, Rung, Setting, guess_at

Told = Callable[[str, int, int], Progress | None]
"""Told which rung is being attacked, its number and how many there are; may hand back a progress."""


@dataclass(frozen=True, eq=False)
class Step:
    """A rung with what was found on it, or why it was left out: ``same``, since the one above says it all."""

    rung: Rung
    findings: Findings | None
    skipped: str = ""
    same: bool = False

    @property
    def left_out(self) -> str:
        """Why nothing was attacked here, in words."""
        return f"{'as above' if self.same else 'not tried'}: {self.skipped}"

    @property
    def leaked(self) -> int:
        return 0 if self.findings is None else self.findings.leaked

    @property
    def answered(self) -> bool:
        """Whether the attack came to a guess at all."""
        return self.findings is not None and bool(self.findings.scored)

    def to_dict(self) -> dict[str, Any]:
        found = None if self.findings is None else self.findings.to_dict()
        return {
            "rung": self.rung.name,
            "lost": self.rung.lost,
            "skipped": self.skipped,
            "same": self.same,
            "findings": found,
        }


@dataclass(frozen=True, eq=False)
class Ladder:
    """The same attack with a server that knows less and less."""

    title: str
    attack: str
    steps: tuple[Step, ...]
    stopped: bool = False

    @property
    def tried(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.findings is not None)

    @property
    def lowest(self) -> Step | None:
        """The least that a server must know: the last rung on which a picture leaks."""
        leaking = [step for step in self.tried if step.answered and step.leaked]
        return leaking[-1] if leaking else None

    @property
    def interrupted(self) -> bool:
        return self.stopped or any(step.findings.interrupted for step in self.tried if step.findings)

    @property
    def verdict(self) -> str:
        """One sentence: on which rung the leak stands, or that there is none."""
        tried, lowest = self.tried, self.lowest
        early = " The run was stopped early." if self.interrupted else ""
        answered = [step for step in tried if step.answered]
        if not answered:
            return f"{self.attack} gave no answer on any rung, which says nothing about a leak.{early}"
        if lowest is None:
            silent = len(tried) - len(answered)
            unsaid = f"; on {silent} it gave no answer, which says nothing" if silent else ""
            return (
                f"No picture leaks to {self.attack} on {len(answered)} of {len(tried)} rungs{unsaid}.{early}"
            )
        where = f"'{lowest.rung.name}', rung {1 + self.steps.index(lowest)} of {len(self.steps)}"
        pictures = 0 if lowest.findings is None else len(lowest.findings.findings)
        leaked = f"{lowest.leaked} of {pictures} there"
        head = f"The last rung on which pictures leak to {self.attack} is {where}: {leaked}"
        below = answered[answered.index(lowest) + 1 :]
        if below:
            return f"{head}. From '{below[0].rung.name}' on, none does.{early}"
        if lowest is not tried[-1]:
            return f"{head}. Below, {self.attack} gave no answer, which says nothing.{early}"
        if lowest.rung is RUNGS[-1]:
            return f"{head}, which is what a production server sees."
        return f"{head}, the last that was tried.{early}"

    def rows(self) -> list[dict[str, str]]:
        """For a table: a line per rung."""
        return [_row(number, step) for number, step in enumerate(self.steps, 1)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "attack": self.attack,
            "verdict": self.verdict,
            "lowest": None if self.lowest is None else self.lowest.rung.name,
            "interrupted": self.interrupted,
            "steps": [step.to_dict() for step in self.steps],
        }


def ladder(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    attack: Attack | None = None,
    client: Client | None = None,
    guessed: Client | None = None,
    together: int = 2,
    rungs: Sequence[Rung] = RUNGS,
    reference: Tensor | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    title: str = "The threat ladder",
    rng: Rng = 0,
    tell: Told | None = None,
) -> Ladder:
    """Attack ``batches``, each one client's, with a server that knows everything, then less and less.

    ``client`` is what really trains, and ``guessed`` what the server takes it for once it is not told:
    half the rate and one epoch more, unless said. ``together`` clients are summed on the last rung.
    ``reference`` holds public pictures for the null. Ctrl-C ends the rung and the ladder, and keeps what
    was found.
    """
    _check_batches(batches)
    if not rungs or not all(isinstance(rung, Rung) for rung in rungs):
        raise InvalidInput(f"expected rungs, such as gl.threats.RUNGS; came {rungs!r}")
    if isinstance(client, Summed):
        raise InvalidInput("expected what one client does; the ladder sums clients itself, by together=...")
    if attack is not None and not hasattr(attack, "iterate"):
        raise InvalidInput(f"expected an attack, such as gl.attacks.gdl(); came {attack!r}")
    if not isinstance(together, int) or together < 2:
        raise InvalidInput(f"expected two clients or more to be summed together; came {together!r}")
    if not isinstance(rng, int):
        raise InvalidInput("expected a seed, since every rung starts from it anew; came a generator")
    run = client or OneGradient()
    setting = Setting(model, batches, run, guessed or guess_at(run), together, normalization, rng)
    chosen = attack or gdl()
    steps: list[Step] = []
    stopped = False
    for number, rung in enumerate(rungs, 1):
        if stopped:
            steps.append(Step(rung, None, "the run was stopped before"))
            continue
        skipped = rung.skipped(setting)
        if skipped:
            steps.append(Step(rung, None, skipped, same=rung.same))
            continue
        progress = None if tell is None else tell(rung.name, number, len(rungs))
        try:
            observations, truths = zip(*rung.observations(setting), strict=True)
            findings = examine(
                observations,
                truths,
                chosen,
                title=f"{title}: {rung.name}",
                rng=rng,
                reference=reference,
                progress=progress,
            )
            steps.append(Step(rung, findings))
            stopped = findings.interrupted
        except KeyboardInterrupt:
            steps.append(Step(rung, None, "the run was stopped here"))
            stopped = True
        except GradleakError as error:
            if not steps:
                raise  # nothing is lost, and the input is likely at fault
            steps.append(Step(rung, None, f"it could not be tried: {error}"))
    return Ladder(title, chosen.name, tuple(steps), stopped)


def _check_batches(batches: Any) -> None:
    if not isinstance(batches, list | tuple) or not batches:
        came = "none" if isinstance(batches, list | tuple) else type(batches).__name__
        raise InvalidBatch(f"expected at least one batch (x, y) in a list; came {came}")
    for batch in batches:
        pair = isinstance(batch, list | tuple) and len(batch) == 2
        if not pair or not all(isinstance(one, Tensor) for one in batch):
            raise InvalidBatch(f"expected every batch as two tensors (x, y); came {type(batch).__name__}")
    shapes = {tuple(x.shape) for x, _ in batches}
    if len(shapes) > 1:
        raise InvalidBatch(
            f"expected batches of one shape, since clients are summed in equal shares; came {sorted(shapes)}"
        )


def _row(number: int, step: Step) -> dict[str, str]:
    found = step.findings
    row = {"rung": f"{number} {step.rung.name}", "the server no longer knows": step.rung.lost}
    if found is None:
        return row | {"leaked": "", "recovered": "", "null": "", "labels": "", "note": step.left_out}
    labels = "-" if found.label_agreement is None else f"{found.label_agreement:.0%}"
    chance = "" if found.null_label_agreement is None else f" ({found.null_label_agreement:.0%})"
    return row | {
        "leaked": f"{found.leaked} of {len(found.findings)}",
        "recovered": decibels(found.median_psnr),
        "null": decibels(found.median_null_psnr),
        "labels": labels + chance,
        "note": next((f.reason for f in found.findings if f.reason), ""),
    }
