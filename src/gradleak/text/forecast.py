"""What an update would give away of a batch of texts, and why: said before any attack is run."""

import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradleak.errors import GradleakError, InvalidBatch, InvalidInput
from gradleak.labels import LabelGuess, best
from gradleak.observe import Client, Loss, Observation, observe
from gradleak.observe.layers import name_of
from gradleak.observe.uncertainty import Defended
from gradleak.observe.words import are_words
from gradleak.randomness import Rng, spawn
from gradleak.text.adapter import TextModel
from gradleak.text.confusion import Confusion, confusion
from gradleak.text.losses import IGNORED
from gradleak.text.reading import Named, Read, by_rows, by_span, words_of
from gradleak.text.rows import label_words
from gradleak.trees import Tree, norm, scale

STEPS = 256
"""Products with the Jacobian, where there are too many words for all of it."""
LEAK = 0.1
"""By how much a text's share of words has to lie above guessing, to count as leaked."""
_BAG = 0.5  # of its words, from which a text counts as named in any order
_LONG = 8  # local steps, beyond which the update is taken for its mean gradient


@dataclass(frozen=True)
class ExposedText:
    """One text: the share of its words that the strongest attacker we know would put into their places.

    ``bag`` is the share that is named in any order, and ``null_words`` what guessing puts into place.
    ``label_read``: whether the labels that the update gives away hold this text's; None where nothing does.
    "Recoverable exactly" is said where the spans of two layers read it, as ``dager`` does; what only solving
    for embeddings would bring back is a share of words, be it all of them.
    """

    verdict: str
    words: float
    null_words: float
    bag: float
    label_read: bool | None
    reasons: tuple[str, ...]

    @property
    def placed(self) -> bool:
        """Whether words come back in their places, more than by guessing."""
        return self.words - self.null_words >= LEAK

    @property
    def leaks(self) -> bool:
        return self.placed or self.bag >= _BAG


