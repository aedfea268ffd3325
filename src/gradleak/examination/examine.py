"""Attack observations whose private batches are at hand, and compare."""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Protocol

import torch
from torch import Tensor

from gradleak.attacks import Attack, Outcome, Reconstruction
from gradleak.attacks.matching import Matching
from gradleak.examination.findings import Finding, Findings
from gradleak.metrics import Scores, mean_picture, score
from gradleak.observe import Observation
from gradleak.randomness import spawn
from gradleak.references import cite


class Progress(Protocol):
    """Called now and then with the best candidate of each observation, and the share of the budget used."""

    def __call__(self, found: Sequence[Reconstruction], share: float) -> None: ...


Batch = tuple[Tensor, Tensor]
_nothing = (float("-inf"),) * 3


def examine(
    observations: Sequence[Observation],
    truths: Sequence[Batch],
    attack: Attack,
    *,
    title: str,
    rng: int = 0,
    reference: Tensor | None = None,
    names: Callable[[int], str] = lambda i: f"picture {i + 1}",
    progress: Progress | None = None,
) -> Findings:
    """Run ``attack`` on all observations together and hold each result against its truth.

    The truth is opened only after the attack has ended. ``reference`` holds public pictures for the
    null baseline, none of them private. Ctrl-C ends the attack; the best candidates so far are kept.
    """
    found, interrupted = _attack(observations, attack, rng, progress)
    findings: list[Finding] = []
    agreements: list[tuple[float, float]] = []
    for obs, (x, y), reconstruction in zip(observations, truths, found, strict=True):
        pixels = obs.domain.to_pixels(x.to(obs.like)).clamp(0, 1)
        scores = _scores(obs, pixels, y, reconstruction, reference)
        if scores is not None and scores.label_agreement is not None:
            agreements.append((scores.label_agreement, scores.null_label_agreement or 0.0))
        findings += _findings(obs, pixels, y, reconstruction, scores, reference, len(findings), names)
    label, null_label = zip(*agreements, strict=True) if agreements else ((), ())
    return Findings(
        title=title,
        model=f"{type(observations[0].model).__name__}, {_weights(observations[0]):,} parameters",
        attack=attack.name,
        assumptions=observations[0].knows,
        findings=tuple(findings),
        label_agreement=_mean(label),
        null_label_agreement=_mean(null_label),
        seed=rng,
        trials=max((one.cost.trials for one in found), default=0),
        versions={name: version(name) for name in ("gradleak", "torch", "numpy")},
        bibtex=cite(attack),
        interrupted=interrupted,
        null="mid-gray" if reference is None else f"the mean of {len(reference)} public pictures",
    )


def _attack(
    observations: Sequence[Observation], attack: Attack, rng: int, progress: Progress | None
) -> tuple[list[Reconstruction], bool]:
    found = [
        Reconstruction(Outcome.RUNNING, reason="stopped before the first candidate") for _ in observations
    ]
    budget = max(1, attack.budget * len(observations))
    try:
        for found in _candidates(attack, observations, rng):
            if progress is not None:
                progress(found, sum(one.cost.matching_gradients for one in found) / budget)
    except KeyboardInterrupt:
        return found, True
    return found, False


def _candidates(
    attack: Attack, observations: Sequence[Observation], rng: int
) -> Iterator[list[Reconstruction]]:
    """Together where the attack can do that, otherwise one observation after another."""
    # Clients that are known to have taken their records in unlike orders cannot be simulated as one.
    one_client = all(obs.client == observations[0].client for obs in observations)
    if isinstance(attack, Matching) and one_client:
        yield from attack.iterate_together(observations, rng=rng)
        return
    waiting = Reconstruction(Outcome.RUNNING, reason="not reached yet")
    found = [waiting] * len(observations)
    generators = spawn(rng, len(observations))
    for i, (obs, own) in enumerate(zip(observations, generators, strict=True)):
        for candidate in attack.iterate(obs, rng=own):
            found = [*found[:i], candidate, *found[i + 1 :]]
            yield found


def _scores(
    obs: Observation, pixels: Tensor, y: Tensor, found: Reconstruction, reference: Tensor | None
) -> Scores | None:
    if found.x is None:
        return None
    guess = _pixels(obs, found.x)
    hard = None if y.is_floating_point() else y.cpu()
    labels = None if found.y is None or hard is None else found.y.cpu()
    return score(
        guess.cpu(), labels, pixels.cpu(), hard, classes=obs.classes, reference=_like(reference, pixels)
    )


def _findings(
    obs: Observation,
    pixels: Tensor,
    y: Tensor,
    found: Reconstruction,
    scores: Scores | None,
    reference: Tensor | None,
    first: int,
    names: Callable[[int], str],
) -> list[Finding]:
    null = mean_picture(_like(reference, pixels), pixels.shape).cpu()
    guesses = None if found.x is None else _pixels(obs, found.x).cpu()
    made = []
    for i in range(obs.batch_size):
        j = None if scores is None else int(scores.pairing[i])
        psnr, null_psnr, random_psnr = (
            _nothing
            if scores is None
            else (float(values[i]) for values in (scores.psnr, scores.null_psnr, scores.random_psnr))
        )
        made.append(
            Finding(
                name=names(first + i),
                truth=pixels[i].cpu(),
                guess=None if guesses is None or j is None else guesses[j],
                null=null[i],
                psnr=psnr,
                null_psnr=null_psnr,
                random_psnr=random_psnr,
                ssim=None if scores is None or scores.ssim is None else float(scores.ssim[i]),
                null_ssim=None if scores is None or scores.null_ssim is None else float(scores.null_ssim[i]),
                label=None if y.is_floating_point() else int(y[i]),
                label_guess=None if found.y is None or j is None else int(found.y[j]),
                score=found.score,
                outcome=found.outcome.value,
                reason=found.reason,
                matching_gradients=found.cost.matching_gradients,
                seconds=found.cost.seconds,
            )
        )
    return made


def _pixels(obs: Observation, x: Tensor) -> Tensor:
    """What a person would look at: clamped, since no pixel lies outside [0, 1]."""
    return torch.nan_to_num(obs.domain.to_pixels(x), nan=0.5, posinf=1, neginf=0).clamp(0, 1)


def _like(reference: Tensor | None, pixels: Tensor) -> Tensor | None:
    return None if reference is None else reference.to(dtype=pixels.dtype, device="cpu")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _weights(obs: Observation) -> int:
    return sum(p.numel() for p in obs.params.values())
