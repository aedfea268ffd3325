"""R-GAP: one record's data by one pass of linear solves down the network (Zhu and Blaschko 2021)."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.certificate import certify
from gradleak.attacks.closed_form.head import HeadGuess
from gradleak.attacks.closed_form.recursion import Descent, descend, readings, split_head
from gradleak.errors import MissingInformation, UnsupportedLayer
from gradleak.layers import Layer, chain
from gradleak.observe import Domain, Observation, OneGradient, cross_entropy, logistic
from gradleak.randomness import Rng


@dataclass(frozen=True)
class RGAP:
    """The paper's recursion, with the structure that its code ignores.

    A convolution's gradient equations are the same for each input channel and are solved once for all of
    them, known zeros are dropped, rows are balanced, and all of it runs in float64. ``tolerance`` is
    that of the iterative solves. Which of a bias-free head's readings is meant, the certificate decides,
    and where two explain the update alike, the range of pixels, as the paper has it.
    """

    tolerance: float = 1e-7
    name: str = "r_gap"
    citations: tuple[str, ...] = ("r_gap",)

    @property
    def budget(self) -> int:
        return 4  # one simulated update for each reading of the head

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        clock = time.perf_counter()
        obs = obs.plainest
        reason = _refusal(obs)
        if reason is not None:
            return Reconstruction(Outcome.NOT_APPLICABLE, reason=reason)
        try:
            body, head = split_head(chain(obs))
            guesses = readings(obs, head)
            answers, tried = self._answers(obs, body, head, guesses)
        except (UnsupportedLayer, MissingInformation) as error:
            return Reconstruction(Outcome.NOT_APPLICABLE, reason=str(error))
        cost = Cost(len(answers), time.perf_counter() - clock, tried)
        return dataclasses.replace(_judged(answers, alone=len(guesses) == 1), cost=cost)

    def _answers(
        self, obs: Observation, body: list[Layer], head: Layer, guesses: list[HeadGuess]
    ) -> tuple[list["Answer"], int]:
        """Each reading carried down to a picture, but for those that cannot be meant any more."""
        answers: list[Answer] = []
        tried = 0
        for guess in guesses:
            if any(answer.rules_out(guess) for answer in answers):
                continue
            tried += 1
            down = descend(body, head, guess, tolerance=self.tolerance)
            if down is not None:
                answers.append(_answer(obs, down, guess))
        return answers, tried


@dataclass(frozen=True, eq=False)
class Answer:
    """A picture, how much of the update it explains, and how far it leaves the range of pixels."""

    guess: HeadGuess
    found: Reconstruction
    excess: float  # the furthest distance of a pixel from [0, 1]
    brightest: float  # the largest pixel
    domain: Domain

    @property
    def fits(self) -> bool:
        return self.found.outcome is Outcome.CONVERGED and self.excess <= _RANGE

    def rules_out(self, other: HeadGuess) -> bool:
        """Without biases a network's gradients do not change when the picture is scaled and the head is
        read at its other root, so both would explain the update; and where it is odd, so would the
        negative. Only the range of pixels can tell: a reading whose picture would leave it is not meant.
        """
        if not self.fits or self.found.x is None:
            return False
        scale = float(other.features.norm() / self.guess.features.norm())
        sign = 1.0 if float(other.features @ self.guess.features) > 0 else -1.0
        return excess(self.domain.to_pixels(sign * scale * self.found.x.double())) > _RANGE


def excess(pixels: Tensor) -> float:
    """How far the furthest pixel lies outside [0, 1]."""
    return float((pixels - pixels.clamp(0, 1)).abs().max())


_RANGE = 0.02
_NO_SOLUTION = (
    "no layer-by-layer solution exists: the equations contradict each other, as they do for a batch, a "
    "defended update, or another client than the assumed one"
)


def _judged(answers: list[Answer], *, alone: bool) -> Reconstruction:
    """The answer that is left, and whether it is the only one."""
    if not answers:
        return Reconstruction(Outcome.STALLED, reason=_NO_SOLUTION)
    if alone:
        return answers[0].found
    fitting = [answer for answer in answers if answer.fits]
    if len(fitting) == 1:
        return fitting[0].found
    if fitting:
        best = max(fitting, key=lambda answer: answer.brightest)
        others = ", ".join(
            f"{answer.brightest / best.brightest:.2f}" for answer in fitting if answer is not best
        )
        reason = f"other pictures explain the update as well, {others} times as bright; this is the brightest"
        return dataclasses.replace(best.found, outcome=Outcome.STALLED, reason=reason)
    best = min(answers, key=lambda answer: (answer.found.outcome is not Outcome.CONVERGED, answer.excess))
    if best.found.outcome is not Outcome.CONVERGED:
        return min(answers, key=lambda answer: answer.found.score).found
    reason = f"the picture explains the update, and leaves the range of pixels by {best.excess:.2g}"
    return dataclasses.replace(best.found, outcome=Outcome.STALLED, reason=reason)


def _refusal(obs: Observation) -> str | None:
    if type(obs.client) is not OneGradient:
        return f"the equations are those of one gradient; the assumed client is {obs.client!r}"
    if obs.batch_size != 1:
        return f"the recursion takes one record apart, and this batch holds {obs.batch_size}"
    if obs.loss is not cross_entropy and obs.loss is not logistic:
        return f"the head is solved for cross entropy and the logistic loss, not for {obs.loss!r}"
    return None


def _answer(obs: Observation, down: Descent, guess: HeadGuess) -> Answer:
    x = down.x.reshape(obs.x_shape)
    y = torch.tensor([down.y], device=obs.like.device)
    certificate = certify(obs, x, y)
    lost = f" ({down.lost})" if down.lost else ""
    reason = (
        f"the recovered picture leaves {certificate.residual:.1e} of the update unexplained, and "
        f"{certificate.worst:.1e} of its worst explained parameter{lost}"
    )
    whole = certificate.holds and not down.lost
    found = Reconstruction(
        Outcome.CONVERGED if whole else Outcome.STALLED,
        x=x.to(obs.like),
        y=y,
        score=certificate.score,
        reason="" if whole else reason,
    )
    pixels = obs.domain.to_pixels(x)
    return Answer(guess, found, excess(pixels), float(pixels.max()), obs.domain)


def r_gap(*, tolerance: float = 1e-7) -> RGAP:
    """R-GAP: layer by layer from the head to the picture, in closed form (Zhu and Blaschko 2021)."""
    return RGAP(tolerance=tolerance)
