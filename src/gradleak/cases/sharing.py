"""Trials are solved together as far as memory allows, and in smaller parts where it does not."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gradleak.attacks import Attack
from gradleak.examination import Findings, Progress, examine
from gradleak.observe import Observation
from gradleak.randomness import generator

Batch = tuple[Tensor, Tensor]
_SEEDS = 2**31


def run_within_memory(
    seen: Observation,
    truth: Batch,
    attack: Attack,
    *,
    rng: int,
    reference: Tensor | None,
    names: Callable[[int], str],
    progress: Progress | None,
) -> tuple[Findings, str]:
    """What ``examine`` finds, and a sentence where the trials had to be shared out.

    Half of the trials at a time, then a quarter, and so on. The best part counts, as the attacker sees it.
    """
    trials, together = _trials(attack), _trials(attack)
    while True:
        try:
            found = [
                examine(
                    [seen],
                    [truth],
                    part,
                    title="",
                    rng=seed,
                    reference=reference,
                    names=names,
                    progress=progress,
                )
                for part, seed in _parts(attack, trials, together, rng)
            ]
            break
        except (MemoryError, RuntimeError) as error:
            if together < 2 or not _is_shortage(error):
                raise
        together //= 2
        torch.cuda.empty_cache()
    best = min(found, key=lambda one: one.findings[0].score)
    if len(found) == 1:
        return best, ""
    spent = _spent(best, found)
    return spent, f"memory held {together} of {trials} trials at a time, so they ran in {len(found)} parts"


def _trials(attack: Attack) -> int:
    """As many as can be shared out: one where the attack's number of trials is no field of it."""
    names: set[str] = {field.name for field in fields(attack)} if is_dataclass(attack) else set()
    return int(attack.trials) if "trials" in names else 1  # type: ignore[attr-defined]


def _parts(attack: Attack, trials: int, together: int, rng: int) -> list[tuple[Attack, int]]:
    """The attack itself where all trials fit; else one for each part, with a seed of its own."""
    if together == trials:
        return [(attack, rng)]
    sizes = [together] * (trials // together) + ([trials % together] if trials % together else [])
    drawn = torch.randint(_SEEDS, (len(sizes),), generator=generator(rng)).tolist()
    change: Any = replace
    return [(change(attack, trials=size), seed) for size, seed in zip(sizes, drawn, strict=True)]


def _is_shortage(error: BaseException) -> bool:
    """Whether memory ran out; on the CPU torch says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error) or "not enough memory" in str(error)


def _spent(best: Findings, found: list[Findings]) -> Findings:
    """The best part, with the cost of all."""
    gradients = sum(one.findings[0].matching_gradients for one in found)
    seconds = sum(one.findings[0].seconds for one in found)
    return replace(
        best,
        findings=tuple(replace(one, matching_gradients=gradients, seconds=seconds) for one in best.findings),
        trials=sum(one.trials for one in found),
        interrupted=any(one.interrupted for one in found),
    )
