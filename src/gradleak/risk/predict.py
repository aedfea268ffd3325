"""What a client's update would give away of a batch, pictures and labels, and why: without an attack."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from torch import Tensor, nn

from gradleak.defenses import GaussianNoise
from gradleak.errors import GradleakError, InvalidInput
from gradleak.labels import LabelGuess, best
from gradleak.observe import Client, Loss, Observation, OneGradient, observe
from gradleak.observe.layers import name_of
from gradleak.observe.statistics import norm_layers
from gradleak.observe.uncertainty import Defended, weights
from gradleak.randomness import Rng, generator
from gradleak.risk import by_layer
from gradleak.risk.by_layer import LEAK, Alone
from gradleak.risk.decibels import STEPS, Decibels, decibels
from gradleak.risk.rank import RankReport, rank
from gradleak.trees import Tree, flatten, scale

EXACT = 45.0
"""Decibels from which a picture counts as recoverable exactly: the eye sees no difference."""
_DENSE = 1100  # unknowns: up to here a dense matrix takes a second
_DENSE_IN_CLEAR = 3100  # up to here, half a minute
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

    ``risk`` is the prediction in decibels, ``layers`` the same by each layer's part alone, ``ranks`` the rank
    analysis where the model is one it can read, and ``guess`` the labels that the update gives away.
    ``normed``: the batch's own statistics, as of BatchNorm in train mode, hide brightness and contrast.
    """

    samples: tuple[Exposed, ...]
    risk: Decibels
    layers: tuple[Alone, ...]
    ranks: RankReport | None
    guess: LabelGuess | None
    client: str
    seconds: float
    notes: tuple[str, ...] = ()
    pictures: bool = True
    normed: bool = False
    classes: int | None = None

    @property
    def leaks(self) -> int:
        return sum(sample.leaks for sample in self.samples)

    @property
    def order(self) -> list[int]:
        """The samples' places, the most exposed first."""
        samples = self.samples
        return sorted(range(len(samples)), key=lambda i: (not samples[i].leaks, -_finite(samples[i].psnr)))

    @property
    def reasons(self) -> dict[str, list[int]]:
        """Each reason, with the places of the samples that it holds for."""
        whose: dict[str, list[int]] = {}
        for i in self.order:
            for reason in self.samples[i].reasons:
                whose.setdefault(reason, []).append(i)
        return {reason: sorted(places) for reason, places in whose.items()}

    @property
    def what(self) -> str:
        return "picture" if self.pictures else "sample"

    @property
    def verdict(self) -> str:
        total = len(self.samples)
        exact = sum(sample.leaks and sample.psnr >= EXACT for sample in self.samples)
        labels = sum(bool(sample.label_read) for sample in self.samples)
        read = "" if self.guess is None else f"; {labels} of {total} labels can be read off"
        if total == 1:
            one = self.samples[0]
            read = (
                ""
                if one.label_read is None
                else f"; its label {'can' if one.label_read else 'cannot'} be read off"
            )
            return f"The {self.what} is {one.verdict}{'' if one.leaks else self._unsaid}{read}."
        if not self.leaks:
            how = "as they are " if self.normed else ""
            return f"None of {total} {self.what}s can be recovered {how}from this update{self._unsaid}{read}."
        most = max(sample.psnr for sample in self.samples if sample.leaks)
        how = f"{exact} of them exactly" if exact else f"to {most:.0f} dB at best"
        return f"{self.leaks} of {total} {self.what}s can be recovered from this update, {how}{read}."

    @property
    def _unsaid(self) -> str:
        return ", and up to brightness and contrast this does not say" if self.normed else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "client": self.client,
            "samples": [_plain(sample) for sample in self.samples],
            "dimensions": float(self.risk.dimensions.reshape(-1)[0]),
            "way": self.risk.way,
            "labels": None if self.guess is None or self.guess.y is None else self.guess.y.tolist(),
            "label_confidence": None if self.guess is None else self.guess.confidence,
            "layers": [layer.to_dict() for layer in self.layers],
            "ranks": None if self.ranks is None else self.ranks.to_dict(),
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
    layers: bool = True,
    steps: int = STEPS,
    rng: Rng = 0,
) -> Forecast:
    """How much this batch would lose through the update that ``client`` sends, said without an attack.

    The attacker knows the client, its settings and, for the pictures, the labels; ``noise`` is the std of
    what is added to every entry. Beside it stands the rounding of the update's own dtype, which alone bounds
    what the best attacker can reach. Of an attacker who knows how pictures are made, and of one who does not,
    the better counts. Labels are read off the update with one draw of the noise. For networks with kinks the
    number is a local one, and errs towards too much leakage. ``exact`` is that of ``decibels``, and of every
    layer as well; ``steps`` are of ``decibels``, too; without ``layers``, none is asked what it tells alone.
    """
    if not isinstance(noise, int | float) or isinstance(noise, bool) or not 0 <= noise < float("inf"):
        raise InvalidInput(f"expected noise as a std of 0 or more; came {noise!r}")
    clock = time.perf_counter()
    if noise:
        client = GaussianNoise(client or OneGradient(), std=float(noise))
    seen = observe(model, x, y, client=client, loss=loss, normalization=normalization, rng=rng)
    near, taken = _near(seen)
    known = _known(seen, near)
    clear = not isinstance(seen.client, Defended)
    risk, more = _risk(near, x, y, known, _is_dense(x, clear) if exact is None else exact, steps, rng)
    notes = [*taken, *more, *_notes(seen, x)]
    dense = x.numel() <= _DENSE if exact is None else exact
    rows = by_layer.alone(near, x, y, known, risk, dense=dense, rng=rng) if layers else ()
    notes += _notes_on(rows, layers)
    reached = by_layer.reached(*by_layer.in_double(near, x, y))
    found = _Found(seen, risk, rows, _labels(seen, rng), _ranks(model, x), reached, y)
    samples = tuple(found.sample(i) for i in range(len(x)))
    if unseen := [str(i + 1) for i in range(len(x)) if not reached[i].any()]:
        notes.insert(0, _unreached(unseen))
    spent = time.perf_counter() - clock
    said = tuple(dict.fromkeys(notes))
    return Forecast(
        samples,
        risk,
        rows,
        found.ranks,
        found.guess,
        repr(seen.client),
        spent,
        said,
        pictures=x.dim() == 4,
        normed=_is_normed(seen),
        classes=seen.classes,
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


def _is_dense(x: Tensor, clear: bool) -> bool:
    """Where rounding alone hides the batch, all directions are seen, and Lanczos is slower than a matrix."""
    return x.numel() <= (_DENSE_IN_CLEAR if clear else _DENSE)


def _risk(
    near: Observation, x: Tensor, y: Tensor, known: Tree, dense: bool, steps: int, rng: Rng
) -> tuple[Decibels, list[str]]:
    """The whole update's decibels; without the memory for a dense matrix, matrix-free."""
    notes = []
    try:
        risk = decibels(near, x, y, noise=1.0, weights=known, exact=dense, steps=steps, rng=rng)
    except (MemoryError, RuntimeError) as error:
        if not dense or not (isinstance(error, MemoryError) or "memory" in str(error)):
            raise
        notes = ["a dense matrix did not fit into memory: this is the matrix-free answer"]
        risk = decibels(near, x, y, noise=1.0, weights=known, exact=False, steps=steps, rng=rng)
    return risk, [*notes, *([risk.note] if risk.note else [])]


def _notes(seen: Observation, x: Tensor) -> Iterator[str]:
    if seen.draws:
        drawing = ", ".join(name_of(path, seen.model.get_submodule(path)) for path in seen.draws)
        yield f"{drawing} drew at random: the forecast is that of the network without the draw"
    if _is_normed(seen):
        yield (
            "BatchNorm used the batch's own statistics, which hide brightness and contrast: the decibels are "
            "of the raw pictures, and one that is stretched to full contrast can show everything"
        )
    if x.dim() < 4:
        yield "inputs that are no pictures are taken for independent numbers of size 1"


def _is_normed(seen: Observation) -> bool:
    return any(layer.training or layer.running_mean is None for layer in norm_layers(seen.model).values())


def _notes_on(rows: tuple[Alone, ...], layers: bool) -> Iterator[str]:
    if layers and not rows:
        yield f"the network has more than {by_layer.MOST} blocks: none was asked what it tells alone"
    if any(any(row.open) for row in rows):
        yield "not every layer was settled in few steps: exact=True, or --exact, settles all and takes longer"


def _unreached(numbers: list[str]) -> str:
    one = len(numbers) == 1
    shown = ", ".join(numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    return (
        f"{'sample' if one else 'samples'} {shown} {'does' if one else 'do'} not reach the update at all, "
        "such as where every unit is off"
    )


def _labels(seen: Observation, rng: Rng) -> LabelGuess | None:
    answer = best()(seen, rng=generator(rng))
    return answer if isinstance(answer, LabelGuess) and answer.y is not None else None


def _ranks(model: nn.Module, x: Tensor) -> RankReport | None:
    try:
        return rank(model, tuple(x.shape[1:]), exact=False, batch=len(x))
    except GradleakError:
        return None  # a model that rank analysis cannot read says nothing there


@dataclass(frozen=True, eq=False)
class _Found:
    """What the samples' verdicts and reasons are made of."""

    seen: Observation
    risk: Decibels
    layers: tuple[Alone, ...]
    guess: LabelGuess | None
    ranks: RankReport | None
    reached: Tensor
    y: Tensor

    def sample(self, i: int) -> Exposed:
        null, psnr = float(self.risk.null_psnr[i]), float(by_layer.best(self.risk)[i])
        read: bool | None = None
        if self.guess is not None and self.guess.y is not None and not self.y.is_floating_point():
            read = _in_the_multiset(i, self.guess.y.cpu(), self.y.cpu())
        said = Exposed(_verdict(psnr, null), psnr, null, read, ())
        verdict = said.verdict
        if not said.leaks and _is_normed(self.seen):
            verdict = "not recoverable as it is from this update"
        return Exposed(verdict, psnr, null, read, tuple(self._reasons(i, said)))

    def _reasons(self, i: int, sample: Exposed) -> Iterator[str]:
        yield self._directions(i)
        if sample.leaks and (said := self._layer(i, sample)):
            yield said
        if sample.label_read is not None and self.guess is not None:
            sure = self.guess.confidence
            how = (
                ""
                if sure is None or not sample.label_read
                else f", which is right for {sure:.0%} of labels or so"
            )
            yield f"its label {'is' if sample.label_read else 'is not'} among those that are read off{how}"
        if self.ranks is not None and self.ranks.deficient:
            first = self.ranks.deficient[0].path
            name = by_layer.titled(first, by_layer.kind_of(self.seen.model, first))
            yield f"{name} leaves its input open, by counting equations"

    def _directions(self, i: int) -> str:
        entries, out = self.reached[i].numel(), int((~self.reached[i]).sum())
        if out == entries:
            return "it does not reach the update at all"
        hides = "what hides it" if isinstance(self.seen.client, Defended) else "the rounding of its numbers"
        total = float(self.risk.dimensions.reshape(-1)[0])
        lost = f", and {out:,} of this sample's {entries:,} entries do not reach it" if out else ""
        of = f"{self.reached.numel():,} directions of the batch"
        return f"the update shows {total:,.0f} of {of} above {hides}{lost}"

    def _layer(self, i: int, sample: Exposed) -> str:
        above = [layer for layer in self.layers if not float(layer.psnr[i]) - sample.null_psnr < LEAK]
        settled = [layer for layer in above if not layer.open[i]]
        if settled:
            most = max(settled, key=lambda layer: float(layer.psnr[i]))
            return f"the part of {most.name} alone gives it away, to {float(most.psnr[i]):.0f} dB"
        if above or not self.layers:
            return ""  # an upper end above the line says nothing, one below it does
        return "no layer's part gives it away alone, all of them together do"


def _finite(value: float) -> float:
    """As numbers to sort by: what is not one comes last."""
    return value if value == value else -float("inf")


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