@dataclass(frozen=True, eq=False, repr=False)
class TextForecast:
    """A verdict per text, in order, and what it rests on.

    ``way`` is "exact" where the first two layers' spans say all, "dense" where embeddings were solved for
    all together, "alone" where each word was looked at with the others known, which errs towards too much
    leakage, and "none". ``dimensions`` count what the update shows: the first layer's rank, or directions
    above the noise.
    """

    samples: tuple[ExposedText, ...]
    dimensions: float | None
    way: str
    guess: LabelGuess | None
    client: str
    seconds: float
    notes: tuple[str, ...] = ()
    classes: int | None = None
    what: str = field(default="text", init=False)

    @property
    def leaks(self) -> int:
        return sum(sample.leaks for sample in self.samples)

    @property
    def label_confidence(self) -> float | None:
        return None if self.guess is None else self.guess.confidence

    @property
    def order(self) -> list[int]:
        """The texts' places, the most exposed first."""
        samples = self.samples
        return sorted(range(len(samples)), key=lambda i: (-samples[i].words, -samples[i].bag))

    @property
    def reasons(self) -> dict[str, list[int]]:
        """Each reason, with the places of the texts that it holds for."""
        whose: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            for reason in sample.reasons:
                whose.setdefault(reason, []).append(i)
        return whose

    @property
    def verdict(self) -> str:
        read = [sample.label_read for sample in self.samples if sample.label_read is not None]
        if len(self.samples) == 1:
            label = f"; its label {'can' if read[0] else 'cannot'} be read off" if read else ""
            return f"Of the text: {self.samples[0].verdict}{label}."
        said = Counter(sample.verdict for sample in self.samples)
        each = ", ".join(f"{count} {verdict}" for verdict, count in said.most_common())
        label = f"; {sum(read)} of {len(self.samples)} labels can be read off" if read else ""
        return f"Of {len(self.samples)} texts: {each}{label}."

    def __str__(self) -> str:
        lines = [
            f"{i + 1}: {s.verdict} (in place {s.words:.2f}, by guessing {s.null_words:.3f}; in any order "
            f"{s.bag:.2f})"
            for i, s in enumerate(self.samples)
        ]
        return "\n".join((self.verdict, *lines))

    def __repr__(self) -> str:
        shown = "unknown" if self.dimensions is None else f"{self.dimensions:,.0f}"
        return (
            f"TextForecast({self.verdict} Way: {self.way}, dimensions: {shown}, client: {self.client}, "
            f"{self.seconds:.1f} s)"
        )

    def to_dict(self) -> dict[str, Any]:
        labels = None if self.guess is None or self.guess.y is None else self.guess.y.tolist()
        return {
            "verdict": self.verdict,
            "client": self.client,
            "samples": [
                asdict(one) | {"leaks": one.leaks, "reasons": list(one.reasons)} for one in self.samples
            ],
            "dimensions": self.dimensions,
            "way": self.way,
            "labels": labels,
            "label_confidence": self.label_confidence,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def forecast(
    model: TextModel,
    ids: Tensor,
    y: Tensor,
    *,
    client: Client | None = None,
    loss: Loss | None = None,
    reveal: Collection[str] = (),
    public: Tensor | None = None,
    exact: bool | None = None,
    steps: int = STEPS,
    rng: Rng = 0,
) -> TextForecast:
    """How much of the texts ``ids`` the update that ``client`` sends would give away, without an attack.

    It looks at the private batch, as an auditor may. Three ways are asked, and the best one counts word by
    word: rows of the word embeddings; the spans of the first two layers, with one draw of the noise; and
    where these leave words open, how far noise or rounding blurs embeddings that are solved for. The
    attacker knows the client and its settings; for the third way, the labels too, from which no words are
    read there.

    ``public`` are texts [N, T] whose most frequent word is a better guess than a random one. ``exact``
    solves for all embeddings together, however many; None goes by size, and ``steps`` bounds the other way.
    ``loss`` is the model's own unless given. ``rng`` is that of ``gradleak.observe`` and of the draws.
    """
    if not isinstance(model, TextModel) or not are_words(ids):
        came = f"{type(model).__name__} and {ids.dtype if isinstance(ids, Tensor) else type(ids).__name__}"
        raise InvalidBatch(
            f"expected a model wrapped by gradleak.text.wrap and words [B, T] as integers; came {came}"
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InvalidInput(f"expected steps as a whole number of 1 or more; came {steps!r}")
    clock = time.perf_counter()
    seen = observe(model, ids, y, client=client, loss=loss or model.loss, reveal=reveal, rng=rng)
    ids, y = ids.to(seen.like.device, torch.int64), y.to(seen.like.device)
    found = _Found.of(seen, ids, y, exact, steps, rng)
    samples = tuple(found.sample(i, public) for i in range(len(ids)))
    return TextForecast(
        samples,
        found.dimensions,
        found.way,
        found.guess,
        repr(seen.client),
        time.perf_counter() - clock,
        tuple(found.notes()),
        seen.classes,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What the ways say; a string says why one is closed."""

    seen: Observation
    ids: Tensor
    y: Tensor
    rows: Named | str
    span: Read | str
    solved: Confusion | str | None  # None: nothing was left to ask
    guess: LabelGuess | None
    labels: Tensor | None  # words that were predicted

    @classmethod
    def of(
        cls, seen: Observation, ids: Tensor, y: Tensor, exact: bool | None, steps: int, rng: Rng
    ) -> "_Found":
        labels, draws = spawn(rng, 2)
        with torch.no_grad():
            clean = {name: leaf.detach() for name, leaf in seen.simulate(ids, y).items()}
            rows, span = by_rows(seen, ids, clean), by_span(seen, ids)
        solved: Confusion | str | None = None
        real = words_of(seen, ids)
        if isinstance(span, str) or not _is_whole(span, real):
            named = rows.likely if isinstance(rows, Named) and rows.precision >= 0.5 else None
            near, blurred = _near(seen)
            try:
                solved = confusion(
                    near, ids, y, real, deviation=blurred, named=named, exact=exact, steps=steps, rng=draws
                )
            except GradleakError as refused:
                solved = str(refused)
        guess = None
        if seen.labels is None and y.dim() == 1:
            answer = best()(seen, rng=labels)
            guess = answer if isinstance(answer, LabelGuess) and answer.y is not None else None
        return cls(seen, ids, y, rows, span, solved, guess, _labels(seen, y))

    @property
    def way(self) -> str:
        if isinstance(self.solved, Confusion):
            return "alone" if self.solved.alone else "dense"
        return "exact" if isinstance(self.span, Read) else "none"

    @property
    def dimensions(self) -> float | None:
        if isinstance(self.solved, Confusion):
            return self.solved.dimensions
        return float(self.span.ranks[0]) if isinstance(self.span, Read) else None

    def sample(self, i: int, public: Tensor | None) -> ExposedText:
        real = words_of(self.seen, self.ids)[i]
        words = self.ids[i][real]
        null = 1 / len(self.seen.model.embeddings())  # type: ignore[operator]  # a TextModel
        if public is not None and public.numel():
            frequent = public[words_of(self.seen, public)].flatten().bincount().argmax()
            null = max(null, float((words == frequent.to(words)).double().mean()))
        placed = max(self._placed(i, real), null)
        bag = max(placed, *(self._named(way, i, real) for way in (self.rows, self.span)))
        read = self._label_read(i)
        first = ExposedText("", placed, null, bag, read, ())
        most = isinstance(self.solved, Confusion) and self.solved.alone
        said = _verdict(first, *self._exactly(i, real), "up to" if most else "about")
        return ExposedText(said, placed, null, bag, read, tuple(self._reasons(i, real, first)))

    def _placed(self, i: int, real: Tensor) -> float:
        """Word by word the better way; where some words were asked for, they stand for all."""
        span = self.span.placed[i][real] if isinstance(self.span, Read) else real[real].double() * 0
        if not isinstance(self.solved, Confusion):
            return float(span.mean())
        solved = self.solved.right[i][real]
        asked = solved if not bool(solved.isnan().all()) else self.solved.right
        solved = torch.where(solved.isnan(), asked.nanmean(), solved)
        if self.seen.model.task == "causal":
            solved[-1] = 0  # what comes last is only a label
        return float(torch.maximum(span, solved).mean())

    def _named(self, way: Named | Read | str, i: int, real: Tensor) -> float:
        named = way.named if isinstance(way, Read) else way
        return 0.0 if isinstance(named, str) else float(named.likely[i][real].mean()) * named.precision

    def _exactly(self, i: int, real: Tensor) -> tuple[bool, bool]:
        """Whether the spans read the text, and, of a decoder's, all but the last word."""
        if isinstance(self.span, str):
            return False, False
        placed = self.span.placed[i][real] == 1
        but_last = not self.span.last and len(placed) > 1 and bool(placed[:-1].all())
        return bool(placed.all()), but_last

    def _label_read(self, i: int) -> bool | None:
        if self.labels is not None:
            own = self.y[i][self.y[i] != IGNORED]
            return bool(torch.isin(own, self.labels).all())
        if self.guess is None or self.guess.y is None or self.y.is_floating_point():
            return None
        before = int((self.y[:i] == self.y[i]).sum())
        return int((self.guess.y.to(self.y) == self.y[i]).sum()) > before

    def _reasons(self, i: int, real: Tensor, found: ExposedText) -> Iterator[str]:
        if isinstance(self.rows, Named):
            yield f"rows of the word embeddings name {self._named(self.rows, i, real):.0%} of its words"
        if isinstance(self.span, Read):
            share = float(self.span.placed[i][real].mean())
            yield f"the spans of the first two layers put {share:.0%} of its words into their places"
            if not self.span.last:
                yield "its last word is read by no layer behind it, and is only a label"
        if isinstance(self.solved, Confusion) and not bool(self.solved.right[i][real].isnan().all()):
            share = float(self.solved.right[i][real].nanmean())
            hides = "what hides it" if isinstance(self.seen.client, Defended) else "the numbers' rounding"
            yield f"solving for embeddings through {hides} brings back {share:.0%} of its words"
        if found.label_read is not None:
            yield f"its label {'is' if found.label_read else 'is not'} among those that are read off"

    def notes(self) -> Iterator[str]:
        for name, way in (("word embeddings", self.rows), ("spans", self.span), ("solving", self.solved)):
            if isinstance(way, str):
                yield f"{name}: {way}"
        if isinstance(self.solved, Confusion):
            yield from self._notes_on_solving(self.solved)
        if isinstance(self.span, Read) and len(self.ids) > 1 and self.span.last:
            yield "texts of an encoder that are read together have to be searched for, which may take long"

    def _notes_on_solving(self, solved: Confusion) -> Iterator[str]:
        if solved.alone:
            yield (
                "too many words to solve for together: each is taken alone, the others known, against few "
                "rivals, which errs towards too much leakage"
            )
        if self.y.dim() > 1:
            yield (
                "where embeddings are solved for, labels that are words were left aside, though they tell of "
                "words: under noise this errs towards too little leakage"
            )
        if self.seen.draws:
            drawing = ", ".join(
                name_of(path, self.seen.model.get_submodule(path)) for path in self.seen.draws
            )
            yield f"{drawing} drew at random: solving is that of the network without the draw"
        if self.seen.steps > _LONG:
            yield f"{self.seen.steps} local steps are taken for one gradient of their mean"


def _near(seen: Observation) -> tuple[Observation, Tree]:
    """Long local training by its mean gradient, and the deviation of its entries.

    A mean gradient is the weights' step divided by how far it reaches, and so is what blurs it.
    """
    plain = seen.as_one_gradient() if seen.steps > _LONG else seen
    reach = norm(seen.update) / norm(plain.update).clamp_min(1e-300)
    return plain, scale(seen.uncertainty, 1 / reach)


def _is_whole(span: Read, real: Tensor) -> bool:
    """Whether there is no word left to ask for; a decoder's last ones nobody finds by their embeddings."""
    if span.last:
        return bool((span.placed[real] == 1).all())
    ends = real & ~torch.nn.functional.pad(real[:, 1:], (0, 1))
    return bool((span.placed[real & ~ends] == 1).all())


def _labels(seen: Observation, y: Tensor) -> Tensor | None:
    """The words that were predicted, where the head says so; noise would name half of the vocabulary."""
    if y.dim() == 1 or seen.labels is not None:
        return None
    try:
        words = label_words(seen)
    except GradleakError:
        return None
    return words if len(words) <= int((y != IGNORED).sum()) else words[:0]


def _verdict(found: ExposedText, exactly: bool, but_last: bool, about: str) -> str:
    if exactly or but_last:
        return "recoverable exactly" + ("" if exactly else " but for its last word")
    if found.placed:
        return f"{about} {100 * found.words:.0f} % of its words in their places"
    return "its words, not their order" if found.bag >= _BAG else "not from this update"
