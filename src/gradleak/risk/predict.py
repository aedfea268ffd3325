"""What a client's update would give away of a batch, pictures and labels, and why: without an attack."""

import time
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from torch import Tensor, nn

from gradleak.defenses import GaussianNoise
from gradleak.errors import GradleakError, InvalidInput
from gradleak.labels import LabelGuess, best
from gradleak.observe import Client, Loss, Observation, OneGradient, observe
from gradleak.observe.uncertainty import weights
from gradleak.randomness import Rng, generator
from gradleak.risk.decibels import Decibels, decibels
from gradleak.risk.rank import RankReport, rank
from gradleak.trees import flatten, scale

EXACT = 45.0
"""Decibels from which a picture counts as recoverable exactly: the eye sees no difference."""
LEAK = 6.0
"""Decibels above a guess without the update from which something is recoverable: a quarter of its error."""
_DENSE = 1100  # unknowns: up to here a dense matrix takes a second
_LONG = 8  # local steps, beyond which the update is taken for its mean gradient


@dataclass(frozen=True)
class Exposed:
    """One sample: how near the strongest attacker we know would come, and whether its label is read off.

    ``label_read``: whether the multiset of labels that the update gives away holds this one.
    """

    verdict: str
    psnr: float
    null_psnr: float
    label_read: bool | None
    reasons: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        return self.psnr - self.null_psnr >= LEAK


@dataclass(frozen=True, eq=False)
class Forecast:
    """A verdict per sample, and what it rests on.

    ``risk`` is the prediction in decibels, ``layers`` the rank analysis where the model is one it can read,
    and ``guess`` the labels that the update gives away.
    """

    samples: tuple[Exposed, ...]
    risk: Decibels
    layers: RankReport | None
    guess: LabelGuess | None
    client: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> int:
        return sum(sample.leaks for sample in self.samples)

    @property
    def verdict(self) -> str:
        total = len(self.samples)
        exact = sum(sample.leaks and sample.psnr >= EXACT for sample in self.samples)
        labels = sum(bool(sample.label_read) for sample in self.samples)
        read = "" if self.guess is None else f"; {labels} of {total} labels can be read off"
        if not self.leaks:
            return f"None of {total} pictures can be recovered from this update{read}."
        most = max(sample.psnr for sample in self.samples)
        how = f"{exact} of them exactly" if exact else f"to {most:.0f} dB at best"
        return f"{self.leaks} of {total} pictures can be recovered from this update, {how}{read}."

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "client": self.client,
            "samples": [_plain(sample) for sample in self.samples],
            "dimensions": float(self.risk.dimensions.reshape(-1)[0]),
            "way": self.risk.way,
            "labels": None if self.guess is None or self.guess.y is None else self.guess.y.tolist(),
            "label_confidence": None if self.guess is None else self.guess.confidence,
            "layers": None if self.layers is None else self.layers.to_dict(),
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def predict(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    client: Client | None = None,
    loss: Loss | None = None,
    noise: float = 0.0,
    normalization: Any = None,
    exact: bool | None = None,
    rng: Rng = 0,
) -> Forecast:
    """How much this batch would lose through the update that ``client`` sends, said without an attack.

    The attacker knows the client, its settings and, for the pictures, the labels; ``noise`` is the std of
    what is added to every entry. Beside it stands the rounding of the update's own dtype, which alone bounds
    what the best attacker can reach. Of an attacker who knows how pictures are made, and of one who does not,
    the better counts. Labels are read off the update with one draw of the noise. For networks with kinks the
    number is a local one, and errs towards too much leakage. ``exact`` is that of ``decibels``.
    """
    if not isinstance(noise, int | float) or isinstance(noise, bool) or not 0 <= noise < float("inf"):
        raise InvalidInput(f"expected noise as a std of 0 or more; came {noise!r}")
    clock = time.perf_counter()
    if noise:
        client = GaussianNoise(client or OneGradient(), std=float(noise))
    seen = observe(model, x, y, client=client, loss=loss, normalization=normalization, rng=rng)
    near, notes = _near(seen)
    dense = x.numel() <= _DENSE if exact is None else exact
    risk = decibels(near, x, y, noise=1.0, weights=_known(seen, near), exact=dense, rng=rng)
    guess = _labels(seen, rng)
    layers = _layers(model, x)
    if risk.note:
        notes = (*notes, risk.note)
    if seen.draws:
        drawing = ", ".join(path or "the model" for path in seen.draws)
        notes = (*notes, f"what {drawing} drew is taken for known, which errs towards too much leakage")
    if x.dim() < 4:
        notes = (*notes, "inputs that are no pictures are taken for independent numbers of size 1")
    samples = tuple(_sample(i, risk, guess, layers, y) for i in range(len(x)))
    return Forecast(
        samples,
        risk,
        layers,
        guess,
        repr(seen.client),
        time.perf_counter() - clock,
        tuple(dict.fromkeys(notes)),
    )


def _near(seen: Observation) -> tuple[Observation, tuple[str, ...]]:
    """The observation whose derivative is taken: long local training by its mean gradient."""
    if seen.steps <= _LONG:
        return seen, ()
    plain = seen.as_one_gradient()
    if plain is seen:
        return seen, ()
    said = (
        f"{seen.steps} local steps are taken for one gradient of their mean, which errs towards too much "
        "leakage where the weights move far"
    )
    return plain, (said,)


def _known(seen: Observation, near: Observation) -> dict[str, Tensor]:
    """1 / std per entry, of what ``near`` says was sent."""
    known = weights(seen.uncertainty)
    if near is seen:
        return known
    # A mean gradient is the weights' step divided by how far it reaches.
    return scale(known, _size(flatten(seen.update)) / max(_size(flatten(near.update)), 1e-300))


def _size(leaf: Tensor) -> float:
    return float(leaf.square().mean().sqrt())


def _labels(seen: Observation, rng: Rng) -> LabelGuess | None:
    answer = best()(seen, rng=generator(rng))
    return answer if isinstance(answer, LabelGuess) and answer.y is not None else None


def _layers(model: nn.Module, x: Tensor) -> RankReport | None:
    try:
        return rank(model, tuple(x.shape[1:]), exact=False, batch=len(x))
    except GradleakError:
        return None  # a model that rank analysis cannot read says nothing there


def _sample(
    i: int, risk: Decibels, guess: LabelGuess | None, layers: RankReport | None, y: Tensor
) -> Exposed:
    null = float(risk.null_psnr[i])
    psnr = max(v for v in (float(risk.psnr[0, i]), float(risk.unbiased[0, i])) if v == v)  # not NaN
    total = float(risk.dimensions.reshape(-1)[0])
    reasons = [f"the update shows {total:,.0f} directions of the batch above what hides it"]
    read: bool | None = None
    if guess is not None and guess.y is not None and not y.is_floating_point():
        read = _in_the_multiset(i, guess.y.cpu(), y.cpu())
        sure = (
            "" if guess.confidence is None else f", which is right for {guess.confidence:.0%} of labels or so"
        )
        reasons.append(f"its label {'is' if read else 'is not'} among those that are read off{sure}")
    if layers is not None and layers.deficient:
        reasons.append(f"{layers.deficient[0].path} leaves its input open, by counting equations")
    return Exposed(_verdict(psnr, null), psnr, null, read, tuple(reasons))


def _plain(sample: Exposed) -> dict[str, Any]:
    """As JSON has it, which knows no infinite numbers."""
    facts = asdict(sample) | {"leaks": sample.leaks}
    return {
        key: str(value) if isinstance(value, float) and not isfinite(value) else value
        for key, value in facts.items()
    }


def _verdict(psnr: float, null: float) -> str:
    if not psnr - null >= LEAK:  # of a picture that is the null itself, nothing can be told
        return "not recoverable from this update"
    return "recoverable exactly" if psnr >= EXACT else f"recoverable to about {psnr:.0f} dB"


def _in_the_multiset(i: int, guess: Tensor, y: Tensor) -> bool:
    """Whether enough of this label were guessed for the i-th of the samples that have it."""
    before = int((y[:i] == y[i]).sum())
    return int((guess == y[i]).sum()) > before
